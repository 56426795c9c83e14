"""Members that are kept current by touched keys and timers are those that a look at everybody finds."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.features.definitions import AtomicProperty, Attribute, AttributeGroup, EventSelector, ValueType
from services.features.projects import Projects
from services.features.segments.binding import bind, instant_of
from services.features.segments.definitions import SegmentDefinition
from services.features.segments.fields import ProfileFields
from services.features.segments.language import ConditionParser
from services.features.segments.live import LiveSegment
from services.features.segments.membership import decode
from services.features.segments.service import ProjectSegments, Segments
from services.features.segments.store import MIGRATIONS as SEGMENT_MIGRATIONS
from services.features.segments.store import SegmentStore
from services.features.settings import FeaturesSettings
from services.features.store import MIGRATIONS, DefinitionStore
from services.kernel.aggregations import Function
from services.runtime import journal, operations
from services.runtime.blobs import MemoryBlobStore
from services.runtime.clocks import ManualClock
from services.runtime.database import Database
from services.runtime.journal import ChangeJournal, JournalStore
from tests.features.memory_log import NOW_US, MemoryLog, purchase
from tests.features.test_project import DAY_US, publish

BUY = (EventSelector(vendor="shop", name="buy"),)
PRICE = AtomicProperty("price")
GROUP = AttributeGroup(
    "shopping",
    1,
    "user_id",
    (
        Attribute("buys", ValueType.INT32, BUY, Function.COUNTER, period_us=7 * DAY_US),
        Attribute("spent", ValueType.DOUBLE, BUY, Function.SUM, PRICE, period_us=3 * DAY_US),
        Attribute("prices", ValueType.DOUBLE_LIST, BUY, Function.UNIQUE_LIST, PRICE, period_us=5 * DAY_US),
        Attribute("idle", ValueType.INT32, BUY, Function.TIME_SINCE_LAST),
        Attribute("known_for", ValueType.FLOAT, BUY, Function.TIME_SINCE_FIRST, default_value=-1.0),
    ),
)
CONDITIONS = (
    "buys between 2 and 4",
    "spent is null or spent > 3",
    "prices contains 2 and not buys > 3",
    "idle < 86400 and idle >= 3600",
    "not idle > 172800.5 or known_for = -1",
    "known_for > 100000.3 and buys is not null and idle between 10 and 200000",
)


class Setting:
    """A project with segments, a log and a clock."""

    def __init__(
        self, projects: Projects, segments: Segments, log: MemoryLog, clock: ManualClock, blobs: MemoryBlobStore
    ) -> None:
        self.projects, self.segments, self.log, self.clock, self.blobs = projects, segments, log, clock, blobs


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    log, clock, blobs = MemoryLog(), ManualClock(NOW_US), MemoryBlobStore()
    settings = FeaturesSettings(data_dir=tmp_path, tick_seconds=0.02)
    packages = (operations.MIGRATIONS, MIGRATIONS, SEGMENT_MIGRATIONS, journal.MIGRATIONS)
    async with (
        Database.open(settings.database_url, packages) as database,
        Projects(DefinitionStore(database), log, blobs, settings, clock).open() as projects,
        Segments(
            projects, SegmentStore(database), ChangeJournal(JournalStore(database), clock), blobs, settings, clock
        ).open() as segments,
    ):
        yield Setting(projects, segments, log, clock, blobs)


def expected(kept: ProjectSegments, live: LiveSegment) -> set[str]:
    """Everybody looked at one by one, now."""
    projection = kept.project.serving()
    bound = bind(
        ConditionParser(), ProfileFields(kept.project.catalog), live.definition.condition, live.universe, projection
    )
    assert bound is not None
    everybody = live.universe.everybody()
    return {
        live.universe.text(number)
        for number in everybody.tolist()
        if bound.holds(everybody[number : number + 1], instant_of(projection)).item()
    }


@pytest.mark.parametrize("seed", [1, 2])
async def test_members_are_always_those_that_meet_the_condition(setting: Setting, seed: int) -> None:
    choose = random.Random(seed)
    project = await setting.projects.get("shop")
    await publish(project, GROUP)
    kept = await setting.segments.of("shop")
    for i, condition in enumerate(CONDITIONS):
        await kept.create(SegmentDefinition(f"s{i}", "user_id", condition), None, validate_only=False)
    for number in range(14):
        if choose.random() < 0.7:
            now_us = setting.clock.now_us()
            for i in range(choose.randint(1, 30)):
                late = choose.choice([0, 1, 3_600_000_000, DAY_US, 6 * DAY_US])
                user = f"u{choose.randint(0, 40)}"
                price = choose.choice([None, 1.0, 2.0, 2.5])
                await setting.log.append(purchase(1_000 * number + i, user, now_us - late, price))
        if choose.random() < 0.7:
            setting.clock.advance(choose.choice([1, 999_999, 10_000_000, 3_600_000_000, DAY_US // 2, 3 * DAY_US]))
        async with asyncio.timeout(20):
            await kept.keeper.wait_for(len(setting.log.rows), 20)
            # A whole round that began after the clock moved.
            for _ in range(2):
                position, kept.keeper.position = kept.keeper.position, -1
                await kept.keeper.wait_for(position, 20)
        for live in kept.all():
            members = live.universe.texts(live.members.numbers()).to_pylist()
            assert set(members) == expected(kept, live), live.definition.condition
            assert live.members.count == len(members)


async def test_nothing_is_left_of_a_key_that_is_forgotten(setting: Setting) -> None:
    project = await setting.projects.get("shop")
    await publish(project, GROUP)
    kept = await setting.segments.of("shop")
    live = await kept.create(SegmentDefinition("buyers", "user_id", "buys >= 1"), None, validate_only=False)
    await setting.log.append(*(purchase(i, f"user-{i}", NOW_US - 1, 1.0) for i in range(3)))
    await kept.keeper.wait_for(3, 20)
    assert live.members.count == 3
    for engine in project.serving().fold.engines:
        engine.forget_key("user-1")
    assert await setting.segments.forget("shop", "user_id", "user-1") == 2
    assert await setting.segments.forget("shop", "user_id", "user-1") == 0
    assert sorted((await setting.segments.members("shop", "segments/buyers"))[1]) == ["user-0", "user-2"]
    page = await setting.segments.journal.read("shop", [live.definition.stream], 0, 10)
    assert sorted(entry.change.key_value for entry in page.entries) == ["user-0", "user-2"]
    for blob in await setting.blobs.list("segments/"):
        assert decode(await setting.blobs.get(blob.key)).keys.to_pylist() == ["user-0", "user-2"]
    await setting.log.append(purchase(9, "user-1", NOW_US - 1, 1.0))
    await kept.keeper.wait_for(4, 20)
    assert kept.memberships("user_id", "user-1") == ["segments/buyers"]
