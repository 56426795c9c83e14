"""A project publishes, serves, recovers and forgets."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from services.features.catalog import Catalog
from services.features.definitions import (
    AtomicProperty,
    Attribute,
    AttributeGroup,
    EventSelector,
    GroupState,
    ValueType,
)
from services.features.metrics import ProjectMetrics
from services.features.profiles import ProfileReader, Selection
from services.features.project import Project
from services.features.projects import Projects
from services.features.settings import FeaturesSettings
from services.features.store import DefinitionStore
from services.features.values import Status
from services.following.feed import FeedUnavailableError, LogSettings, Part
from services.kernel.aggregations import Function
from services.runtime.blobs import MemoryBlobStore
from services.runtime.clocks import ManualClock
from services.runtime.errors import DeadlineExceeded, Unavailable
from tests.features.memory_log import NOW_US, MemoryLog, purchase
from tests.features.reading import Answers, read

DAY_US = 86_400_000_000
BUY = (EventSelector(vendor="shop", name="buy"),)


def group(version: int = 1, period_days: int = 7, extra: bool = False) -> AttributeGroup:
    """A group of two or three attributes."""
    attributes = [
        Attribute("buys", ValueType.INT32, BUY, Function.COUNTER, period_us=period_days * DAY_US),
        Attribute("spent", ValueType.DOUBLE, BUY, Function.SUM, AtomicProperty("price"), period_us=7 * DAY_US),
    ]
    if extra:
        attributes.append(Attribute("last_price", ValueType.DOUBLE, BUY, Function.LAST, AtomicProperty("price")))
    return AttributeGroup("shopping", version, "user_id", tuple(attributes))


async def publish(project: Project, definition: AttributeGroup) -> None:
    """Creates, publishes, and waits until it is served."""
    await project.catalog.create_group(definition, (), None)
    stored = await project.catalog.set_state(definition.name, GroupState.BACKFILLING)
    filling = project.fill(stored)
    async with asyncio.timeout(30):
        await filling.ended.wait()
        await project.ready.wait()
    assert project.catalog.group(definition.name).state is GroupState.SERVING


def answers(project: Project, key: str, *groups: str, with_fraction: bool = False) -> Answers:
    """The values of one key by name."""
    reader = ProfileReader(project.catalog)
    selection = Selection(groups=groups or ("attributeGroups/shopping",))
    projection = project.serving()
    projection.advance()
    compiled = reader.compiled(b"", "", projection, lambda: selection)
    return read(compiled.profile(key, projection.position, b""), with_fraction=with_fraction)


async def test_what_was_in_the_log_before_publishing_counts(projects: Projects, log: MemoryLog) -> None:
    for i in range(500):
        log.rows.append(purchase(i, f"u{i % 7}", NOW_US - i * DAY_US // 100, 1.5))
    project = await projects.get("default")
    await publish(project, group())
    assert answers(project, "u3")["buys"][:2] == (71, Status.PRESENT)
    assert answers(project, "u3")["spent"][:2] == (71 * 1.5, Status.PRESENT)


async def test_an_unknown_key_reads_as_never_seen(projects: Projects, log: MemoryLog) -> None:
    project = await projects.get("default")
    await publish(project, group())
    assert answers(project, "nobody") == {
        "buys": (None, Status.NEVER_SEEN, None),
        "spent": (None, Status.NEVER_SEEN, None),
    }


async def test_publishing_while_events_come_misses_none_and_counts_none_twice(
    projects: Projects, log: MemoryLog
) -> None:
    project = await projects.get("default")
    await publish(project, group())
    await log.append(*(purchase(i, "u", NOW_US - 5, 1.0) for i in range(1_000)))
    going = True
    count = 1_000

    async def load() -> None:
        nonlocal count
        while going:
            await log.append(*(purchase(count + i, "u", NOW_US - 5, 1.0) for i in range(7)))
            count += 7
            await asyncio.sleep(0.001)

    loading = asyncio.create_task(load())
    await publish(project, group(2, period_days=30, extra=True))
    going = False
    await loading
    await project.serving().wait_for(count, 30)
    new = answers(project, "u")
    assert new["buys"][0] == new["spent"][0] == count
    assert answers(project, "u", "attributeGroups/shopping/versions/1")["buys"][0] == count


async def test_equal_attributes_of_two_versions_share_their_state(projects: Projects, log: MemoryLog) -> None:
    project = await projects.get("default")
    await publish(project, group())
    await publish(project, group(2, extra=True))
    engines = project.serving().fold.engines
    assert [len(engine.aggregations) for engine in engines] == [2, 1]


async def test_deleting_a_version_drops_the_state_that_nothing_else_needs(projects: Projects, log: MemoryLog) -> None:
    project = await projects.get("default")
    await publish(project, group())
    await publish(project, group(2, extra=True))
    await project.catalog.delete_group("attributeGroups/shopping/versions/2")
    await project.abandon("attributeGroups/shopping/versions/2")
    assert [len(engine.aggregations) for engine in project.serving().fold.engines] == [2]


async def test_windows_empty_themselves_as_the_clock_moves(
    projects: Projects, log: MemoryLog, clock: ManualClock
) -> None:
    project = await projects.get("default")
    await publish(project, group())
    await project.serving().wait_for(await log.append(purchase(1, "u", NOW_US - DAY_US, 2.0)), 10)
    assert answers(project, "u")["buys"][0] == 1
    clock.advance(6 * DAY_US + 1)
    assert answers(project, "u")["buys"][:2] == (None, Status.EMPTY_WINDOW)


async def test_a_position_that_does_not_come_is_waited_for_and_then_refused(projects: Projects, log: MemoryLog) -> None:
    project = await projects.get("default")
    await publish(project, group())
    with pytest.raises(DeadlineExceeded) as caught:
        await project.serving().wait_for(99, 0.05)
    assert caught.value.reason == "POSITION_NOT_REACHED"


@pytest.mark.parametrize("damage", ["nothing", "newest", "all"])
async def test_a_restart_recovers_from_the_newest_good_snapshot_and_the_log(
    store: DefinitionStore,
    log: MemoryLog,
    blobs: MemoryBlobStore,
    settings: FeaturesSettings,
    clock: ManualClock,
    damage: str,
) -> None:
    expected: Answers = {}
    for start in range(3):
        async with Projects(store, log, blobs, settings, clock).open() as projects:
            project = await projects.get("default")
            if start == 0:
                await publish(project, group())
            await projects.wait_ready()
            if expected:
                assert answers(project, "u1") == expected
            rows = [purchase(start * 100 + i, f"u{i % 3}", NOW_US - i, 0.1) for i in range(100)]
            await project.serving().wait_for(await log.append(*rows), 10)
            expected = answers(project, "u1")
        keys = [info.key for info in await blobs.list("snapshots/default/")]
        assert len(keys) == min(start + 1, 2)
        damaged = {"nothing": [], "newest": keys[-1:], "all": keys}[damage]
        for key in damaged:
            data = bytearray(await blobs.get(key))
            data[len(data) // 2] ^= 1
            await blobs.put(key, bytes(data))


async def test_a_version_published_but_not_filled_is_filled_after_a_restart(
    store: DefinitionStore, log: MemoryLog, blobs: MemoryBlobStore, settings: FeaturesSettings, clock: ManualClock
) -> None:
    log.rows.extend(purchase(i, "u", NOW_US - i, 1.0) for i in range(100))
    async with Projects(store, log, blobs, settings, clock).open() as projects:
        await publish(await projects.get("default"), group())
    catalog = await Catalog.load("default", store, clock)
    await catalog.create_group(group(2, extra=True), (), None)
    await catalog.set_state("attributeGroups/shopping/versions/2", GroupState.BACKFILLING)
    async with Projects(store, log, blobs, settings, clock).open() as projects:
        project = await projects.get("default")
        async with asyncio.timeout(30):
            await projects.wait_ready()
            filling = project.filling("attributeGroups/shopping/versions/2")
            if filling is not None:
                await filling.ended.wait()
        assert project.catalog.group("attributeGroups/shopping/versions/2").state is GroupState.SERVING
        assert answers(project, "u")["last_price"][:2] == (1.0, Status.PRESENT)
        assert answers(project, "u")["buys"][0] == 100


async def test_values_whose_window_reaches_behind_a_trimmed_log_say_how_much_is_covered(
    projects: Projects, log: MemoryLog, clock: ManualClock
) -> None:
    log.complete_since_us = NOW_US - 3 * DAY_US
    log.rows.append(purchase(1, "u", NOW_US - DAY_US, 1.0))
    project = await projects.get("default")
    await publish(project, group(period_days=6))
    value, status, _, fraction = answers(project, "u", with_fraction=True)["buys"]
    assert (value, status) == (1, Status.LEFT_TRUNCATED)
    assert fraction == pytest.approx(0.5)


async def test_with_the_clock_of_the_log_now_is_the_newest_event(projects: Projects, log: MemoryLog) -> None:
    log.settings = LogSettings(clock="log")
    log.rows.extend([purchase(1, "u", 0, 1.0), purchase(2, "u", 6 * DAY_US, 1.0)])
    project = await projects.get("default")
    await publish(project, group())
    assert answers(project, "u")["buys"][0] == 2
    await project.serving().wait_for(await log.append(purchase(3, "v", 8 * DAY_US, 1.0)), 10)
    assert answers(project, "u")["buys"][0] == 1


async def test_a_version_published_after_the_last_snapshot_is_filled_again_from_the_log(
    store: DefinitionStore, log: MemoryLog, blobs: MemoryBlobStore, settings: FeaturesSettings, clock: ManualClock
) -> None:
    log.rows.extend(purchase(i, "u", NOW_US - i, 1.0) for i in range(100))
    async with Projects(store, log, blobs, settings, clock).open() as projects:
        await publish(await projects.get("default"), group())
    (old,) = await blobs.list("snapshots/default/")
    before = await blobs.get(old.key)
    async with Projects(store, log, blobs, settings, clock).open() as projects:
        project = await projects.get("default")
        await projects.wait_ready()
        await publish(project, group(2, period_days=30, extra=True))
        await project.serving().wait_for(await log.append(purchase(100, "u", NOW_US - 1, 7.0)), 10)
        expected = answers(project, "u")
    for info in await blobs.list("snapshots/default/"):
        await blobs.delete(info.key)
    await blobs.put(old.key, before)
    async with Projects(store, log, blobs, settings, clock).open() as projects:
        async with asyncio.timeout(30):
            await projects.wait_ready()
        assert answers(await projects.get("default"), "u") == expected


async def test_a_project_whose_log_cannot_be_read_does_not_stop_the_others(
    store: DefinitionStore, log: MemoryLog, blobs: MemoryBlobStore, settings: FeaturesSettings, clock: ManualClock
) -> None:
    class Feed(MemoryLog):
        def follow(self, project: str, *rest: int, stop_at_head: bool = False) -> AsyncGenerator[Part, None]:
            return broken() if project == "bad" else log.follow(project, *rest, stop_at_head=stop_at_head)

    async def broken() -> AsyncGenerator[Part, None]:
        raise FeedUnavailableError("down")
        yield

    async with Projects(store, Feed(), blobs, settings, clock).open() as projects:
        bad = await projects.get("bad")
        await bad.catalog.create_group(group(), (), None)
        filling = bad.fill(await bad.catalog.set_state(group().name, GroupState.BACKFILLING))
        good = await projects.get("good")
        await publish(good, group())
        await good.serving().wait_for(await log.append(purchase(1, "u", NOW_US - 1)), 10)
        assert answers(good, "u")["buys"][0] == 1
        assert not filling.ended.is_set()
        with pytest.raises(Unavailable):
            bad.serving()


async def test_a_log_that_lost_the_position_is_read_from_its_start(
    store: DefinitionStore, log: MemoryLog, blobs: MemoryBlobStore, settings: FeaturesSettings, clock: ManualClock
) -> None:
    log.rows.extend(purchase(i, "u", NOW_US - i, 1.0) for i in range(100))
    async with Projects(store, log, blobs, settings, clock).open() as projects:
        await publish(await projects.get("default"), group())
    log.rows[:] = [purchase(i, "v", NOW_US - i, 1.0) for i in range(3)]
    async with Projects(store, log, blobs, settings, clock).open() as projects:
        async with asyncio.timeout(30):
            await projects.wait_ready()
        project = await projects.get("default")
        assert answers(project, "u")["buys"][:2] == (None, Status.NEVER_SEEN)
        assert answers(project, "v")["buys"][0] == 3


async def test_a_version_deleted_while_it_is_filled_leaves_nothing(projects: Projects, log: MemoryLog) -> None:
    project = await projects.get("default")
    await publish(project, group())
    log.part_rows = 1
    await log.append(*(purchase(i, "u", NOW_US - i, 1.0) for i in range(500)))
    await project.catalog.create_group(group(2, extra=True), (), None)
    name = group(2).name
    filling = project.fill(await project.catalog.set_state(name, GroupState.BACKFILLING))
    await asyncio.sleep(0.05)
    await project.catalog.delete_group(name)
    await project.abandon(name)
    assert filling.ended.is_set()
    await asyncio.sleep(0.2)
    assert [len(engine.aggregations) for engine in project.serving().fold.engines] == [2]


async def test_a_value_that_does_not_fit_its_type_is_out_of_range(projects: Projects, log: MemoryLog) -> None:
    price = AtomicProperty("price")
    attribute = Attribute("total", ValueType.INT32, BUY, Function.SUM, price, default_value=0)
    project = await projects.get("default")
    await publish(project, AttributeGroup("shopping", 1, "user_id", (attribute,)))
    await log.append(purchase(1, "u", NOW_US - 2, 2.0**30))
    await project.serving().wait_for(1, 10)
    assert answers(project, "u")["total"][:2] == (2**30, Status.PRESENT)
    await project.serving().wait_for(await log.append(purchase(2, "u", NOW_US - 1, 2.0**30)), 10)
    assert answers(project, "u")["total"][:2] == (None, Status.OUT_OF_RANGE)


async def test_metrics_tell_of_lag_duplicates_conflicts_and_wrong_types(
    projects: Projects, log: MemoryLog, clock: ManualClock
) -> None:
    project = await projects.get("default")
    await publish(project, group())
    good = purchase(1, "u", NOW_US - 5, 1.0)
    wrong = replace(purchase(2, "u", NOW_US - 5), properties={"price": "free"})
    await project.serving().wait_for(await log.append(good, good, replace(good, properties={"price": 2.0}), wrong), 10)
    registry = CollectorRegistry()
    registry.register(ProjectMetrics(projects, clock))

    def value(name: str) -> float | None:
        return registry.get_sample_value(f"inkling_features_{name}", {"project": "default"})

    assert value("events_applied_total") == 2
    assert value("duplicates_total") == 2
    assert value("conflicting_duplicates_total") == 1
    assert value("skipped_values_total") == 1
    assert value("lag_events") == 0
    assert value("position") == 4
    assert value("keys") == 1
