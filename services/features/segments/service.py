"""What can be done with segments: defined, read, listed, followed. No protobuf, no SQL."""

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from services.features.project import Project
from services.features.projects import Projects
from services.features.segments.binding import bind, chunks, instant_of
from services.features.segments.checking import check
from services.features.segments.definitions import (
    MAX_SEGMENTS,
    SegmentDefinition,
    check_texts,
    new_uid,
    parse_segment_name,
    refuse_mistakes,
)
from services.features.segments.fields import ProfileFields
from services.features.segments.keeper import SegmentKeeper
from services.features.segments.language import ConditionError, ConditionParser, Mistake
from services.features.segments.live import LiveSegment, SegmentState
from services.features.segments.schema import Field
from services.features.segments.shelf import MembershipShelf
from services.features.segments.store import SegmentStore
from services.features.settings import FeaturesSettings
from services.features.store import Request
from services.runtime.blobs import BlobStore
from services.runtime.clocks import Clock
from services.runtime.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from services.runtime.journal import ChangeJournal

EVALUATION_SECONDS = 8.0
"""How long a creation waits for the first members."""


@dataclass(frozen=True, slots=True)
class Preview:
    """Who would be in a segment; with mistakes nobody."""

    mistakes: tuple[Mistake, ...] = ()
    size: int = 0
    profiles: int = 0
    sample: tuple[str, ...] = ()


