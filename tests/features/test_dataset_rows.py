"""The rows of a training set: moments, labels, what is left out, samples; over events in memory."""

import asyncio
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.features.compile import compile_attribute
from services.features.datasets.build import Stage, ThreadWorkers, build
from services.features.datasets.goals import InsightQuestion
from services.features.datasets.job import FeatureColumn, Job
from services.features.datasets.pinning import newest_us
from services.features.datasets.spec import (
    Converted,
    DatasetSpec,
    EventGoal,
    Goal,
    InsightGoal,
    Instants,
    Latest,
    ListedKeys,
    Moments,
    Percentiles,
    ReturnGoal,
    Sampling,
    SinceCreation,
    SumGoal,
)
from services.features.definitions import (
    AtomicProperty,
    Attribute,
    Criteria,
    Criterion,
    EventSelector,
    Operator,
    ValueType,
)
from services.kernel.aggregations import Aggregation, Function
from services.kernel.building import EventRow, build_batch
from services.kernel.columns import DELETE, EventBatch, shard_of
from services.runtime.errors import FailedPrecondition
from tests.features.archives import archive

DAY_US, MINUTE_US = 86_400_000_000, 60_000_000
T0 = 1_700_000_000_000_000
NOW = T0 + 10 * DAY_US
PAYS = EventGoal((EventSelector("shop", "pay"),))
BUYS = Attribute("buys", ValueType.INT64, (EventSelector("shop", "buy"),), Function.COUNTER, default_value=0)


@dataclass(frozen=True)
class Listed:
    """Events in memory as a source."""

    rows: tuple[EventRow, ...]

    def batches(self, aggregations: list[Aggregation], shards: tuple[int, int] | None) -> Iterator[EventBatch]:
        mine = [
            row
            for row in self.rows
            if shards is None or shards[0] <= shard_of(row.keys.get("user_id", "")) <= shards[1]
        ]
        for start in range(0, len(mine), 3):
            yield EventBatch(build_batch(mine[start : start + 3]))


def event(user: str, at_us: int, name: str = "buy", price: float | None = None, **more: Any) -> EventRow:
    """An event of the shop; its id tells all of it."""
    event_id = more.pop("event_id", f"{user}-{at_us}-{name}")
    vendor = more.pop("vendor", "shop")
    return EventRow(event_id, name, at_us, at_us, {"user_id": user}, vendor, "1-0-0", {"price": price}, **more)


def job(rows: list[EventRow], moments: Moments, goal: Goal | None = None, **more: Any) -> Job:
    """A pinned job over events; `more` goes to the specification."""
    spec = DatasetSpec(moments, goal=goal, attribute_key="user_id", **{"partitions": 1, "as_of_us": NOW, **more})
    return Job(
        "shop",
        spec,
        spec.as_of_us or NOW,
        Listed(tuple(rows)),
        (FeatureColumn("g/1:buys", "buys", BUYS, compile_attribute(BUYS)),),
    )


async def computed(wanted: Job) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, bytes]]:
    """The rows, the manifest and the files."""
    files: dict[str, bytes] = {}

    async def put(name: str, content: bytes) -> None:
        files[name] = content

    async def report(stage: object) -> None:
        await asyncio.sleep(0)

    records = len(wanted.source.rows) if isinstance(wanted.source, Listed) else 0
    manifest = await build(wanted, ThreadWorkers(), put, report, described={}, records=records)
    tables = [pq.read_table(io.BytesIO(files[file["name"]])) for file in manifest["files"]]
    return pa.concat_tables(tables).to_pylist(), manifest, files


def after(row: dict[str, Any]) -> int:
    """The moment of a row, in microseconds after T0."""
    return round(row["moment"].timestamp() * 1e6) - T0


SHOPPERS = [
    event("ada", T0),
    event("ada", T0 + 5 * MINUTE_US, "pay", 3.0),
    event("bob", T0 + MINUTE_US),
    event("bob", T0 + 2 * MINUTE_US),
    event("bob", T0 + 2 * DAY_US, "pay", 1.0),
    event("bob", T0 + 3 * DAY_US, "pay", 1.5),
    event("eve", NOW - DAY_US),
]


