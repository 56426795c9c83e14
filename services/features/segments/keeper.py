"""Keeps the segments of one project current: by the keys that are touched, and by timers; never by a scan.

What changes is journaled first and published then, by one task, under one lock. So the journal tells each change once:
after a crash, the membership on the shelf and the journal's entries after it are what was published last, and only how
the present differs from that is journaled.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace

import numpy as np
import pyarrow as pa

from services.features.project import Project
from services.features.projection import Projection, Touched
from services.features.segments.binding import SharedReadings, bind, chunks, instant_of
from services.features.segments.definitions import SegmentDefinition, new_uid
from services.features.segments.fields import ProfileFields
from services.features.segments.language import ConditionError, ConditionParser
from services.features.segments.live import LiveSegment, SegmentState, Turn, alike
from services.features.segments.membership import frozen
from services.features.segments.shelf import MembershipShelf
from services.features.segments.store import SegmentStore
from services.features.segments.universe import Codes, Universe
from services.features.settings import FeaturesSettings
from services.kernel.engine import Engine
from services.runtime.errors import DeadlineExceeded, OutOfRange
from services.runtime.journal import ChangeJournal, Page

_LOGGER = logging.getLogger(__name__)
_PAUSE_SECONDS = 0.02
"""Between two rounds: touches close together are looked at once."""
_RETRY_SECONDS = 0.5
_CHANGES_AT_ONCE = 10_000
"""Changes in one transaction of the journal."""
_UNSAVED = 100_000
"""Changes after which a membership is saved, whatever the time: a start reads them one by one."""
_TRIM_SECONDS = 3_600.0


class SegmentKeeper:
    """The segments of one project."""

    def __init__(
        self,
        project: Project,
        fields: ProfileFields,
        parser: ConditionParser,
        store: SegmentStore,
        journal: ChangeJournal,
        shelf: MembershipShelf,
        settings: FeaturesSettings,
    ) -> None:
        self.live: dict[str, LiveSegment] = {}
        """By id."""
        self.position = 0
        """Changes up to this position of the log are published."""
        self.sequence = -1
        """The last entry of the journal that is published; -1 before anything is."""
        self._project = project
        self._fields = fields
        self._parser = parser
        self._store = store
        self._journal = journal
        self._shelf = shelf
        self._settings = settings
        self._universes: dict[str, Universe] = {}
        self._touched: dict[Engine, list[Codes]] = {}
        self._referred: dict[str, set[str]] = {}
        """By attribute key: profiles touched through those that refer to them."""
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()
        self._lock = asyncio.Lock()
        self._publishing = False
        """Something may be in the journal that is not published."""
        self._revision: tuple[int, int, int] = (-1, -1, -1)
        self._save_due = time.monotonic() + settings.snapshot_seconds
        self._trim_due = 0.0

    # Life.

    async def run(self) -> None:
        """Keeps segments current, without end; what goes wrong is tried again."""
        while True:
            await self._project.ready.wait()
            projection = self._project.projection
            if projection is None:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            stop = projection.listen(self._note)
            try:
                while not projection.closed:
                    async with self._lock:
                        await self._round(projection)
                    await self._rest()
            except Exception:
                _LOGGER.exception("segments are not current", extra={"fields": {"project": self._project.name}})
                if self._publishing:
                    # Was it journaled or not? The journal knows.
                    for live in self.live.values():
                        live.recovered = not live.definition.evaluated
                    self._publishing, self.sequence = False, -1
                await asyncio.sleep(_RETRY_SECONDS)
            finally:
                stop()
                self._revision = (-1, -1, -1)

    async def close(self) -> None:
        """Saves what changed since the last time; `run` must have ended."""
        async with self._lock:
            if self._publishing:
                return  # the next start reads the journal
            await self._save(live for live in self.live.values() if live.unsaved)

    def add(self, definition: SegmentDefinition) -> LiveSegment:
        """Begins to keep a segment."""
        universe = self.universe(definition.attribute_key)
        live = self.live[definition.segment_id] = LiveSegment(definition, universe)
        live.recovered = not definition.evaluated
        self.refresh()
        return live

    async def change(self, live: LiveSegment, changed: Callable[[SegmentDefinition], SegmentDefinition]) -> None:
        """Makes the segment's definition another one, also in the store. `changed` may refuse."""
        async with self._lock:
            definition = changed(live.definition)
            await self._store.replace(self._project.name, definition)
            if definition.condition != live.definition.condition:
                live.bound, live.state = None, SegmentState.EVALUATING
            live.definition = definition
        self.refresh()

    async def remove(self, live: LiveSegment, check: Callable[[SegmentDefinition], None]) -> None:
        """Lets a segment go, with its members. `check` may refuse."""
        async with self._lock:
            check(live.definition)
            await self._store.delete(self._project.name, live.definition.segment_id)
            self.live.pop(live.definition.segment_id, None)
            await self._shelf.delete(live.definition)
            self._mention([Turn(live, np.empty(0, np.int32), live.members.numbers(), 0, 0)])

    async def forget(self, attribute_key: str, key_value: str) -> int:
        """Leaves nothing of a key: not in memory, nor on the shelf, nor in the journal. Nobody is told that it left.

        Returns how many memberships and entries there were.
        """
        async with self._lock:
            concerned = [live for live in self.live.values() if live.universe.attribute_key == attribute_key]
            number = self.universe(attribute_key).forget(key_value)
            count = 0
            for live in concerned:
                if live.members.since_us(number) is not None:
                    count += 1
                    live.members.leave(np.array([number], np.int32))
            await self._save(concerned)
            streams = [live.definition.stream for live in concerned]
            return count + await self._journal.forget(self._project.name, key_value, streams)

    def refresh(self) -> None:
        """Definitions changed: they are looked at in the next round."""
        self._revision = (-1, -1, -1)
        self._wake.set()

    async def wait_current(self, live: LiveSegment, timeout_seconds: float) -> None:
        """Returns once a segment's members are current or cannot be, or after the timeout."""
        await self._wait(lambda: live.state is not SegmentState.EVALUATING, timeout_seconds)

    async def wait_for(self, position: int, timeout_seconds: float) -> None:
        """Returns once what changed up to a position is published; raises DeadlineExceeded."""
        if not await self._wait(lambda: self.position >= position, timeout_seconds):
            raise DeadlineExceeded(
                f"position {position} was not applied to segments within {timeout_seconds:g} s",
                reason="POSITION_NOT_REACHED",
                metadata={"position": str(self.position)},
            )

    async def _wait(self, reached: Callable[[], bool], timeout_seconds: float) -> bool:
        try:
            async with asyncio.timeout(timeout_seconds):
                while not reached():
                    self._wake.set()
                    await self._progress.wait()
        except TimeoutError:
            return False
        return True

    # What happens.

    def universe(self, attribute_key: str) -> Universe:
        """The profiles of an attribute key."""
        universe = self._universes.get(attribute_key)
        if universe is None:
            universe = self._universes[attribute_key] = Universe(attribute_key)
            if self._project.projection is not None:
                universe.follow(self._project.projection.fold.engines)
        return universe

    def _note(self, touched: Touched) -> None:
        """Called within the fold's step: only remembers."""
        for engine, codes in touched.items():
            parts = self._touched.setdefault(engine, [])
            parts.append(codes)
            if len(parts) > 256:
                parts[:] = [np.unique(np.concatenate(parts))]
        for live in self.live.values():
            if live.bound is not None:
                # What an index says holds within this step only.
                for index in live.bound.indexes:
                    self._referred.setdefault(live.universe.attribute_key, set()).update(index.touched)
        self._wake.set()

    async def _rest(self) -> None:
        await asyncio.sleep(_PAUSE_SECONDS)
        try:
            async with asyncio.timeout(self._settings.tick_seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _round(self, projection: Projection) -> None:
        """Looks at everything that may have changed, once."""
        self._wake.clear()
        if self.sequence < 0:
            self.sequence = await self._journal.newest(self._project.name)
        revision = (self._fields.revision, projection.revision, id(projection))
        if revision != self._revision:
            for universe in self._universes.values():
                universe.follow(projection.fold.engines)
            # Before anything is awaited: what changes meanwhile is looked at in the next round.
            self._revision = revision
            for live in list(self.live.values()):
                await self._bind(live, projection)
        projection.advance()
        position = projection.position
        self._distribute()
        turns: list[Turn] = []
        bound = [live for live in self.live.values() if live.bound is not None]
        for segments, due in alike(bound, instant_of(projection)):
            async for turn in self._look(segments, due, projection):
                turns.append(turn)
                if sum(map(len, turns)) >= _CHANGES_AT_ONCE:
                    await self._publish(turns)
                    turns = []
        await self._publish(turns)
        for live in self.live.values():
            if live.bound is not None:
                live.settle()
                live.state = SegmentState.SERVING
        self.position = position
        self._progress.set()
        self._progress = asyncio.Event()
        await self._keep_house()

    def _distribute(self) -> None:
        """Tells segments which of their profiles were touched."""
        referred, self._referred = self._referred, {}
        for attribute_key, keys in referred.items():
            numbers = self._universes[attribute_key].take_in(pa.array(sorted(keys), pa.string()))
            for live in self.live.values():
                if live.universe.attribute_key == attribute_key and live.bound is not None and live.bound.indexes:
                    live.look_at(numbers)
        touched, self._touched = self._touched, {}
        for engine, parts in touched.items():
            universe = self._universes.get(engine.attribute_key)
            if universe is None:
                continue
            numbers = universe.numbers(engine, np.unique(np.concatenate(parts)))
            for live in self.live.values():
                if live.bound is not None and engine in live.bound.engines:
                    live.look_at(numbers)

    async def _look(self, segments: list[LiveSegment], due: Codes, projection: Projection) -> AsyncIterator[Turn]:
        """The turns of segments that look at the same profiles; the first members of a new one are not journaled."""
        for numbers in chunks(due):
            shared, state = SharedReadings(), (projection.position, instant_of(projection))
            for live in segments:
                if state != (projection.position, instant_of(projection)):
                    shared, state = SharedReadings(), (projection.position, instant_of(projection))
                turn = live.turn(numbers, instant_of(projection), projection.position, shared)
                if not live.definition.evaluated:
                    turn.publish()
                    self._mention([turn])
                elif len(turn):
                    yield turn
                if len(due) > len(numbers):
                    await asyncio.sleep(0)
        for live in segments:
            if not live.definition.evaluated:
                await self._save([live])
                definition = replace(live.definition, evaluated=True)
                await self._store.replace(self._project.name, definition)
                live.definition = definition

    async def _publish(self, turns: Iterable[Turn]) -> None:
        """Makes changes durable, then visible."""
        waiting = [turn for turn in turns if len(turn)]
        while waiting:
            count, size = 0, 0
            for turn in waiting:
                if size and size + len(turn) > _CHANGES_AT_ONCE:
                    break
                count, size = count + 1, size + len(turn)
            now, waiting = waiting[:count], waiting[count:]
            changes = [change for turn in now for change in turn.changes()]
            self._publishing = True
            self.sequence = await self._journal.append(self._project.name, changes)
            for turn in now:
                turn.publish()
                turn.live.counts.changes += len(turn)
            self._publishing = False
            self._mention(now)

    def _mention(self, turns: Iterable[Turn]) -> None:
        """Tells those who watch the profiles that changed."""
        projection = self._project.projection
        if projection is not None and projection.mentions_heard:
            for turn in turns:
                universe = turn.live.universe
                numbers = [*turn.entered.tolist(), *turn.left.tolist()]
                projection.mention(universe.attribute_key, [universe.text(number) for number in numbers])

    # Definitions.

    async def _bind(self, live: LiveSegment, projection: Projection) -> None:
        """Binds a segment to where its values are now; another binding means to look at all profiles."""
        if not live.recovered:
            await self._recover(live)
        try:
            bound = bind(self._parser, self._fields, live.definition.condition, live.universe, projection)
        except ConditionError as error:
            live.bound, live.state, live.mistakes = None, SegmentState.BROKEN, error.mistakes
            return
        live.mistakes = ()
        if bound is None:
            live.bound, live.state = None, SegmentState.EVALUATING
        elif live.bound is None or not live.bound.same(bound):
            live.begin(bound)

    async def _recover(self, live: LiveSegment) -> None:
        """Takes the membership as it was published last."""
        saved = await self._shelf.load(live.definition)
        pages: list[Page] = []
        try:
            if saved is None:
                raise OutOfRange("there is no membership on the shelf")
            while not pages or not pages[-1].complete:
                after = pages[-1].reached if pages else saved.sequence
                pages.append(
                    await self._journal.read(self._project.name, [live.definition.stream], after, _CHANGES_AT_ONCE)
                )
            live.recover(saved)
            for page in pages:
                live.repeat(page.entries)
        except OutOfRange as error:
            # What watchers know is not known any more: they start anew, with the members as they are.
            _LOGGER.warning("the members of %s are found anew: %s", live.definition.name, error.message)
            await self._shelf.delete(live.definition)
            definition = replace(live.definition, evaluated=False, uid=new_uid())
            await self._store.replace(self._project.name, definition)
            live.definition = definition
        live.recovered = True

    # The shelf and the journal.

    async def _keep_house(self) -> None:
        now = time.monotonic()
        if now >= self._save_due:
            await self._save(live for live in self.live.values() if live.unsaved)
            self._save_due = now + self._settings.snapshot_seconds
        else:
            await self._save(live for live in self.live.values() if live.unsaved >= _UNSAVED)
        if now >= self._trim_due:
            # What is trimmed away must be on the shelf.
            newest = await self._journal.newest(self._project.name)
            await self._save(live for live in self.live.values() if live.saved_sequence < newest)
            if all(live.recovered for live in self.live.values()):
                age_us = round(self._settings.journal_days * 86_400e6)
                await self._journal.trim(self._project.name, max_age_us=age_us, keep=self._settings.journal_entries)
            self._trim_due = now + _TRIM_SECONDS

    async def _save(self, segments: Iterable[LiveSegment]) -> None:
        """Puts memberships on the shelf, as they are published now."""
        for live in list(segments):
            if live.recovered:
                sequence = await self._journal.newest(self._project.name)
                await self._shelf.save(live.definition, frozen(live.members, live.universe, sequence))
                live.saved_sequence, live.unsaved = sequence, 0
