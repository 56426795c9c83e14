"""The settings of projects: how their events are taken and kept."""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic

from services.ingest.admission import TimeRules
from services.ingest.log import EventLog
from services.ingest.retention import RetentionPolicy, oldest_kept_us
from services.ingest.store import ProjectStore
from services.runtime.clocks import Clock
from services.runtime.errors import Aborted, FailedPrecondition, InvalidArgument, Violation

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
DEFAULT_HORIZON_US = 7 * DAY_US
DEFAULT_LEAD_US = HOUR_US // 12
_FRESH_SECONDS = 1.0


class ProjectClock(StrEnum):
    """What `now` is in every evaluation."""

    WALL = "WALL"
    LOG = "LOG"


@dataclass(frozen=True)
class ProjectSettings:
    """The settings of one project. Durations are microseconds."""

    clock: ProjectClock = ProjectClock.WALL
    retention_us: int | None = None
    """In event time; None keeps events for ever."""
    horizon_us: int = DEFAULT_HORIZON_US
    """How long an event id is remembered, in received time."""
    max_lead_us: int = DEFAULT_LEAD_US
    """How far ahead of the server an event may be."""

    @property
    def etag(self) -> str:
        """Changes with each change."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    @property
    def retention_policy(self) -> RetentionPolicy:
        """What retention needs to know."""
        return RetentionPolicy(self.retention_us, self.clock is ProjectClock.LOG)

    def check(self) -> None:
        """Raises InvalidArgument with everything that is wrong."""
        violations = []
        if self.retention_us is not None and self.retention_us < HOUR_US:
            violations.append(Violation("settings.retention", "must be at least 1 hour, or absent to keep all events"))
        if self.horizon_us < HOUR_US:
            violations.append(Violation("settings.deduplication_horizon", "must be at least 1 hour"))
        if not 0 <= self.max_lead_us <= DAY_US:
            violations.append(Violation("settings.max_lead", "must be from 0 to 1 day"))
        if violations:
            raise InvalidArgument("the settings are out of range", reason="OUT_OF_RANGE", violations=violations)


@dataclass
class _Cached:
    settings: ProjectSettings
    fresh_until: float = field(default_factory=lambda: monotonic() + _FRESH_SECONDS)


class Projects:
    """Reads and changes settings. A change by another replica is seen within a second."""

    def __init__(self, store: ProjectStore, log: EventLog, clock: Clock) -> None:
        self._store = store
        self._log = log
        self._clock = clock
        self._cached: dict[str, _Cached] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def get(self, project: str) -> ProjectSettings:
        """The settings; the defaults if they were never changed."""
        cached = self._cached.get(project)
        if cached is None or cached.fresh_until < monotonic():
            cached = self._cached[project] = _Cached(await self._read(project))
        return cached.settings

    async def _read(self, project: str) -> ProjectSettings:
        row = await self._store.get(project)
        if row is None:
            return ProjectSettings()
        return ProjectSettings(ProjectClock(row.clock), row.retention_us, row.horizon_us, row.max_lead_us)

    async def update(
        self, project: str, etag: str, change: Callable[[ProjectSettings], ProjectSettings]
    ) -> ProjectSettings:
        """Changes the settings. `etag` must be that of the present ones, or empty.

        Raises Aborted for another etag, InvalidArgument, and FailedPrecondition for another clock of a log in use.
        """
        async with self._locks[project]:
            before = await self._read(project)
            if etag and etag != before.etag:
                raise Aborted("the settings were changed meanwhile: read them again, then change them")
            after = change(before)
            after.check()
            if after.clock is not before.clock and await self._log.head(project):
                raise FailedPrecondition(
                    "the clock can be changed only while the log is empty: use another project", reason="LOG_IN_USE"
                )
            await self._store.put(project, after.clock, after.retention_us, after.horizon_us, after.max_lead_us)
            self._cached[project] = _Cached(after)
        return after

    async def time_rules(self, project: str) -> TimeRules:
        """The event times that the project takes now."""
        settings = await self.get(project)
        now_us = self._clock.now_us()
        newest_us = None
        if settings.retention_us is not None and settings.clock is ProjectClock.LOG:
            newest_us = (await self._log.stats(project)).max_occurred_us
        oldest_us = oldest_kept_us(settings.retention_policy, now_us, newest_us)
        return TimeRules(0 if oldest_us is None else max(0, oldest_us), now_us + settings.max_lead_us)
