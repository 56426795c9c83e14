"""The change journal: a durable, ordered, bounded record of what changed for whom.

    journal = ChangeJournal(JournalStore(database), clock)
    await journal.append("shop", [Change("vips", "4711", "entered", now_us, position)])
    page = await journal.read("shop", ["vips"], after=0, limit=100)

Sequences rise strictly within a project. Whoever delivers only what is journaled, and remembers the sequence that it
has delivered, gives each change once, also across crashes. Each project has one writer, in one process; readers in
other processes look again after a timeout, those in the writer's are woken.
"""

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from services.runtime.clocks import Clock
from services.runtime.errors import OutOfRange, Violation
from services.runtime.journal_store import MIGRATIONS, Change, Entry, Extent, JournalStore

__all__ = ["MIGRATIONS", "Change", "ChangeJournal", "Entry", "Extent", "JournalStore", "Page"]

TOKEN_EXPIRED = "TOKEN_EXPIRED"
"""The reason of the refusal of a place that the journal does not hold any more."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries, and how far the journal was read for them."""

    entries: tuple[Entry, ...]
    reached: int
    """Go on after this sequence: entries of other streams lie between."""
    newest: int

    @property
    def complete(self) -> bool:
        """Whether nothing more was there."""
        return self.reached >= self.newest


class ChangeJournal:
    """The journals of all projects of a service."""

    def __init__(self, store: JournalStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._newest: dict[str, int] = {}
        """The last sequences that this process has written."""
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}

    async def append(self, project: str, changes: Sequence[Change]) -> int:
        """Makes changes durable, all or none; returns the sequence of the last, or the newest when there is none.

        Raises Unavailable when the database is; nothing is written then.
        """
        if not changes:
            return (await self._store.extent(project)).newest
        last = await self._store.append(project, changes, self._clock.now_us())
        self._newest[project] = max(last, self._newest.get(project, 0))
        for waiter in self._waiters.pop(project, set()):
            if not waiter.done():
                waiter.set_result(None)
        return last

    async def read(self, project: str, streams: Collection[str], after: int, limit: int) -> Page:
        """At most `limit` entries of the streams after a sequence, in their order.

        Raises OutOfRange, reason TOKEN_EXPIRED, when entries after it were trimmed away, or the journal is another.
        """
        extent, entries = await self._store.read(project, streams, after, limit)
        if not extent.trimmed <= after <= extent.newest:
            hint = "start anew, without a token and with the present state"
            raise OutOfRange(
                f"the changes after this place are not kept any more: {hint}",
                reason=TOKEN_EXPIRED,
                violations=(Violation("resume_token", hint, TOKEN_EXPIRED),),
            )
        reached = entries[-1].sequence if len(entries) == limit else extent.newest
        return Page(tuple(entries), reached, extent.newest)

    async def before_position(self, project: str, position: int) -> int:
        """The sequence after which the entries are that were written once a position was applied; they may be gone."""
        return await self._store.before_position(project, position)

    async def streams_of(self, project: str, key_value: str) -> list[str]:
        """The streams that have an entry of a key."""
        return await self._store.streams_of(project, key_value)

    async def newest(self, project: str) -> int:
        """The sequence of the last entry ever written; 0 when there is none."""
        return (await self._store.extent(project)).newest

    async def oldest(self, project: str) -> int:
        """The least sequence that may be kept: entries before it were trimmed away."""
        return (await self._store.extent(project)).trimmed + 1

    async def wait(self, project: str, after: int, timeout_seconds: float) -> None:
        """Returns once this process has written something after a sequence, or after the timeout."""
        if self._newest.get(project, 0) > after:
            return
        waiter = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(project, set())
        waiters.add(waiter)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    await waiter
        finally:
            waiters.discard(waiter)

    async def trim(self, project: str, *, max_age_us: int, keep: int) -> int:
        """Deletes entries older than `max_age_us` and all but the newest `keep`; returns the last sequence deleted."""
        return await self._store.trim(project, self._clock.now_us() - max_age_us, keep)

    async def forget(self, project: str, key_value: str, streams: Collection[str]) -> int:
        """Deletes the entries of a key in some streams (an erasure); returns how many. The others' sequences stay."""
        return await self._store.forget(project, key_value, streams)
