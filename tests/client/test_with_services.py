"""`inkling up`, the client and the commands against the real services."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from inkling import (
    AtomicProperty,
    Attribute,
    AttributeKey,
    Client,
    CustomerEvent,
    Event,
    Service,
    Signals,
    Status,
    StreamAttributeGroup,
)
from inkling.cli import make_app
from inkling.cli.connection import read_addresses
from inkling.errors import (
    EventRejected,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from inkling.ingest.v1.collection_pb2 import FIELD_TYPE_NUMBER, Collection, Field
from inkling.ingest.v1.event_pb2 import EventType

PURCHASE = Event(name="purchase")
USER = AttributeKey(name="user_id")
OWNER = "me@example.org"


class Running:
    """`inkling up` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        script = "from inkling.cli import main; main()"
        ports = ["--port", "ingest=0", "--port", "features=0", "--port", "insights=0"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, "--data-dir", str(folder), "up", *ports],
            env={**os.environ, "COLUMNS": "200"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = self._until_ready()

    def _until_ready(self) -> list[str]:
        assert self.process.stderr is not None
        said = []
        for line in self.process.stderr:
            said.append(line.rstrip())
            if line.startswith("Ctrl-C stops"):
                return said
        raise AssertionError("\n".join(said))

    def client(self, api_key: str | None = None) -> Client:
        found = read_addresses(self.folder)
        assert found is not None
        key = found.api_key if api_key is None else api_key
        return Client(api_key=key, ingest=found.ingest, features=found.features)

    def command(self, *arguments: str) -> Result:
        return CliRunner().invoke(make_app(), ["--data-dir", str(self.folder), *arguments])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.communicate(timeout=30)
        if self.process.poll() is None:
            self.process.kill()
        return self.process.wait()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    found = Running(tmp_path_factory.mktemp("up"))
    yield found
    assert found.stop() == 0


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with running.client() as opened:
        yield opened


def group(name: str, version: int = 1) -> StreamAttributeGroup:
    amount = AtomicProperty("amount")
    return StreamAttributeGroup(
        name=name,
        version=version,
        attribute_key=USER,
        owner=OWNER,
        attributes=[
            Attribute(name="spent", type="double", events=[PURCHASE], aggregation="sum", property=amount),
            Attribute(
                name="bought_l1d", type="int64", events=[PURCHASE], aggregation="counter", period=timedelta(days=1)
            ),
        ],
    )


def purchase(user: str, amount: float, **more: object) -> CustomerEvent:
    return CustomerEvent(
        name="purchase",
        occurred_at=datetime.now(UTC) - timedelta(seconds=1),
        keys={"user_id": user},
        properties={"amount": amount},
        **more,  # type: ignore[arg-type]
    )


def test_the_first_start_prints_a_key_that_works(running: Running, client: Client) -> None:
    found = read_addresses(running.folder)
    assert found is not None
    assert any(found.api_key in line for line in running.said)
    assert client.project.get().clock == "wall"


def test_what_was_written_is_read(client: Client) -> None:
    mine = group("written")
    applied = client.publish([Service(name="written_service", attribute_groups=[mine], owner=OWNER), mine])
    assert [each.name for each in applied] == [
        "featureServices/written_service",
        "attributeGroups/written/versions/1",
    ]
    client.events.send(purchase("4711", 1.25))
    delivery = client.events.send(purchase("4711", 2.5))
    written = client.events.flush()
    assert (written.accepted, delivery.result().position) == (2, written.position)
    profile = client.profiles.get("4711", service="written_service", min_position=written.position)
    assert profile.values == {"spent": 3.75, "bought_l1d": 2}
    assert profile.statuses["spent"] is Status.PRESENT
    assert client.get_service_attributes(name="written_service", attribute_key="user_id", identifier="4711") == {
        "user_id": "4711",
        "spent": 3.75,
        "bought_l1d": 2,
    }
    assert client.get_group_attributes(
        name="written", version=1, attribute_key="user_id", identifier="4711", attributes=["spent"]
    ) == {"user_id": "4711", "spent": 3.75}
    unknown = client.profiles.get("nobody", groups=["written/1"])
    assert set(unknown.statuses.values()) == {Status.NEVER_SEEN}
    with pytest.raises(NotFound):
        client.profiles.get("4711", service="none")


def test_a_repeated_id_counts_once_and_a_correction_takes_its_place(client: Client) -> None:
    client.publish([group("corrected")])
    first = purchase("9000", 10.0, event_id="order-1")
    client.events.ingest([first, first])
    written = client.events.ingest([purchase("9000", 4.0, event_id="order-1", revision=1)])
    profile = client.profiles.get("9000", groups=["corrected"], min_position=written.position)
    assert profile.values == {"spent": 4.0, "bought_l1d": 1}
    gone = client.events.ingest([purchase("9000", 4.0, event_id="order-1", revision=2, deleted=True)])
    profile = client.profiles.get("9000", groups=["corrected"], min_position=gone.position)
    assert profile.values == {"spent": None, "bought_l1d": None}


def test_a_refused_event_is_told_kept_repaired_and_replayed(client: Client) -> None:
    bad = purchase("1", float("nan"))
    good = purchase("1", 1.0)
    result = client.events.ingest([bad, good])
    assert result.accepted == 1
    refused = result.rejected[0]
    assert (refused.event_id, refused.reason) == (bad.event_id, "BAD_PROPERTY")
    letter = client.dead_letters.get(refused.dead_letter)
    assert letter.event_id == bad.event_id
    assert refused.dead_letter in [each.name for each in client.dead_letters.list(reason="bad_property")]
    replayed = client.dead_letters.replay(repairs={refused.dead_letter: purchase("1", 2.0, event_id=bad.event_id)})
    assert replayed.accepted_count == 1
    with pytest.raises(NotFound):
        client.dead_letters.get(refused.dead_letter)
    delivery = client.events.send(purchase("1", float("inf")))
    client.events.flush()
    with pytest.raises(EventRejected):
        delivery.result()
    assert client.dead_letters.purge(everything=True) >= 1


def test_a_long_stream_is_acknowledged_in_order(client: Client) -> None:
    acknowledged = list(client.events.stream((purchase(str(n % 7), 1.0) for n in range(2_500)), batch_size=400))
    assert [each.sequence for each in acknowledged] == list(range(1, 8))
    assert sum(each.result.accepted for each in acknowledged) == 2_500


def test_plans_name_mistakes_and_show_what_changes(client: Client) -> None:
    client.publish([group("planned")])
    written = client.events.ingest([purchase("planner", 5.0)])
    client.profiles.get("planner", groups=["planned"], min_position=written.position)
    wrong = Attribute(name="total", type="double", events=[PURCHASE], aggregation="sum")
    next_version = StreamAttributeGroup(
        name="planned", version=2, attribute_key=USER, owner=OWNER, attributes=[*group("planned").attributes, wrong]
    )
    plan = client.definitions.plan(next_version)
    assert [problem.field for problem in plan.problems] == ["attributes[2].property"]
    with pytest.raises(InvalidArgument, match="property"):
        client.test(next_version)
    with pytest.raises(InvalidArgument):
        client.publish([next_version])
    good = group("planned", version=2)
    plan = client.definitions.plan(good, key_values=["planner"])
    assert set(plan.changes.values()) == {"UNCHANGED"}
    row = next(row for row in client.test(good, key_values=["planner"]) if row["user_id"] == "planner")
    assert row == {"user_id": "planner", "spent": 5.0, "bought_l1d": 1}


def test_definitions_are_listed_exported_and_deleted(client: Client) -> None:
    mine = group("listed")
    service = Service(name="listed_service", attribute_groups=[mine], owner=OWNER)
    client.publish([mine, service])
    assert "attributeGroups/listed/versions/1" in [each.name for each in client.definitions.list_groups()]
    exported = client.definitions.export("attributeGroups/listed/versions/1")
    assert exported["attributes"] == mine.to_signals()["attributes"]
    assert client.definitions.get_group("listed/1").owner == OWNER
    with pytest.raises(FailedPrecondition):
        client.definitions.delete_group("listed/1")
    client.definitions.delete_service("listed_service")
    client.definitions.delete_group("listed/1")
    with pytest.raises(NotFound):
        client.definitions.get_group("listed/1")


def test_watching_shows_what_changes(client: Client) -> None:
    client.publish([group("watched")])
    changes = client.profiles.watch(["watcher"], groups=["watched"], send_initial=True)
    assert next(changes).profiles[0].values == {"spent": None, "bought_l1d": None}
    client.events.ingest([purchase("watcher", 7.0)])
    assert next(changes).profiles[0].values == {"spent": 7.0, "bought_l1d": 1}
    changes.close()  # type: ignore[attr-defined]


def test_collections_are_declared_and_grow(client: Client) -> None:
    fields = [Field(name="amount", type=FIELD_TYPE_NUMBER)]
    made = client.collections.create("sale", Collection(event_type=EventType(name="sale"), fields=fields))
    assert made.version == 1
    made.fields.add(name="tax", type=FIELD_TYPE_NUMBER)
    changed = client.collections.update(made, fields=["fields"])
    assert (changed.version, len(changed.fields)) == (2, 2)
    assert [each.name for each in client.collections.list()] == ["collections/sale"]


def test_wrong_and_weak_keys_are_refused_as_what_they_are(running: Running) -> None:
    with running.client("ink_wrong") as client, pytest.raises(Unauthenticated):
        client.project.get()
    made = running.command("keys", "create", "--role", "read")
    with running.client(made.stdout.strip()) as client, pytest.raises(PermissionDenied):
        client.events.ingest([purchase("1", 1.0)])


def test_the_client_of_the_document_reads_and_publishes(running: Running) -> None:
    found = read_addresses(running.folder)
    assert found is not None
    signals = Signals(api_url=f"http://{found.features}", api_key=found.api_key, api_key_id="id", org_id="org")
    mine = group("document")
    applied = signals.publish([mine, Service(name="document_service", attribute_groups=[mine], owner=OWNER)])
    assert f"{len(applied)} objects applied" == "2 objects applied"
    values = signals.get_service_attributes(name="document_service", attribute_key="user_id", identifier="x")
    assert values == {"user_id": "x", "spent": None, "bought_l1d": None}
    signals.close()


def test_the_commands_import_and_read(running: Running, tmp_path: Path) -> None:
    document = tmp_path / "group.json"
    document.write_text(json.dumps(group("imported").to_signals()))
    applied = running.command("definitions", "apply", str(document), "--publish")
    assert applied.exit_code == 0, applied.stderr
    assert "attributeGroups/imported/versions/1 published" in applied.stdout
    now = datetime.now(UTC) - timedelta(minutes=1)
    sales = tmp_path / "sales.csv"
    lines = ["CUSTOMER,AT,amount", *(f"c{n % 3},{now:%Y-%m-%d %H:%M:%S},{n}.5" for n in range(9)), "c1,never,1"]
    sales.write_text("\n".join(lines) + "\n")
    columns = ["--key", "user_id=CUSTOMER", "--time", "AT", "--event", "purchase", "--type", "amount=number"]
    for _ in range(2):
        done = running.command("ingest", "csv", str(sales), *columns)
        assert done.exit_code == 1
        assert "9 events accepted, 1 refused" in done.stdout
        assert "line 11, column AT" in done.stderr
    position = done.stdout.split()[-1]
    read = running.command("profile", "get", "c0", "--group", "imported", "--min-position", position)
    assert json.loads(read.stdout)["spent"] == 0.5 + 3.5 + 6.5
    assert json.loads(read.stdout)["bought_l1d"] == 3
    assert "BAD_LINE" in running.command("dead-letters", "list").stdout
    assert "serving" in running.command("definitions", "list").stdout
    assert "never" in running.command("dead-letters", "get", letter_id(running)).stdout
    assert running.command("dead-letters", "purge", "--all").exit_code == 0


def letter_id(running: Running) -> str:
    """The newest dead letter."""
    return running.command("dead-letters", "list").stdout.splitlines()[1].split()[0]


def test_settings_are_shown_and_changed(running: Running) -> None:
    changed = running.command("project", "set", "--retention-days", "400", "--max-lead-seconds", "60")
    assert changed.exit_code == 0, changed.stderr
    shown = running.command("project", "get").stdout
    assert "400 days" in shown
    assert "0:01:00" in shown
    back = running.command("project", "set", "--retention-days", "0", "--max-lead-seconds", "300")
    assert "for ever" in back.stdout
    wrong = running.command("project", "set", "--clock", "sand")
    assert (wrong.exit_code, "it is wall or log" in wrong.stderr) == (2, True)
