"""Collects events into batches behind the caller's back, bounded in size, time and memory."""

import asyncio
import concurrent.futures
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from inkling.errors import ClientClosed, InklingError
from inkling.events import CustomerEvent, IngestResult, Receipt
from inkling.ingest.v1 import event_pb2

Deliver = Callable[[Sequence[event_pb2.Event]], Awaitable[IngestResult]]


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How `send` collects events.

    A batch leaves when it has `max_events` events or `max_bytes` bytes, or when its first event is `max_delay` old.
    At most `max_in_flight` batches travel at once, and at most `max_buffered` events wait or travel: then `send` waits.
    """

    max_events: int = 1_000
    max_bytes: int = 4 << 20
    max_delay: timedelta = timedelta(milliseconds=50)
    max_in_flight: int = 4
    max_buffered: int = 20_000

    def __post_init__(self) -> None:
        if not 1 <= self.max_events <= 10_000:
            raise ValueError(f"max_events is from 1 to 10,000, not {self.max_events}")
        if not 1 <= self.max_bytes <= 8 << 20:
            raise ValueError(f"max_bytes is from 1 to 8 MiB, not {self.max_bytes}")
        if self.max_in_flight < 1 or self.max_buffered < 1:
            raise ValueError("max_in_flight and max_buffered are at least 1")


class Delivery:
    """What becomes of one sent event. Await it, or ask `result` from a script; nobody has to."""

    __slots__ = ("_future", "event_id")

    def __init__(self, event_id: str) -> None:
        self.event_id = event_id
        # Not an asyncio future: scripts wait from another thread, and an outcome that nobody reads is no warning.
        self._future: concurrent.futures.Future[Receipt] = concurrent.futures.Future()

    def __await__(self) -> Generator[None, None, Receipt]:
        return asyncio.wrap_future(self._future).__await__()

    def result(self, timeout: float | None = None) -> Receipt:
        """Waits, from a thread that runs no loop.

        EventRejected when the event was refused, another InklingError when it could not be delivered.
        """
        return self._future.result(timeout)

    def done(self) -> bool:
        """Whether it is known what became of the event."""
        return self._future.done()

    def settle(self, outcome: Receipt | InklingError) -> None:
        """Tells the outcome, once."""
        if not self._future.set_running_or_notify_cancel():
            return
        if isinstance(outcome, Receipt):
            self._future.set_result(outcome)
        else:
            self._future.set_exception(outcome)


@dataclass(slots=True)
class Waiting:
    """One event in the buffer: its number in the order of sending, its size in bytes, the loop time of its arrival."""

    number: int
    message: event_pb2.Event
    delivery: Delivery
    size: int
    arrived: float


class Batcher:
    """The buffer between `send` and the service. Its workers start with the first event and end with `close`."""

    def __init__(self, deliver: Deliver, options: BatchOptions) -> None:
        self._deliver = deliver
        self._options = options
        self._waiting: deque[Waiting] = deque()
        self._waiting_bytes = 0
        # Sent and not settled, by number; a dict keeps its order, so that its first key is the oldest.
        self._unsettled: dict[int, Delivery] = {}
        self._sent = 0
        self._hurried = 0
        self._changed = asyncio.Condition()
        self._assembling = asyncio.Lock()
        self._workers: list[asyncio.Task[None]] = []
        self._summary = IngestResult()
        self._failure: InklingError | None = None
        self._closed = False

    async def send(self, event: CustomerEvent) -> Delivery:
        """Puts an event into the buffer; waits while the buffer is full. ClientClosed after `close`."""
        message = event.to_message()
        if len(self._unsettled) >= self._options.max_buffered:
            async with self._changed:
                await self._changed.wait_for(lambda: len(self._unsettled) < self._options.max_buffered or self._closed)
        if self._closed:
            raise ClientClosed("the client is closed")
        if not self._workers:
            self._workers = [asyncio.create_task(self._work()) for _ in range(self._options.max_in_flight)]
        self._sent += 1
        arrived = asyncio.get_running_loop().time()
        item = Waiting(self._sent, message, Delivery(event.event_id), message.ByteSize(), arrived)
        self._unsettled[item.number] = item.delivery
        self._waiting.append(item)
        self._waiting_bytes += item.size
        if len(self._waiting) == 1 or self._full():
            await self._tell()
        return item.delivery

    async def flush(self) -> IngestResult:
        """Sends what waits and waits until everything sent so far is settled.

        Returns what became of the events since the last flush, the refused ones among it. Raises the first failure to
        deliver since then.
        """
        mark = self._hurried = self._sent
        async with self._changed:
            self._changed.notify_all()
            await self._changed.wait_for(lambda: next(iter(self._unsettled), mark + 1) > mark)
        summary, self._summary = self._summary, IngestResult()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        return summary

    async def close(self) -> IngestResult:
        """Flushes, then ends the workers. Later events are refused."""
        self._closed = True
        try:
            return await self.flush()
        finally:
            for worker in self._workers:
                worker.cancel()
            await asyncio.gather(*self._workers, return_exceptions=True)

    def _full(self) -> bool:
        return len(self._waiting) >= self._options.max_events or self._waiting_bytes >= self._options.max_bytes

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _work(self) -> None:
        while True:
            # One worker at a time assembles, so that small batches do not form side by side.
            async with self._assembling:
                batch = await self._next_batch()
            await self._send_batch(batch)

    async def _next_batch(self) -> list[Waiting]:
        loop = asyncio.get_running_loop()
        async with self._changed:
            while True:
                left: float | None = None
                if self._waiting:
                    first = self._waiting[0]
                    left = first.arrived + self._options.max_delay.total_seconds() - loop.time()
                    if self._full() or first.number <= self._hurried or left <= 0:
                        return self._take()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), left)

    def _take(self) -> list[Waiting]:
        batch: list[Waiting] = []
        size = 0
        while self._waiting and len(batch) < self._options.max_events:
            if batch and size + self._waiting[0].size > self._options.max_bytes:
                break
            item = self._waiting.popleft()
            size += item.size
            batch.append(item)
        self._waiting_bytes -= size
        return batch

    async def _send_batch(self, batch: list[Waiting]) -> None:
        try:
            result = await self._deliver([item.message for item in batch])
        except InklingError as error:
            self._failure = self._failure or error
            self._settle(batch, error)
        except asyncio.CancelledError:
            self._settle(batch, ClientClosed("the client was closed before the event was delivered"))
            raise
        else:
            self._summary += result
            self._settle(batch, result)
        await self._tell()

    def _settle(self, batch: list[Waiting], outcome: IngestResult | InklingError) -> None:
        refused = {each.event_id: each for each in outcome.rejected} if isinstance(outcome, IngestResult) else {}
        for item in batch:
            delivery = self._unsettled.pop(item.number)
            if isinstance(outcome, InklingError):
                delivery.settle(outcome)
            elif delivery.event_id in refused:
                delivery.settle(refused[delivery.event_id].to_error())
            else:
                delivery.settle(Receipt(delivery.event_id, outcome.position))
