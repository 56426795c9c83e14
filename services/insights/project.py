"""One project at work: recovers its state, follows its log, keeps its evaluators true, tells what changed.

What goes wrong here stays here: other projects go on, and this one tries again.
"""

import asyncio
import contextlib
import contextvars
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

from services.following.feed import Backoff, Feed, LogSettings, Part, PositionLostError, follow_steadily
from services.insights.catalog import Catalog
from services.insights.course import Course, named
from services.insights.engine.plan import Plan
from services.insights.engine.snapshots import SchemaChangedError
from services.insights.evaluation import NAME, InsightEvaluator
from services.insights.evaluators import Evaluator, EvaluatorMaker
from services.insights.settings import InsightsSettings
from services.insights.snapshots import Frozen, SnapshotShelf
from services.insights.sources import TRANSACTIONS
from services.insights.telling import Teller
from services.runtime.clocks import Clock
from services.runtime.errors import DeadlineExceeded, InklingError, Unavailable
from services.runtime.journal import ChangeJournal

_LOGGER = logging.getLogger(__name__)
_DAY_US = 86_400_000_000
_TRIM_SECONDS = 3_600.0


class Project:
    """One project: its insights and, once anything is followed, the course of its log."""

    def __init__(
        self,
        name: str,
        catalog: Catalog,
        feed: Feed,
        shelf: SnapshotShelf,
        journal: ChangeJournal,
        settings: InsightsSettings,
        clock: Clock,
        others: tuple[EvaluatorMaker, ...] = (),
    ) -> None:
        self.name = name
        self.catalog = catalog
        self.journal = journal
        self.ready = asyncio.Event()
        """Set while all that was known at the (re)start of the log is applied and told."""
        self.failures = 0
        """How often it had to start over because of an unexpected error."""
        self.head_position = 0
        self.insights: InsightEvaluator | None = None
        self.evaluators: list[Evaluator] = []
        """What is fed with each batch and each tick: insights, and what `others` make."""
        self._feed, self._shelf, self._settings, self._clock, self._others = feed, shelf, settings, clock, others
        self._teller = Teller(name, journal)
        self._course: Course | None = None
        self._changing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._snapshot_task: asyncio.Task[None] | None = None
        self._snapshot_position = 0
        self._snapshot_due = 0.0
        self._trim_due = 0.0
        self._goal = 0
        self._applied = asyncio.Condition()

    # For readers.

    @property
    def position(self) -> int:
        """The position of the last record applied."""
        return 0 if self._course is None else self._course.position

    @property
    def now_us(self) -> int:
        """The instant at which insights hold."""
        return 0 if self._course is None else self._course.now_us

    @property
    def told_sequence(self) -> int | None:
        """That of the last change told, while the log is caught up with."""
        return self._teller.sequence if self.ready.is_set() else None

    @property
    def follows(self) -> bool:
        """Whether it follows its log."""
        return self._task is not None

    @property
    def told_all(self) -> bool:
        """Whether all that changed is in the journal."""
        return self.ready.is_set() and self._teller.quiet

    def serving(self) -> InsightEvaluator:
        """The insights to read from; raises Unavailable while the project recovers."""
        if self.insights is None or not self.ready.is_set():
            raise Unavailable("the project's insights are being recovered: try again", reason="NOT_READY")
        return self.insights

    async def current(self, min_position: int, timeout_seconds: float) -> InsightEvaluator:
        """The insights as they are now, with everything up to a position applied; starts to follow the log if need be.

        Raises Unavailable, DeadlineExceeded.
        """
        self.start()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.ready.wait()
                async with self._applied:
                    await self._applied.wait_for(lambda: self.position >= min_position)
        except TimeoutError:
            if not self.ready.is_set():
                return self.serving()
            raise DeadlineExceeded(
                f"position {min_position} was not applied within {timeout_seconds:g} s",
                reason="POSITION_NOT_REACHED",
                metadata={"position": str(self.position), "head_position": str(self.head_position)},
            ) from None
        async with self.changing():
            pass
        return self.serving()

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[InsightEvaluator | None]:
        """Within it nothing else changes the evaluators; afterwards what changed is told, if the log is caught up with.

        Gives the insights, or None while they are being recovered: what is defined then is seen when they are made.
        """
        async with self._changing:
            yield self.insights
            await self._tell()

    # Life.

    def start(self) -> None:
        """Begins to follow the log; does nothing when it does already."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"project {self.name}", context=contextvars.Context())

    async def restart(self) -> None:
        """Starts over from the log: rows are needed that were not retained."""
        await self._end()
        await self._shelf.clear()
        self.start()

    async def stop(self) -> None:
        """Ends everything, and writes a last snapshot if there is anything new."""
        await self._end()
        if self._course is not None and self._teller.quiet and self._course.position > self._snapshot_position:
            await self._save(self._course)

    async def _end(self) -> None:
        for task in (self._task, self._snapshot_task):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
        self._task = None
        if not self.ready.is_set():
            self._course = None
        self.ready.clear()

    async def tick(self) -> None:
        """Time has passed."""
        if self.ready.is_set():
            async with self._changing:
                if self._course is not None:
                    self._course.advance(self._clock.now_us())
                await self._tell()

    async def _run(self) -> None:
        backoff = Backoff()
        recover = True
        while True:
            try:
                await self._follow(await self._shelf.newest() if recover else None)
            except (PositionLostError, SchemaChangedError) as error:
                # The log is another one, or says more than was retained: only the log itself can tell.
                await self._shelf.clear()
                recover = False
                await backoff.wait("starting over from the log", self.name, error)
            except Exception as error:
                _LOGGER.exception("insights failed", extra={"fields": {"project": self.name}})
                recover = True
                self.failures += 1
                await backoff.wait("recovering", self.name, error)

    async def _follow(self, frozen: Frozen | None) -> None:
        self.ready.clear()
        self._course = self.insights = None
        standing = _Standing(0 if frozen is None else int(frozen[0]["position"]))
        await self.catalog.read_sources()
        async with aclosing(follow_steadily(self._feed, self.name, standing, self._settings.apply_bytes)) as parts:
            async for part in parts:
                async with self._changing:
                    course = self._course or await self._begin(frozen, part)
                    if part.settings is not None:
                        course.deduplicator.horizon_us = part.settings.horizon_us
                    self.head_position = max(part.head_position, self.head_position)
                    if part.last_position:
                        course.apply(part.first_position, part.last_position, part.batch())
                        course.advance(self._clock.now_us())
                        standing.position = course.position
                    if not self.ready.is_set() and course.position >= self._goal:
                        course.advance(self._clock.now_us())
                        _LOGGER.info("ready", extra={"fields": {"project": self.name, "position": course.position}})
                        self.ready.set()
                    await self._tell()
                self._consider_snapshot(course)
                async with self._applied:
                    self._applied.notify_all()
                # Readers get their turn, also when the next part is here already.
                await asyncio.sleep(0)

    async def _begin(self, frozen: Frozen | None, part: Part) -> Course:
        """The first part of the stream is here: makes the course and its evaluators."""
        settings = part.settings or LogSettings()
        manifest, arrays = frozen if frozen is not None else ({}, {})
        if frozen is not None and manifest["clock"] != settings.clock:
            raise SchemaChangedError("the project's clock")
        course = Course(self.name, settings.clock, settings.horizon_us)
        if frozen is not None:
            course = Course.thaw(self.name, manifest, arrays)
        await self.catalog.prepare()
        active = self.catalog.active()
        bindings = [self.catalog.catalogue.bindings[name] for name in self._read(active)]
        states = manifest.get("evaluators", {})
        if frozen is None:
            self.insights = InsightEvaluator(bindings)
            for insight, plan in active.values():
                self.insights.put(insight, plan)
        else:
            self.insights = InsightEvaluator.recovered(bindings, active, states[NAME], named(arrays, NAME))
        self.evaluators = [self.insights]
        for maker in self._others:
            if frozen is not None and maker.name not in states:
                raise SchemaChangedError(maker.name)
            self.evaluators.append(await maker.make(self.name, states.get(maker.name), named(arrays, maker.name)))
        course.evaluators = self.evaluators
        await self._teller.recover(self.evaluators, int(manifest.get("told", 0)))
        self._course = course
        self._goal = part.head_position
        self._snapshot_position = course.position
        self._snapshot_due = time.monotonic() + self._settings.snapshot_seconds
        return course

    def _read(self, active: Mapping[str, tuple[Any, Plan]]) -> list[str]:
        """The sources whose rows are retained: transactions, and those that an active insight reads."""
        wanted = {TRANSACTIONS}.union(*(plan.sources for _, plan in active.values()))
        return [name for name in self.catalog.catalogue.bindings if name in wanted]

    def retains(self, sources: frozenset[str]) -> bool:
        """Whether the rows of all these sources are retained, or will be when the project is recovered."""
        return self.insights is None or sources <= self.insights.bindings.keys()

    def holds(self, plan: Plan) -> bool:
        """Whether no row that a query over retained sources looks at was let go; or that is seen when it recovers."""
        return self.insights is None or self.insights.holds(plan)

    async def _tell(self) -> None:
        if not self.ready.is_set() or self._course is None:
            return
        try:
            await self._teller.tell(self.evaluators, self._course.position)
        except InklingError:
            _LOGGER.exception("changes wait to be told", extra={"fields": {"project": self.name}})

    # Snapshots.

    def _consider_snapshot(self, course: Course) -> None:
        running = self._snapshot_task is not None and not self._snapshot_task.done()
        if running or not self.ready.is_set() or course.position <= self._snapshot_position:
            return
        many = course.position - self._snapshot_position >= self._settings.snapshot_events
        if many or time.monotonic() >= self._snapshot_due:
            self._snapshot_task = asyncio.create_task(self._save(course), name=f"snapshot {self.name}")

    async def _save(self, course: Course) -> None:
        try:
            async with self._changing:
                if not self._teller.quiet:
                    return
                if self.insights is not None:
                    self.insights.trim(round(self._settings.memory_days * _DAY_US))
                frozen = course.freeze(self._teller.sequence)
            await self._shelf.save(*frozen)
            self._snapshot_position = int(frozen[0]["position"])
            if time.monotonic() >= self._trim_due:
                self._trim_due = time.monotonic() + _TRIM_SECONDS
                age_us = round(self._settings.journal_days * _DAY_US)
                await self.journal.trim(self.name, max_age_us=age_us, keep=self._settings.journal_changes)
        except Exception:
            _LOGGER.exception("a snapshot could not be written", extra={"fields": {"project": self.name}})
        self._snapshot_due = time.monotonic() + self._settings.snapshot_seconds

    async def renew_snapshots(self) -> int:
        """Writes the state as it is now in place of all that was written before; returns how many were deleted.

        Raises Unavailable while it cannot be written.
        """
        if not self.follows:
            # What is there is of no use without following: the log tells the same.
            return await self._shelf.clear()
        if self._snapshot_task is not None:
            await asyncio.wait({self._snapshot_task})
        async with self.changing():
            pass
        async with self._changing:
            if self._course is None or not self.told_all:
                raise Unavailable("the project's insights are being recovered: try again", reason="NOT_READY")
            frozen = self._course.freeze(self._teller.sequence)
        count = await self._shelf.save(*frozen, keep=1)
        self._snapshot_position = int(frozen[0]["position"])
        return count


class _Standing:
    """Where to follow the log from."""

    def __init__(self, position: int) -> None:
        self.position = position