async def test_at_zero_seconds_every_counter_is_zero_and_later_the_end_of_the_span_counts() -> None:
    rows, manifest, _ = await computed(job(SHOPPERS, SinceCreation((0, MINUTE_US, 3 * DAY_US))))
    found = {(row["user_id"], row["seconds_since_creation"]): row["buys"] for row in rows}
    assert found == {
        ("ada", 0.0): 0,
        ("ada", 60.0): 1,
        ("ada", 259_200.0): 1,
        ("bob", 0.0): 0,
        # The event exactly a minute after the creation is inside.
        ("bob", 60.0): 2,
        ("bob", 259_200.0): 2,
        ("eve", 0.0): 0,
        ("eve", 60.0): 1,
    }
    assert manifest["left_out"] == {"younger_than_the_moment": 1}


async def test_who_converted_at_or_before_the_moment_is_left_out() -> None:
    rows, manifest, _ = await computed(job(SHOPPERS, SinceCreation((0, 5 * MINUTE_US)), Goal(PAYS)))
    found = {(row["user_id"], row["seconds_since_creation"]): row["goal"] for row in rows}
    # Ada paid exactly five minutes after her creation.
    assert found == {
        ("ada", 0.0): True,
        ("bob", 0.0): True,
        ("bob", 300.0): True,
        ("eve", 0.0): False,
        ("eve", 300.0): False,
    }
    assert manifest["left_out"] == {"converted_before": 1}
    assert manifest["goal"] == {"true": 3, "false": 2, "unknown": 0}


async def test_a_label_is_unknown_when_its_window_reaches_beyond_what_is_known() -> None:
    goal = Goal(PAYS, label_window_us=2 * DAY_US)
    rows, manifest, _ = await computed(job(SHOPPERS, SinceCreation((0,)), goal))
    # Bob paid two days after his first event less a minute: inside; Eve is a day old.
    assert {row["user_id"]: row["goal"] for row in rows} == {"ada": True, "bob": True, "eve": None}
    assert manifest["goal"]["unknown"] == 1


async def test_a_label_window_holds_its_end_and_not_its_moment() -> None:
    rows = [event("ada", T0), event("ada", T0 + 100, "pay")]
    keep = Goal(PAYS, Converted.KEEP, 50)
    found, _, _ = await computed(job(rows, Instants((T0 + 49, T0 + 50, T0 + 99, T0 + 100)), keep))
    assert [row["goal"] for row in found] == [False, True, True, False]
    assert [row["buys"] for row in found] == [1, 1, 1, 1]


async def test_before_an_instant_means_before_it() -> None:
    found, manifest, _ = await computed(job(SHOPPERS, Instants((T0, T0 + 1, T0 + MINUTE_US + 1))))
    assert [(row["user_id"], after(row), row["buys"]) for row in found] == [
        ("ada", 0, 0),
        ("ada", 1, 1),
        ("ada", MINUTE_US + 1, 1),
        ("bob", MINUTE_US + 1, 1),
    ]
    assert manifest["left_out"] == {"younger_than_the_moment": 5}


async def test_latest_is_what_serving_says_now() -> None:
    rows, _, _ = await computed(job([*SHOPPERS, event("ada", NOW), event("ada", NOW + 1)], Latest()))
    assert [(row["user_id"], row["buys"]) for row in rows] == [("ada", 2), ("bob", 2), ("eve", 1)]


async def test_percentiles_of_the_time_to_convert_are_times_that_somebody_took() -> None:
    _, manifest, _ = await computed(job(SHOPPERS, Percentiles((1, 50, 51, 100)), Goal(PAYS)))
    assert manifest["spans_since_creation_us"] == [5 * MINUTE_US, 2 * DAY_US - MINUTE_US]
    nobody = job(SHOPPERS, Percentiles((50,)), Goal(EventGoal((EventSelector("shop", "fly"),))))
    with pytest.raises(FailedPrecondition, match="nobody reached"):
        await computed(nobody)