class ProjectSegments:
    """The segments of one project."""

    def __init__(
        self,
        project: Project,
        keeper: SegmentKeeper,
        fields: ProfileFields,
        parser: ConditionParser,
        store: SegmentStore,
        clock: Clock,
    ) -> None:
        self.project = project
        self.keeper = keeper
        self._fields = fields
        self._parser = parser
        self._store = store
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    # Life.

    async def load(self) -> None:
        """Begins to keep the stored segments."""
        for definition in await self._store.segments(self.project.name):
            self.keeper.add(definition)
        if self.keeper.live:
            self._start()

    def _start(self) -> None:
        if self._task is None:
            name = f"segments {self.project.name}"
            self._task = asyncio.create_task(self.keeper.run(), name=name, context=contextvars.Context())

    async def close(self) -> None:
        """Ends the keeping, with everything saved."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            await self.keeper.close()

    # Definitions.

    def all(self) -> list[LiveSegment]:
        """All segments, by id."""
        return [self.keeper.live[segment_id] for segment_id in sorted(self.keeper.live)]

    def get(self, name: str) -> LiveSegment:
        """A segment; raises InvalidArgument, NotFound."""
        found = self.keeper.live.get(parse_segment_name(name))
        if found is None:
            raise NotFound(f"there is no {name}", reason="NOT_FOUND", metadata={"name": name})
        return found

    async def create(
        self, definition: SegmentDefinition, request: Request | None, *, validate_only: bool
    ) -> LiveSegment:
        """Adds a segment and finds its members. Raises InvalidArgument with all mistakes, AlreadyExists."""
        async with self._lock:
            made = await self._store.repeated(self.project.name, request)
            if made is not None and made in self.keeper.live:
                return self.keeper.live[made]
            self._check(definition)
            if definition.segment_id in self.keeper.live:
                raise AlreadyExists(f"{definition.name} exists already: update it", reason="ALREADY_EXISTS")
            if len(self.keeper.live) >= MAX_SEGMENTS:
                text = f"the project has {MAX_SEGMENTS} segments: delete one first"
                raise ResourceExhausted(text, reason="TOO_MANY_SEGMENTS")
            now_us = self._clock.now_us()
            definition = replace(definition, uid=new_uid(), create_time_us=now_us, update_time_us=now_us)
            if validate_only:
                return LiveSegment(definition, self.keeper.universe(definition.attribute_key))
            await self._store.add(self.project.name, definition, request)
            live = self.keeper.add(definition)
            self._start()
        await self.keeper.wait_current(live, EVALUATION_SECONDS)
        return live

    async def update(
        self,
        name: str,
        changed: Callable[[SegmentDefinition], SegmentDefinition],
        etag: str,
        *,
        validate_only: bool,
    ) -> LiveSegment:
        """Changes a segment. A given etag must match."""
        live = self.get(name)

        def checked(before: SegmentDefinition) -> SegmentDefinition:
            _check_etag(etag, before)
            after = changed(before)
            self._check(after)
            return replace(after, update_time_us=max(self._clock.now_us(), before.update_time_us + 1))

        if validate_only:
            return replace(live, definition=checked(live.definition))
        await self.keeper.change(live, checked)
        await self.keeper.wait_current(live, EVALUATION_SECONDS)
        return live

    async def delete(self, name: str, etag: str) -> None:
        """Removes a segment; a given etag must match."""
        await self.keeper.remove(self.get(name), lambda definition: _check_etag(etag, definition))

    def _check(self, definition: SegmentDefinition) -> None:
        violations = check_texts(definition)
        if violations:
            first = violations[0]
            raise InvalidArgument(f"{first.field} {first.description}", reason=first.reason, violations=violations)
        try:
            check(self._parser, definition.condition, self._fields.schema(definition.attribute_key))
        except ConditionError as error:
            refuse_mistakes(error.mistakes, "segment.condition")

    async def preview(self, attribute_key: str, condition: str, sample_size: int) -> Preview:
        """Who would be in a segment with this condition, now. Raises Unavailable while the project recovers."""
        try:
            check(self._parser, condition, self._fields.schema(attribute_key))
            projection = self.project.serving()
            universe = self.keeper.universe(attribute_key)
            projection.advance()
            universe.follow(projection.fold.engines)
            bound = bind(self._parser, self._fields, condition, universe, projection)
        except ConditionError as error:
            return Preview(error.mistakes)
        if bound is None:
            raise FailedPrecondition(
                "the condition names something that is still being filled from the log: try again later",
                reason="NOT_PUBLISHED",
            )
        size, sample = 0, np.empty(0, np.int32)
        everybody = universe.everybody()
        for numbers in chunks(everybody):
            found = numbers[bound.holds(numbers, instant_of(projection))]
            size += len(found)
            sample = np.concatenate([sample, found])[-sample_size:]
            await asyncio.sleep(0)
        return Preview((), size, len(everybody), tuple(universe.text(number) for number in sample[::-1].tolist()))

    def fields_read(self, attribute_key: str, namespace: str) -> list[tuple[str, str]]:
        """The segments that read a field of a namespace, each with the field's name; see `PropertyCatalog`."""
        found = []
        for live in self.all():
            if live.universe.attribute_key == attribute_key:
                fields = self._fields_of(live)
                found += [(live.definition.name, field.name) for field in fields if field.namespace == namespace]
        return found

    def _fields_of(self, live: LiveSegment) -> Sequence[Field]:
        if live.bound is not None:
            return live.bound.condition.fields
        try:
            schema = self._fields.schema(live.universe.attribute_key)
            return check(self._parser, live.definition.condition, schema).fields
        except ConditionError:
            return ()  # what it names is gone already

    # Members.

    async def current(self, name: str) -> LiveSegment:
        """A segment whose members can be read; raises Unavailable while they are found."""
        live = self.get(name)
        if live.state is SegmentState.EVALUATING:
            await self.keeper.wait_current(live, 1.0)
        if live.state is SegmentState.EVALUATING or not live.recovered or self.keeper.sequence < 0:
            raise Unavailable("the segment's members are being found: try again", reason="NOT_READY")
        return live

    async def page(self, name: str, after: str, size: int) -> tuple[LiveSegment, list[tuple[str, int]], bool]:
        """At most `size` members after a key value, in its order, with since when; and whether there are more."""
        live = await self.current(name)
        numbers = live.members.numbers()
        since = live.members.since(numbers)
        keys = live.universe.texts(numbers)

        def least() -> list[tuple[str, int]]:
            places = np.flatnonzero(pc.greater(keys, pa.scalar(after, keys.type)).to_numpy(zero_copy_only=False))
            chosen = pc.select_k_unstable(keys.take(pa.array(places)), size + 1, [("", "ascending")])
            rows = places[chosen.to_numpy()]
            return list(zip(keys.take(pa.array(rows)).to_pylist(), since[rows].tolist(), strict=True))

        found = await asyncio.to_thread(least) if len(numbers) > 10_000 else least()
        return live, found[:size], len(found) > size

    def memberships(self, attribute_key: str, key_value: str) -> list[str]:
        """The names of the segments that a profile is in, as published now."""
        found = []
        for live in self.all():
            if live.universe.attribute_key == attribute_key:
                number = live.universe.find(key_value)
                if live.members.since_us(number) is not None:
                    found.append(live.definition.name)
        return found


