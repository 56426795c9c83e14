"""The past, explanations and exports from Python and the command line; all that is served here is proved."""

import csv
import json
import random
import socket
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from inkling import (
    AtomicProperty,
    Attribute,
    AttributeKey,
    Client,
    CustomerEvent,
    Event,
    Service,
    StreamAttributeGroup,
)
from inkling.client import Profile
from inkling.errors import InvalidArgument, NotFound
from tests.client.test_with_services import Running

NOW = datetime.now(UTC).replace(microsecond=0)
BUY = Event(name="buy")
PRICE = AtomicProperty("price")
WEEK = timedelta(days=7)


def attribute(name: str, kind: str, aggregation: str, **fields: object) -> Attribute:
    return Attribute(name=name, type=kind, events=[BUY], aggregation=aggregation, **fields)  # type: ignore[arg-type]


GROUP = StreamAttributeGroup(
    name="shopping",
    version=1,
    attribute_key=AttributeKey(name="user_id"),
    owner="me@example.org",
    attributes=[
        attribute("buys", "int32", "counter", period=WEEK),
        attribute("spent", "double", "sum", property=PRICE, period=WEEK),
        attribute("dearest", "double", "max", property=PRICE),
        attribute("prices", "double_list", "unique_list", property=PRICE),
        attribute("run", "int32", "counter", ttl=timedelta(days=2)),
        attribute("idle", "int64", "time_since_last"),
    ],
)


class Proved(Running):
    """The services, with everything recomputed that is served."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.metrics_port = free.getsockname()[1]
        with pytest.MonkeyPatch.context() as environ:
            environ.setenv("INKLING_FEATURES_METRICS_PORT", str(self.metrics_port))
            environ.setenv("INKLING_FEATURES_PARITY_SAMPLE", "1.0")
            environ.setenv("INKLING_FEATURES_PARITY_SECONDS", "0.1")
            environ.setenv("INKLING_INGEST_ARCHIVE_FLUSH_SECONDS", "0.2")
            super().__init__(folder)

    def counts(self) -> dict[str, float]:
        """What became of the samples."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
        start = "inkling_features_parity_"
        found = dict.fromkeys(("checked", "mismatches", "dropped", "skipped"), 0.0)
        for line in lines:
            if line.startswith(start) and "_total{" in line:
                found[line.removeprefix(start).split("_total{")[0]] += float(line.rpartition(" ")[2])
        return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proved]:
    """The suite with a published group and a declared property, and some weeks of events."""
    suite = Proved(tmp_path_factory.mktemp("history"))
    with suite.client() as client:
        client.publish([GROUP, Service(name="shop", attribute_groups=[GROUP], owner="me@example.org")])
        client.properties.declare("plan", "string", attribute_key="user_id")
        chance = random.Random(11)
        client.events.ingest(
            [
                CustomerEvent(
                    event_id=f"e{i}",
                    name="buy",
                    occurred_at=NOW - timedelta(minutes=chance.randrange(30 * 24 * 60)),
                    keys={"user_id": f"u{i % 5}"},
                    properties={"price": chance.choice([1.5, 2.0, 10.0])} if i % 7 else {},
                )
                for i in range(200)
            ]
        )
        written = client.properties.set("u1", {"plan": "free"}, attribute_key="user_id")
        written = client.properties.set("u1", {"plan": "pro"}, attribute_key="user_id")
        client.profiles.get("u1", service="shop", min_position=written)
    yield suite
    suite.process.terminate()
    assert suite.process.stderr is not None
    suite.process.stderr.close()
    suite.process.wait(timeout=30)


@pytest.fixture
def client(running: Proved) -> Iterator[Client]:
    """A client of the suite."""
    with running.client() as opened:
        yield opened


def served(client: Client, user: str, position: int = 0) -> Profile:
    return client.profiles.get(user, groups=["shopping"], properties=["*"], min_position=position)


def test_the_present_read_as_the_past_is_the_same(client: Client) -> None:
    for user in ("u0", "u1", "nobody"):
        now = served(client, user)
        assert now.as_of_time is not None
        (then,) = client.history.at(user, [now.as_of_time], groups=["shopping"], properties=["*"])
        assert then.readings == now.readings
        assert then.properties == now.properties
        assert then.as_of_time == now.as_of_time


def test_late_events_change_the_past_but_not_what_was_known(client: Client) -> None:
    before = served(client, "u2")
    assert before.as_of_time is not None
    late = CustomerEvent(
        event_id="late",
        name="buy",
        occurred_at=NOW - timedelta(days=3),
        keys={"user_id": "u2"},
        properties={"price": 99.0},
    )
    written = client.events.ingest([late])
    served(client, "u2", written.position)
    (now,) = client.history.at("u2", [before.as_of_time], groups=["shopping"])
    (known,) = client.history.at("u2", [before.as_of_time], groups=["shopping"], position=before.position)
    assert known.readings == before.readings
    assert now["dearest"] == 99.0


