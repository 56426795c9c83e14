"""Follows the log: batches at the reader's pace, merged, filtered by shard, compressed as asked."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from services.ingest.log import EventLog, LogBatch
from services.ingest.projects import Projects, ProjectSettings
from services.kernel.columns import SHARDS, EventBatch, merge, shard_codes, to_ipc
from services.kernel.erasing import ERASED_TYPE, MARKER_TYPE, of_type
from services.runtime.errors import InvalidArgument, OutOfRange, Violation

DEFAULT_BYTES = 4 * 1024 * 1024
MAX_BYTES = 16 * 1024 * 1024
_LOOP_BYTES = 256 * 1024
"""More than this is worked on in a thread."""


@dataclass(frozen=True)
class Shards:
    """A contiguous range of virtual shards of one attribute key."""

    attribute_key: str
    first: int
    last: int


@dataclass(frozen=True)
class Subscription:
    """Where and how to follow."""

    after_position: int = 0
    shards: Shards | None = None
    compression: str | None = None
    """"lz4", "zstd" or None."""
    max_bytes: int = 0
    """Of one part, before compression; 0 is the default."""
    stop_at_head: bool = False

    def check(self) -> None:
        """Raises InvalidArgument with everything that is wrong."""
        wrong = []
        if self.after_position < 0:
            wrong.append(Violation("after_position", "must not be negative: 0 starts at the oldest event"))
        if not 0 <= self.max_bytes <= MAX_BYTES:
            wrong.append(Violation("max_bytes", f"is at most {MAX_BYTES}, or 0 for the default"))
        if self.shards is not None:
            if not self.shards.attribute_key:
                wrong.append(Violation("shards.attribute_key", "is required"))
            if not 0 <= self.shards.first <= self.shards.last < SHARDS:
                wrong.append(Violation("shards", f"first and last are from 0 to {SHARDS - 1}, in this order"))
        if wrong:
            raise InvalidArgument("the subscription is out of range", reason="OUT_OF_RANGE", violations=wrong)


@dataclass(frozen=True)
class LogPart:
    """A part of the log, or news of it only."""

    settings: ProjectSettings | None
    """In the first part, and when they changed."""
    first_position: int
    last_position: int
    """0 and 0: no events."""
    data: bytes
    """Arrow IPC; empty when no event is left after the filter."""
    head: int
    oldest: int
    complete_since_us: int | None


class Subscriptions:
    """Serves those who follow."""

    def __init__(self, log: EventLog, projects: Projects, executor: Executor, idle_seconds: float) -> None:
        """`idle_seconds`: how often an idle follower hears of the head."""
        self._log = log
        self._projects = projects
        self._executor = executor
        self._idle_seconds = idle_seconds

    async def follow(self, project: str, subscription: Subscription) -> AsyncIterator[LogPart]:
        """The log from a position, without end, or to the head of now. Raises OutOfRange for one beyond the head."""
        subscription.check()
        after = subscription.after_position
        head = await self._log.head(project)
        if after > head:
            raise OutOfRange(
                "the position is beyond the head of the log: was the log replaced?",
                reason="POSITION_OUT_OF_RANGE",
                metadata={"head": str(head)},
            )
        told = await self._projects.get(project)
        yield await self._part(project, told)
        stop_at = head if subscription.stop_at_head else None
        max_bytes = subscription.max_bytes or DEFAULT_BYTES
        while stop_at is None or after < stop_at:
            batches = await self._log.read(project, after, max_bytes)
            settings = await self._projects.get(project)
            news, told = (None if settings == told else settings), settings
            if not batches:
                if stop_at is not None:
                    return
                if news is not None or not await self._grows(project, after):
                    yield await self._part(project, news)
                continue
            data = await self._encode(batches, after, subscription)
            first, after = max(batches[0].first_position, after + 1), batches[-1].last_position
            yield await self._part(project, news, first, after, data)

    async def _grows(self, project: str, after: int) -> bool:
        """Waits for news of the log; False when there were none for a while."""
        try:
            async with asyncio.timeout(self._idle_seconds):
                await self._log.wait(project, after)
        except TimeoutError:
            return False
        return True

    async def _part(
        self, project: str, settings: ProjectSettings | None, first: int = 0, last: int = 0, data: bytes = b""
    ) -> LogPart:
        head, oldest = await self._log.head(project), await self._log.oldest(project)
        return LogPart(settings, first, last, data, head, oldest, await self._log.complete_since_us(project))

    async def _encode(self, batches: Sequence[LogBatch], after: int, subscription: Subscription) -> bytes:
        whole = len(batches) == 1 and batches[0].first_position > after
        if whole and subscription.shards is None and subscription.compression is None:
            return batches[0].data
        if sum(len(batch.data) for batch in batches) <= _LOOP_BYTES:
            return encode(batches, after, subscription)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, encode, batches, after, subscription)


def encode(batches: Sequence[LogBatch], after: int, subscription: Subscription) -> bytes:
    """Batches of the log as one, without what is applied already and without other shards; empty when none is left."""
    parts = [EventBatch.from_ipc(batch.data) for batch in batches]
    applied = after + 1 - batches[0].first_position
    if applied > 0:
        parts[0] = parts[0].slice(applied)
    if subscription.shards is not None:
        parts = [_of_shards(part, subscription.shards) for part in parts]
        parts = [part for part in parts if part.num_rows]
    if not parts:
        return b""
    return to_ipc(merge(parts).record_batch, subscription.compression)


def _of_shards(part: EventBatch, shards: Shards) -> EventBatch:
    codes = shard_codes(part, shards.attribute_key)
    # What an erasure writes has no key, and concerns the followers of every shard.
    everyones = of_type(part, ERASED_TYPE) | of_type(part, MARKER_TYPE)
    return part.take(everyones | ((codes >= shards.first) & (codes <= shards.last)))