class Segments:
    """The segments of all projects."""

    def __init__(
        self,
        projects: Projects,
        store: SegmentStore,
        journal: ChangeJournal,
        blobs: BlobStore,
        settings: FeaturesSettings,
        clock: Clock,
    ) -> None:
        self.journal = journal
        self._projects = projects
        self._store = store
        self._blobs = blobs
        self._settings = settings
        self._clock = clock
        self._parser = ConditionParser()
        self._opened: dict[str, ProjectSegments] = {}
        self._opening = asyncio.Lock()

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Segments"]:
        """Keeps the stored segments current; on exit saves them. Open it after the projects."""
        try:
            for name in await self._store.projects():
                await self.of(name)
            yield self
        finally:
            await asyncio.gather(*(each.close() for each in self._opened.values()), return_exceptions=True)

    def opened(self) -> list[ProjectSegments]:
        """Those that are kept."""
        return list(self._opened.values())

    async def of(self, project_name: str) -> ProjectSegments:
        """The segments of a project."""
        async with self._opening:
            found = self._opened.get(project_name)
            if found is None:
                project = await self._projects.get(project_name)
                fields = ProfileFields(project.catalog)
                shelf = MembershipShelf(self._blobs, project_name)
                keeper = SegmentKeeper(project, fields, self._parser, self._store, self.journal, shelf, self._settings)
                found = ProjectSegments(project, keeper, fields, self._parser, self._store, self._clock)
                await found.load()
                project.catalog.properties.fields_read = found.fields_read
                self._opened[project_name] = found
            return found

    # For others in this process.

    async def members(self, project: str, segment: str) -> tuple[str, Sequence[str]]:
        """The attribute key of a segment (`segments/{segment}`) and its members now, in no order.

        Raises InvalidArgument, NotFound, and Unavailable while they are being found.
        """
        live = await (await self.of(project)).current(segment)
        keys: list[str] = live.universe.texts(live.members.numbers()).to_pylist()
        return live.universe.attribute_key, keys

    async def key_values(self, project: str, segment: str) -> Sequence[str]:
        """The members alone."""
        return (await self.members(project, segment))[1]

    def rosters(self, project: str, attribute_key: str) -> list[tuple[str, pa.Array]]:
        """The segments of an attribute key with the key values of their members, as published now."""
        found = self._opened.get(project)
        lives = [] if found is None else found.all()
        mine = [live for live in lives if live.universe.attribute_key == attribute_key]
        return [(live.definition.name, live.universe.texts(live.members.numbers())) for live in mine]

    def memberships(self, project: str, attribute_key: str, key_value: str) -> list[str]:
        """The names of the segments that a profile is in, as published now; none while the project is not opened."""
        found = self._opened.get(project)
        return [] if found is None else found.memberships(attribute_key, key_value)

    # Forgetting, as `services.features.erasure.Forgets` asks for it.

    @property
    def store(self) -> str:
        """The name in receipts."""
        return "segments"

    @property
    def unit(self) -> str:
        """What is counted: memberships, and changes in the journal."""
        return "entries"

    async def forget(self, project: str, attribute_key: str, value: str) -> int:
        """Leaves nothing of a key, once the project's engines have forgotten it; returns how much there was."""
        return await (await self.of(project)).keeper.forget(attribute_key, value)


def _check_etag(given: str, definition: SegmentDefinition) -> None:
    if given and given != definition.etag:
        raise Aborted("somebody else changed it: read it again", reason="ETAG_MISMATCH")
