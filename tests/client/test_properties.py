"""Properties from Python and from the command line, against real services."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from inkling import Client, CustomerEvent, Status
from inkling.cli import make_app
from inkling.client.properties import PropertySpec, PropertyWrite
from inkling.errors import InvalidArgument, NotFound, PermissionDenied
from tests.client.test_with_services import Running

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The suite, for all tests of this module: each uses names of its own."""
    suite = Running(tmp_path_factory.mktemp("properties"))
    yield suite
    suite.process.terminate()
    assert suite.process.stderr is not None
    suite.process.stderr.close()
    suite.process.wait(timeout=30)


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    """A client of the suite."""
    with running.client() as opened:
        yield opened


def run(running: Running, *arguments: str) -> Result:
    return CliRunner().invoke(make_app(), ["--data-dir", str(running.folder), *arguments])


def test_a_property_is_declared_set_read_back_and_unset(client: Client) -> None:
    client.properties.declare("plan", "string", attribute_key="visitor_id", description="What they pay for.")
    client.properties.declare("address", "record", attribute_key="visitor_id")
    address = {"city": "Ulm", "tags": ["home", 1, 1.5, None], "since": NOW}
    position = client.properties.set("v1", {"plan": "pro", "address": address}, attribute_key="visitor_id")
    found = client.profiles.get("v1", properties=["*"], attribute_key="visitor_id", min_position=position)
    plan = found.properties["plan"]
    assert (plan.value, plan.status, plan.source) == ("pro", Status.PRESENT, "api")
    assert plan.event_time is not None
    assert abs(plan.event_time - datetime.now(UTC)) < timedelta(minutes=1)
    assert found.properties["address"].value == address

    position = client.properties.set("v1", attribute_key="visitor_id", unset=["plan"])
    found = client.profiles.get("v1", everything=True, attribute_key="visitor_id", min_position=position)
    assert (found.properties["plan"].value, found.properties["plan"].status) == (None, Status.NULL)
    assert [each.name for each in client.properties.list("visitor_id")] == [
        "attributeKeys/visitor_id/properties/address",
        "attributeKeys/visitor_id/properties/plan",
    ]
    client.properties.delete("plan", attribute_key="visitor_id")
    with pytest.raises(NotFound):
        client.properties.get("plan", attribute_key="visitor_id")


def test_mistakes_are_told_with_what_is_near(client: Client) -> None:
    client.properties.declare("country", "string", attribute_key="shopper_id")
    with pytest.raises(InvalidArgument, match="did you mean `country`") as refused:
        client.properties.set("s", {"countri": "GB"}, attribute_key="shopper_id")
    assert refused.value.reason == "UNDECLARED_PROPERTY"
    with pytest.raises(PermissionDenied):
        client.properties.set("s", {"country": "GB"}, attribute_key="shopper_id", source="rule:1")
    event = CustomerEvent(
        name="set_properties", vendor="inkling", version="1-0-0", occurred_at=NOW, keys={"shopper_id": "s"}
    )
    result = client.events.ingest([event])
    assert [each.reason for each in result.rejected] == ["RESERVED_VENDOR"]


def test_many_profiles_are_set_over_a_stream_and_the_same_again_adds_nothing(client: Client) -> None:
    specs = [PropertySpec("score", "numeric"), PropertySpec("total", "numeric", merge="sum")]
    client.properties.declare_many(specs, attribute_key="player_id")
    writes = [PropertyWrite(f"p{i}", {"score": i, "total": 1.0}) for i in range(2_500)]
    writes[1_234] = PropertyWrite("p1234", {"score": "many"})
    for _ in range(2):
        result = client.properties.set_many(writes, attribute_key="player_id", batch_id="load-1")
        assert result.accepted == 2_499
        assert [(each.index, each.reason, each.field) for each in result.rejected] == [
            (1_234, "BAD_VALUE", "writes[234].values.score")
        ]
    keys = [f"p{i}" for i in range(2_500)]
    found = client.profiles.batch_get(
        keys, properties=["score", "total"], attribute_key="player_id", min_position=result.position
    )
    expected: list[object] = [[float(i), 1.0] for i in range(2_500)]
    expected[1_234] = [None, None]
    assert [[each.value for each in profile.properties.values()] for profile in found] == expected


