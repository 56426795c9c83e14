"""Properties equal a slow and obvious reference: in any order, sent twice, unset, late, and restarted in between."""

import asyncio
import math
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from inkling.features.v1 import profile_pb2
from inkling.features.v1.property_service_pb2 import PropertyWrite
from services.features.profiles import ProfileReader, Selection, as_of_field
from services.features.projects import Projects
from services.features.properties import Merge, PropertyDefinition, PropertyType
from services.features.property_writer import PropertyWriter
from services.features.proto import timestamp
from services.features.rollups import RollupDefinition, RollupFunction
from services.features.settings import FeaturesSettings
from services.features.store import MIGRATIONS, DefinitionStore
from services.features.values import Status
from services.runtime import operations
from services.runtime.blobs import MemoryBlobStore
from services.runtime.clocks import ManualClock
from services.runtime.database import Database
from tests.features.memory_log import NOW_US, MemoryLog
from tests.features.memory_sink import MemorySink
from tests.features.test_property_service import value

USER, ACCOUNT = "user_id", "account_id"
DEFINITIONS = {
    each.property_id: each
    for each in (
        PropertyDefinition(USER, "plan", PropertyType.STRING),
        PropertyDefinition(USER, "active", PropertyType.BOOLEAN),
        PropertyDefinition(USER, "tags", PropertyType.ARRAY),
        PropertyDefinition(USER, "account", PropertyType.STRING, refers_to=ACCOUNT),
        PropertyDefinition(USER, "paid", PropertyType.NUMERIC, merge=Merge.SUM),
        PropertyDefinition(USER, "best", PropertyType.NUMERIC, merge=Merge.MAX),
        PropertyDefinition(USER, "origin", PropertyType.STRING, merge=Merge.FIRST),
    )
}
ROLLUPS = [
    RollupDefinition(ACCOUNT, name, f"attributeKeys/{USER}/properties/account", attribute, function)
    for name, attribute, function in (
        ("paid", "properties.paid", RollupFunction.SUM),
        ("users", "", RollupFunction.COUNT),
        ("plans", "properties.plan", RollupFunction.COUNT_DISTINCT),
    )
]
UNSETTABLE = ("plan", "active", "tags", "account")
texts, numbers = st.sampled_from("abc"), st.sampled_from([0.1, 0.2, 0.3, 1e17, -1e17, 5.0])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "plan": texts,
    "active": st.booleans(),
    "tags": st.lists(st.integers(0, 3), max_size=2),
    "account": st.sampled_from(["x", "y"]),
    "paid": numbers,
    "best": numbers,
    "origin": texts,
}


@dataclass(frozen=True)
class Write:
    """One write with everything given."""

    write_id: str
    user: str
    at: int
    values: dict[str, Any] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    source: str = "api"

    def message(self) -> PropertyWrite:
        return PropertyWrite(
            key_value=self.user,
            values={name: value(each) for name, each in self.values.items()},
            unset=self.unset,
            event_time=timestamp(NOW_US - self.at),
            write_id=self.write_id,
        )


@st.composite
def writes(draw: st.DrawFn) -> Write:
    names = draw(st.sets(st.sampled_from(sorted(VALUES)), min_size=1, max_size=4))
    unset = {name for name in names if name in UNSETTABLE and draw(st.integers(0, 3)) == 0}
    return Write(
        # Few ids: many writes are sent twice, some with another content.
        write_id=f"w{draw(st.integers(0, 30))}",
        user=draw(st.sampled_from(["u", "v", "w"])),
        # Few instants: many ties. Some are years late.
        at=draw(st.integers(0, 6) | st.integers(0, 10**14)),
        values={name: draw(VALUES[name]) for name in sorted(names - unset)},
        unset=tuple(sorted(unset)),
        source=draw(st.sampled_from(["api", "rule:1", "model:2"])),
    )


steps = st.lists(
    st.lists(writes(), min_size=1, max_size=12)
    | st.sampled_from(["restart", "lose snapshots", "declare rest", "declare plan again"]),
    max_size=8,
)


class Reference:
    """Keeps every write; answers by looking at all of them."""

    def __init__(self) -> None:
        self.writes: dict[str, Write] = {}

    def add(self, chunk: Sequence[Write]) -> None:
        for write in chunk:
            self.writes.setdefault(write.write_id, write)

    def history(self, user: str, name: str) -> list[Write]:
        """The writes of a property, in the order of their time and id."""
        found = [w for w in self.writes.values() if w.user == user and (name in w.values or name in w.unset)]
        return sorted(found, key=lambda write: (-write.at, f"set:{write.write_id}"))

    def answer(self, user: str, name: str) -> tuple[Any, Status, int | None, str]:
        """Value, status, time of the write that counts, source."""
        history = self.history(user, name)
        if not history:
            return None, Status.NEVER_SEEN, None, ""
        last_us = NOW_US - history[-1].at
        merge = DEFINITIONS[name].merge
        if merge is Merge.FIRST:
            return history[0].values[name], Status.PRESENT, NOW_US - history[0].at, history[0].source
        if merge is Merge.MAX:
            return max(w.values[name] for w in history), Status.PRESENT, last_us, history[-1].source
        if merge is Merge.SUM:
            return math.fsum(w.values[name] for w in history), Status.PRESENT, last_us, history[-1].source
        found = history[-1].values.get(name)
        return found, Status.NULL if found is None else Status.PRESENT, last_us, history[-1].source

    def rollups(self, account: str) -> dict[str, Any]:
        users = [user for user in "uvw" if self.answer(user, "account")[0] == account]
        if not users:
            return {"paid": None, "users": None, "plans": None}
        paid = [each for user in users if (each := self.answer(user, "paid")[0]) is not None]
        plans = {self.answer(user, "plan")[0] for user in users} - {None}
        return {"paid": math.fsum(paid) if paid else None, "users": len(users), "plans": len(plans)}