@pytest.mark.parametrize(
    ("achievement", "reached"),
    [
        (EventGoal((EventSelector("shop", "pay"),), times=2), {"bob"}),
        (SumGoal(AtomicProperty("price"), 2.5), {"ada", "bob"}),
        (SumGoal(AtomicProperty("price"), 2.6), {"ada"}),
        (ReturnGoal(DAY_US), {"bob"}),
        (ReturnGoal(4 * MINUTE_US), {"ada", "bob"}),
        (
            EventGoal(criteria=Criteria(criteria=(Criterion(AtomicProperty("price"), Operator.LESS, (2.0,)),))),
            {"bob"},
        ),
    ],
)
async def test_goals_are_reached_when_they_say(achievement: Any, reached: set[str]) -> None:
    rows, _, _ = await computed(job(SHOPPERS, SinceCreation((0,)), Goal(achievement)))
    assert {row["user_id"] for row in rows if row["goal"]} == reached


async def test_a_goal_within_the_window_counts_what_happens_there_alone() -> None:
    twice = Goal(EventGoal((EventSelector("shop", "pay"),), times=2), Converted.KEEP, 2 * DAY_US)
    rows, _, _ = await computed(job(SHOPPERS, Instants((T0 + DAY_US, T0 + 2 * DAY_US)), twice))
    assert [(row["user_id"], row["goal"]) for row in rows] == [
        ("ada", False),
        ("ada", False),
        ("bob", True),
        # The first payment is at the moment itself.
        ("bob", False),
    ]


async def test_what_was_deleted_neither_creates_nor_converts() -> None:
    gone = event("ada", T0 + 9, "pay", event_id="ada-pay", operation=DELETE, revision=1)
    rows = [event("ada", T0 + 9, "pay", event_id="ada-pay"), event("ada", T0 + 20), gone]
    found, _, _ = await computed(job(rows, SinceCreation((0,)), Goal(PAYS)))
    assert [(after(row), row["goal"]) for row in found] == [(20, False)]


async def test_the_suite_s_own_records_create_nobody() -> None:
    own = event("ada", T0, "set_properties", vendor="inkling")
    found, manifest, _ = await computed(job([own, event("bob", T0)], SinceCreation((0,))))
    assert [row["user_id"] for row in found] == ["bob"]
    assert manifest["left_out"] == {}


async def test_listed_keys_without_an_event_are_counted() -> None:
    wanted = job(SHOPPERS, SinceCreation((0,)), keys=ListedKeys(("eve", "nobody", "ada")))
    found, manifest, _ = await computed(wanted)
    assert [row["user_id"] for row in found] == ["ada", "eve"]
    assert manifest["left_out"] == {"without_creation": 1}


def crowd(count: int) -> list[EventRow]:
    """Many users; every third pays."""
    return [event(f"u{i:04}", T0 + i + j, "pay" if j and i % 3 == 0 else "buy") for i in range(count) for j in range(2)]


async def test_a_sample_of_keys_depends_on_nothing_but_the_keys() -> None:
    sampling = Sampling(seed=7, fraction=0.3)
    few, manifest, _ = await computed(job(crowd(200), SinceCreation((0, 1)), sampling=sampling))
    many, _, _ = await computed(job(crowd(400), SinceCreation((0, 1)), sampling=sampling))
    keys = {row["user_id"] for row in few}
    assert 30 < len(keys) < 90
    assert keys == {row["user_id"] for row in many if row["user_id"] < "u0200"}
    assert manifest["left_out"]["not_sampled_keys"] == 200 - len(keys)
    other, _, _ = await computed(job(crowd(200), SinceCreation((0, 1)), sampling=Sampling(seed=8, fraction=0.3)))
    assert {row["user_id"] for row in other} != keys


@pytest.mark.parametrize("partitions", [1, 4])
async def test_a_bound_on_the_rows_is_kept_whatever_the_parts(partitions: int) -> None:
    bounded = job(crowd(100), SinceCreation((0, 1)), sampling=Sampling(max_rows=50), partitions=partitions)
    found, manifest, _ = await computed(bounded)
    alone, _, _ = await computed(job(crowd(100), SinceCreation((0, 1)), sampling=Sampling(max_rows=50)))
    assert len(found) == manifest["row_count"] == 50
    assert manifest["left_out"] == {"over_the_bound": 150}
    assert sorted(map(str, found)) == sorted(map(str, alone))