def test_users_are_rolled_up_to_their_account(client: Client) -> None:
    client.properties.declare("account", "string", attribute_key="member_id", refers_to="team_id")
    client.properties.declare("seats", "numeric", attribute_key="member_id")
    client.properties.declare_rollup(
        "seats", "sum", attribute_key="team_id", reference="member_id:account", attribute="properties.seats"
    )
    client.properties.declare_rollup("members", "count", attribute_key="team_id", reference="member_id:account")
    writes = [PropertyWrite(f"m{i}", {"account": f"t{i % 2}", "seats": 0.1}) for i in range(21)]
    position = client.properties.set_many(writes, attribute_key="member_id").position
    found = client.profiles.get("t0", everything=True, attribute_key="team_id", min_position=position)
    assert {name: each.value for name, each in found.rollups.items()} == {"seats": 1.1, "members": 11}
    assert [each.name for each in client.properties.list_rollups("team_id")] == [
        "attributeKeys/team_id/rollups/members",
        "attributeKeys/team_id/rollups/seats",
    ]


def test_the_commands_declare_import_and_show(running: Running, tmp_path: Path) -> None:
    declarations = tmp_path / "properties.json"
    declarations.write_text(
        json.dumps({"properties": [{"name": "plan", "type": "string"}, {"name": "paid", "type": "numeric"}]})
    )
    assert run(running, "properties", "declare", str(declarations), "--key", "client_id").exit_code == 0
    done = run(running, "properties", "declare", "since", "--type", "date", "--key", "client_id", "--hidden")
    assert done.exit_code == 0, done.stderr
    file = tmp_path / "clients.csv"
    file.write_text("id,plan,paid,since\nc1,pro,12.5,2026-01-31\nc2,,3,\nc3,free,,\n")
    for _ in range(2):
        done = run(running, "properties", "import", str(file), "--key", "client_id=id")
        assert done.exit_code == 0, done.stderr
        assert "3 profiles set, 0 refused" in done.stdout
    position = int(done.stdout.rpartition(" ")[2])
    done = run(running, "profile", "get", "c1", "c2", "--key", "client_id", "--min-position", str(position))
    assert done.exit_code == 0, done.stderr
    first, second = (json.loads(line)["$properties"] for line in done.stdout.splitlines())
    assert (first, second) == ({"paid": 12.5, "plan": "pro"}, {"paid": 3.0, "plan": None})
    done = run(running, "properties", "set", "c2", "plan=basic", "paid=4", "--key", "client_id")
    assert done.exit_code == 0, done.stderr
    assert run(running, "properties", "unset", "c2", "paid", "--key", "client_id").exit_code == 0
    assert "client_id  since     date" in run(running, "properties", "list", "--key", "client_id").stdout
    file.write_text("id,paid\nc1,much\n")
    done = run(running, "properties", "import", str(file), "--key", "client_id=id")
    assert done.exit_code == 2
    assert "line 2: paid: 'much' is not a numeric" in done.stderr


def test_a_watcher_sees_a_property_that_was_set(client: Client) -> None:
    client.properties.declare("mood", "string", attribute_key="guest_id")
    changes = client.profiles.watch(["g"], properties=["mood"], attribute_key="guest_id", send_initial=True)
    assert next(changes).profiles[0].properties["mood"].status is Status.NEVER_SEEN
    client.properties.set("g", {"mood": "good"}, attribute_key="guest_id")
    started = time.monotonic()
    assert next(changes).profiles[0].properties["mood"].value == "good"
    assert time.monotonic() - started < 30