class World:
    """A process of features over a log in memory, which can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.settings = FeaturesSettings(data_dir=folder, tick_seconds=10)
        self.log, self.clock, self.blobs = MemoryLog(part_rows=7), ManualClock(NOW_US + 1), MemoryBlobStore()
        self.stack = AsyncExitStack()

    async def start(self) -> None:
        self.stack = AsyncExitStack()
        database = await self.stack.enter_async_context(
            Database.open(self.settings.database_url, (operations.MIGRATIONS, MIGRATIONS))
        )
        opened = Projects(DefinitionStore(database), self.log, self.blobs, self.settings, self.clock)
        self.projects = await self.stack.enter_async_context(opened.open())
        self.project = await self.projects.get("default")
        self.writer = PropertyWriter(self.projects, MemorySink(self.log, self.clock), self.clock)

    async def declare(self, *names: str) -> None:
        await self.project.catalog.properties.create([DEFINITIONS[name] for name in names], [])
        await self.project.declared()

    async def restart(self, *, lose_snapshots: bool) -> None:
        await self.stack.aclose()
        if lose_snapshots:
            for info in await self.blobs.list(""):
                await self.blobs.delete(info.key)
        await self.start()

    async def read(self, attribute_key: str, key: str) -> profile_pb2.Profile:
        async with asyncio.timeout(20):
            await self.project.ready.wait()
            projection = self.project.serving()
            await projection.wait_for(len(self.log.rows), 10)
            while projection.missing_of(*self.needed()):  # noqa: ASYNC110  (a filling tells nobody)
                await asyncio.sleep(0.001)
        projection.advance()
        reader = ProfileReader(self.project.catalog)
        chosen = Selection(properties=("*",), rollups=("*",))
        compiled = reader.compiled(b"", attribute_key, projection, lambda: chosen)
        return profile_pb2.Profile.FromString(compiled.profile(key, projection.position, as_of_field(0)))

    def needed(self) -> tuple[str, list[Any]]:
        return USER, [each for key, each in self.project.catalog.needed if key == USER]


@given(plan=steps)
@settings(max_examples=25, deadline=None)
def test_properties_and_rollups_equal_a_reference_that_looks_at_every_write(plan: list[Any]) -> None:
    asyncio.run(check(plan))


async def check(plan: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world, reference = World(Path(folder)), Reference()
        await world.start()
        await world.declare("plan", "account", "paid")
        for rollup in ROLLUPS:
            await world.project.catalog.properties.create_rollup(rollup, [])
        declared = {"plan", "account", "paid"}
        for step in plan:
            if step == "declare rest":
                await world.declare(*sorted(DEFINITIONS.keys() - declared)) if DEFINITIONS.keys() - declared else None
                declared = set(DEFINITIONS)
            elif step == "declare plan again":
                for rollup in ROLLUPS:
                    await world.project.catalog.properties.delete_rollup(rollup.name)
                await world.project.catalog.properties.delete(DEFINITIONS["plan"].name)
                await world.project.undeclared()
                await world.declare("plan")
                for rollup in ROLLUPS:
                    await world.project.catalog.properties.create_rollup(rollup, [])
            elif isinstance(step, str):
                await world.restart(lose_snapshots=step == "lose snapshots")
            else:
                chunk = [w for w in step if {*w.values, *w.unset} <= declared]
                for write in chunk:
                    written = await world.writer.write("default", USER, write.source, [write.message()], "")
                    assert not written.refused
                reference.add(chunk)
            await compare(world, reference, declared)
        await world.stack.aclose()


async def compare(world: World, reference: Reference, declared: set[str]) -> None:
    for user in "uvw":
        profile = await world.read(USER, user)
        assert [each.name for each in profile.properties] == sorted(declared)
        for each in profile.properties:
            expected, status, last_us, source = reference.answer(user, each.name)
            told = each.value if each.HasField("value") else None
            assert told == (None if expected is None else value(expected)), (user, each.name)
            assert (each.status, each.source) == (status, source), (user, each.name)
            assert each.HasField("event_time") == (last_us is not None)
            if last_us is not None:
                assert each.event_time == timestamp(last_us)
    for account in "xy":
        profile = await world.read(ACCOUNT, account)
        found = {each.name: _plain(each) for each in profile.rollups}
        assert found == reference.rollups(account)


def _plain(each: profile_pb2.AttributeValue) -> Any:
    return getattr(each.value, each.value.WhichOneof("kind")) if each.HasField("value") else None  # type: ignore[arg-type]