def test_a_range_and_its_explanations_agree(client: Client) -> None:
    found = client.history.range("u3", NOW - timedelta(days=10), NOW, timedelta(days=5), service="shop")
    assert len(found) == 3
    for profile in found:
        explained = client.history.explain("u3", "shopping:spent", as_of=profile.as_of_time)
        assert explained.reading == profile.readings["spent"]
        terms = [each.term for each in explained.events if each.counted]
        assert sum(terms) == pytest.approx(profile["spent"])  # type: ignore[arg-type]
        assert len(explained.events) == explained.relevant
        assert explained.window_start == profile.as_of_time - WEEK if profile.as_of_time else None


def test_a_property_is_explained_by_its_writes(client: Client) -> None:
    explained = client.history.explain("u1", "properties.plan", attribute_key="user_id")
    assert (explained.reading.value, explained.counted, explained.relevant) == ("pro", 1, 2)
    assert [(each.term, each.counted, each.decisive) for each in explained.events] == [
        ("pro", True, True),
        ("free", False, False),
    ]
    assert explained.window_start is None


def test_mistakes_are_told(client: Client) -> None:
    with pytest.raises(NotFound):
        client.history.explain("u1", "shopping:nothing")
    with pytest.raises(InvalidArgument, match="1000"):
        client.history.range("u1", NOW - timedelta(days=10), NOW, timedelta(seconds=1), service="shop")


def test_an_export_is_downloaded_and_holds_what_is_served(client: Client, tmp_path: Path) -> None:
    made = client.exports.create(groups=["shopping"], properties=["*"], statuses=True)
    client.exports.download(made, tmp_path / "all.parquet")
    rows = pq.read_table(tmp_path / "all.parquet").to_pylist()
    listed = list(client.history.list(groups=["shopping"], properties=["*"], page_size=2))
    assert [row["user_id"] for row in rows] == [each.key_value for each in listed] == [f"u{i}" for i in range(5)]
    for row, profile in zip(rows, listed, strict=True):
        for name, reading in profile.readings.items():
            assert row[name] == reading.value or name == "idle"
            assert row[f"{name}.status"] == reading.status
        assert row["plan"] == profile.properties["plan"].value
    assert [each.name for each in client.exports.list()] == [made.name]
    client.exports.delete(made.name)
    assert list(client.exports.list()) == []


def test_a_segment_is_exported_alone(client: Client, tmp_path: Path) -> None:
    made = client.segments.create("pros", "plan = 'pro'", attribute_key="user_id")
    assert made.size == 1
    exported = client.exports.create(service="shop", segment="pros", format="csv")
    client.exports.download(exported, tmp_path / "pros.csv")
    lines = (tmp_path / "pros.csv").read_text(encoding="utf-8").splitlines()
    assert [row["user_id"] for row in csv.DictReader(lines)] == ["u1"]
    client.exports.delete(exported.name)
    with pytest.raises(NotFound):
        client.exports.create(service="shop", segment="nobody")


def test_the_commands_show_all_of_it(running: Proved, tmp_path: Path) -> None:
    listed = running.command("profile", "list", "--key", "user_id", "--limit", "3")
    assert listed.stdout.split() == ["u0", "u1", "u2"]
    listed = running.command("profile", "list", "--service", "shop", "--limit", "1")
    assert json.loads(listed.stdout)["user_id"] == "u0"

    told = running.command("profile", "history", "u1", "--as-of", f"{NOW:%Y-%m-%dT%H:%M:%SZ}", "--service", "shop")
    assert json.loads(told.stdout)["$as_of"].startswith(f"{NOW:%Y-%m-%d}")
    span = ("--from", f"{NOW - timedelta(days=2):%Y-%m-%d}", "--to", f"{NOW:%Y-%m-%d}", "--step", "24")
    told = running.command("profile", "history", "u1", *span, "--group", "shopping")
    assert len(told.stdout.splitlines()) == 3
    assert running.command("profile", "history", "u1").exit_code == 2

    told = running.command("profile", "explain", "u1", "--value", "shopping:buys", "--events", "2")
    explained = json.loads(told.stdout)
    assert explained["counted"] == explained["value"]
    assert len(explained["events"]) == min(2, explained["relevant"])

    target = tmp_path / "all.csv"
    made = running.command("profile", "export", "--out", str(target), "--service", "shop")
    assert json.loads(made.stdout)["rows"] == 5
    lines = target.read_text(encoding="utf-8").splitlines()
    assert [row["user_id"] for row in csv.DictReader(lines)] == [f"u{i}" for i in range(5)]
    assert running.command("profile", "export", "--out", str(tmp_path / "all.xls")).exit_code == 2


def test_everything_served_was_recomputed_and_nothing_differed(running: Proved, client: Client) -> None:
    values = 0
    for i in range(30):
        event = CustomerEvent(
            event_id=f"more{i}",
            name="buy",
            occurred_at=NOW - timedelta(days=i % 9),
            keys={"user_id": f"u{i % 3}"},
            properties={"price": float(i)},
        )
        position = client.events.ingest([event]).position
        values += len(served(client, f"u{i % 3}", position).readings)
        batch = client.profiles.batch_get(["u0", "u1", "x"], service="shop")
        values += sum(len(each.readings) for each in batch)
    ends = time.monotonic() + 60
    while running.counts()["checked"] < values and time.monotonic() < ends:
        time.sleep(0.1)
    counts = running.counts()
    assert counts["checked"] >= values
    assert (counts["mismatches"], counts["dropped"]) == (0, 0)