async def test_rows_can_be_taken_by_their_goal() -> None:
    sampling = Sampling(fraction_false=0.25)
    found, manifest, _ = await computed(job(crowd(300), SinceCreation((0,)), Goal(PAYS), sampling=sampling))
    assert sum(row["goal"] for row in found) == 100
    assert 25 < sum(not row["goal"] for row in found) < 80
    assert manifest["left_out"]["down_sampled"] == 300 - len(found)


@pytest.mark.parametrize("partitions", [1, 3])
async def test_the_same_job_gives_the_same_bytes(partitions: int) -> None:
    wanted = job(crowd(100), SinceCreation((0, 5)), Goal(PAYS), partitions=partitions)
    _, _, first = await computed(wanted)
    _, _, second = await computed(wanted)
    assert first == second
    assert len(first) == partitions + 1


async def test_parts_hold_the_rows_in_the_order_of_keys_and_moments() -> None:
    _, manifest, files = await computed(job(crowd(100), SinceCreation((5, 0)), partitions=3))
    for file in manifest["files"]:
        rows = pq.read_table(io.BytesIO(files[file["name"]])).to_pylist()
        order = [(row["user_id"], row["moment"]) for row in rows]
        assert order == sorted(order)
        assert len(order) == file["rows"]
    assert manifest["row_count"] == 200


@dataclass(frozen=True)
class RichAfter:
    """An insight that applies to one user from an instant on."""

    user: str
    since_us: int

    def check(self, question: InsightQuestion) -> None:
        """It could."""

    def applies(self, question: InsightQuestion, keys: pa.Array, instants_us: Any) -> Any:
        assert (question.project, question.insight, question.attribute_key) == ("shop", "insights/rich", "user_id")
        return (instants_us > self.since_us) & (keys.to_numpy(zero_copy_only=False) == self.user)


async def test_an_insight_labels_rows_once_somebody_can_be_asked() -> None:
    goal = Goal(InsightGoal("insights/rich"), label_window_us=DAY_US)
    wanted = replace(
        job(SHOPPERS, Instants((T0 + DAY_US, T0 + 3 * DAY_US)), goal), insights=RichAfter("bob", T0 + 2 * DAY_US - 1)
    )
    found, manifest, _ = await computed(wanted)
    assert [(row["user_id"], row["goal"]) for row in found] == [("ada", False), ("ada", False), ("bob", True)]
    assert manifest["left_out"]["converted_before"] == 1


@dataclass(frozen=True)
class Endless:
    """A source that never ends."""

    def batches(self, aggregations: list[Aggregation], shards: tuple[int, int] | None) -> Iterator[EventBatch]:
        batch = EventBatch(build_batch(SHOPPERS[:1]))
        while True:
            yield batch


async def test_a_computation_that_is_cancelled_ends() -> None:
    told: list[tuple[str, int, int]] = []

    async def report(stage: Stage) -> None:
        told.append((stage.name, stage.done, stage.total))

    async def put(name: str, content: bytes) -> None:
        raise AssertionError(f"{name} is there")

    endless = replace(job(SHOPPERS, SinceCreation((0,))), source=Endless())
    building = build(endless, ThreadWorkers(), put, report, described={}, records=10)
    task = asyncio.ensure_future(building)
    await asyncio.sleep(0.7)
    task.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await task
    # More was read than the archive was known to hold: it is never more than all.
    assert told
    assert all(name == "features" and done <= total == 10 for name, done, total in told)


def test_the_clock_of_the_log_stands_at_the_newest_event_up_to_a_position(tmp_path: Path) -> None:
    listing = archive(tmp_path, [[event("ada", T0 + at) for at in (5, 9, 7)], [event("bob", T0 + 8)]])
    assert [newest_us(tmp_path, listing, position) - T0 for position in (1, 2, 3, 4)] == [5, 9, 9, 9]
    assert newest_us(tmp_path, archive(tmp_path, []), 0) == 0
