"""The newest part of every project's log in memory: the heads, the last batches, and those who wait for more.

Subscribers that keep up are served from here, without the database: an append wakes them in the same turn of the event
loop, and they find the very bytes that were written. Used from one event loop only.
"""

import asyncio
from collections import deque

from services.ingest.log.base import LogBatch, log_unavailable


class Tail:
    """Holds at most `capacity_bytes` of batches over all projects; the oldest leave first."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._bytes = 0
        self._heads: dict[str, int] = {}
        self._batches: dict[str, deque[LogBatch]] = {}
        self._order: deque[tuple[str, LogBatch]] = deque()
        self._wakers: dict[str, asyncio.Future[None]] = {}
        self._closed = False

    def push(self, project: str, batch: LogBatch) -> None:
        """Takes in a batch that is durable, and wakes those who wait for it."""
        batches = self._batches.setdefault(project, deque())
        if batches and batches[-1].last_position + 1 != batch.first_position:
            # Another process wrote in between: what is held must stay without a gap.
            batches.clear()
        batches.append(batch)
        self._order.append((project, batch))
        self._bytes += len(batch.data)
        while self._bytes > self._capacity:
            self._evict()
        self.advance(project, batch.last_position)

    def _evict(self) -> None:
        project, batch = self._order.popleft()
        self._bytes -= len(batch.data)
        batches = self._batches.get(project)
        if batches and batches[0] is batch:
            batches.popleft()
            if not batches:
                del self._batches[project]

    def forget(self, project: str) -> None:
        """Drops the batches of a project: something in its log was removed or replaced."""
        if self._batches.pop(project, None) is not None:
            self._order = deque(each for each in self._order if each[0] != project)
            self._bytes = sum(len(batch.data) for _, batch in self._order)

    def forget_all(self) -> None:
        """Drops the batches of all projects: news of them may have been missed."""
        self._batches.clear()
        self._order.clear()
        self._bytes = 0

    def head(self, project: str) -> int | None:
        """The newest position known here."""
        return self._heads.get(project)

    def advance(self, project: str, head: int) -> None:
        """Notes a head, from wherever it is known, and wakes those who wait for it."""
        if head > self._heads.get(project, 0):
            self._heads[project] = head
            waker = self._wakers.pop(project, None)
            if waker is not None and not waker.done():
                waker.set_result(None)

    def read(self, project: str, after_position: int, max_bytes: int) -> list[LogBatch] | None:
        """As `EventLog.read`, or None when the answer is not here."""
        batches = self._batches.get(project)
        if not batches or not batches[0].first_position <= after_position + 1 <= batches[-1].last_position:
            return None
        found: deque[LogBatch] = deque()
        for batch in reversed(batches):
            if batch.last_position <= after_position:
                break
            found.appendleft(batch)
        return up_to(found, max_bytes)

    def waiting(self) -> list[str]:
        """The projects for which somebody waits."""
        return [project for project, waker in self._wakers.items() if not waker.done()]

    async def wait(self, project: str, after_position: int) -> int:
        """Returns the head once it is beyond a position. Raises Unavailable when closed."""
        while self._heads.get(project, 0) <= after_position:
            if self._closed:
                raise log_unavailable("the log is closing: connect again")
            waker = self._wakers.get(project)
            if waker is None or waker.done():
                waker = self._wakers[project] = asyncio.get_running_loop().create_future()
            # Shared by all who wait: one who gives up must not cancel it for the others.
            await asyncio.wait([waker])
        return self._heads[project]

    def close(self) -> None:
        """Wakes everybody who waits, with Unavailable."""
        self._closed = True
        for waker in self._wakers.values():
            if not waker.done():
                waker.set_result(None)
        self._wakers.clear()


def up_to(batches: "deque[LogBatch]", max_bytes: int) -> list[LogBatch]:
    """The first of some batches within a number of bytes, at least one."""
    taken: list[LogBatch] = []
    total = 0
    for batch in batches:
        total += len(batch.data)
        if taken and total > max_bytes:
            break
        taken.append(batch)
    return taken
