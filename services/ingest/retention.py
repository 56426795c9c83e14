"""Lets go of what is older than a project wants to keep: in the log, in the archive and among the dead letters."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from services.ingest.log.base import EventLog, Trimmed
from services.runtime.clocks import Clock
from services.runtime.errors import InklingError

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long a project keeps its events."""

    retention_us: int | None
    """In event time; None keeps them for ever."""
    log_clock: bool
    """Whether `now` is the newest event time of the log, instead of the wall's time."""


def oldest_kept_us(policy: RetentionPolicy, now_us: int, newest_occurred_us: int | None) -> int | None:
    """The event time before which events are not kept, and not taken any more; None when all are.

    `now_us` is the wall's time, `newest_occurred_us` that of the newest event ever appended.
    """
    now = newest_occurred_us if policy.log_clock else now_us
    return None if policy.retention_us is None or now is None else now - policy.retention_us


@dataclass(frozen=True, slots=True)
class Released:
    """What was let go of in one project."""

    log: Trimmed
    archive_files: int
    dead_letters: int


class Trimmable(Protocol):
    """What retention asks of the archive."""

    async def settle(self, project: str) -> int:
        """Archives all that is in the log, and needs none of it any more."""
        ...

    async def trim(self, project: str, before_occurred_us: int) -> int:
        """Deletes the files all of whose events occurred before an instant; returns how many."""
        ...


class Retention:
    """Trims every project, again and again."""

    def __init__(
        self,
        log: EventLog,
        archive: Trimmable,
        *,
        projects: Callable[[], Awaitable[Iterable[str]]],
        policy: Callable[[str], Awaitable[RetentionPolicy]],
        expire_dead_letters: Callable[[str, int], Awaitable[int]],
        clock: Clock,
        every_seconds: float,
    ) -> None:
        """`expire_dead_letters` deletes those of a project refused before an instant, and returns how many."""
        self._log = log
        self._archive = archive
        self._projects = projects
        self._policy = policy
        self._expire_dead_letters = expire_dead_letters
        self._clock = clock
        self._every_seconds = every_seconds

    async def run(self) -> None:
        """Trims for ever. A project that fails is tried again; the others do not wait for it."""
        while True:
            try:
                for project in await self._projects():
                    await self._try(project)
            except InklingError as error:
                _LOGGER.warning("retention cannot see the projects: %s", error.message)
            await asyncio.sleep(self._every_seconds)

    async def _try(self, project: str) -> None:
        try:
            released = await self.apply(project)
        except InklingError as error:
            _LOGGER.warning("a project could not be trimmed now: %s", error.message)
        except Exception:
            _LOGGER.exception("a project could not be trimmed")
        else:
            if released != Released(Trimmed(0, 0, 0), 0, 0):
                _LOGGER.info(
                    "trimmed %d events, %d archive files, %d dead letters",
                    released.log.count,
                    released.archive_files,
                    released.dead_letters,
                )

    async def apply(self, project: str) -> Released:
        """Trims one project now."""
        policy = await self._policy(project)
        now_us = self._clock.now_us()
        before_us = oldest_kept_us(policy, now_us, (await self._log.stats(project)).max_occurred_us)
        trimmed, files = Trimmed(0, 0, 0), 0
        if before_us is not None:
            # The archive first learns the ids of what goes, or a repetition of it would count as new.
            await self._archive.settle(project)
            files = await self._archive.trim(project, before_us)
            trimmed = await self._log.trim(project, before_us)
        # Dead letters are as old as their refusal, which the wall's time says.
        letters = 0
        if policy.retention_us is not None:
            letters = await self._expire_dead_letters(project, now_us - policy.retention_us)
        return Released(trimmed, files, letters)
