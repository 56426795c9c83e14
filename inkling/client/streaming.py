"""Sends batches over one stream and survives its breaks: what was not acknowledged is sent again, in order."""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Generic, Protocol, TypeVar

import grpc

from inkling.client.transport import RetryPolicy
from inkling.errors import Internal, Unavailable, from_rpc_error
from inkling.events import CustomerEvent
from inkling.ingest.v1 import event_pb2, ingest_service_pb2

StreamRequest = ingest_service_pb2.IngestStreamRequest


class Numbered(Protocol):
    """A message of a stream with acknowledgements."""

    @property
    def sequence(self) -> int:
        """The client's number."""
        ...


Q = TypeVar("Q", bound=Numbered)
A = TypeVar("A", bound=Numbered)
R = TypeVar("R")

MAX_BATCH_BYTES = 8 << 20


async def in_batches(
    events: Iterable[CustomerEvent] | AsyncIterable[CustomerEvent], size: int
) -> AsyncIterator[list[CustomerEvent]]:
    """Lists of at most `size` events. A plain iterable is read in a thread: it may wait for a disk or a queue."""
    if isinstance(events, AsyncIterable):
        batch: list[CustomerEvent] = []
        async for event in events:
            batch.append(event)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch
        return
    iterator = iter(events)
    while taken := await asyncio.to_thread(lambda: list(itertools.islice(iterator, size))):
        yield taken


async def numbered(batches: AsyncIterator[list[CustomerEvent]]) -> AsyncIterator[StreamRequest]:
    """Requests with rising sequence numbers from 1; a batch over 8 MiB is cut in two, again and again."""
    sequence = itertools.count(1)
    async for batch in batches:
        for part in cut([event.to_message() for event in batch]):
            yield StreamRequest(sequence=next(sequence), events=part.events)


def cut(messages: list[event_pb2.Event]) -> Iterable[ingest_service_pb2.IngestRequest]:
    """Requests of at most 8 MiB with the events in order; a single event above that goes alone, to be refused."""
    request = ingest_service_pb2.IngestRequest(events=messages)
    if len(messages) <= 1 or request.ByteSize() <= MAX_BATCH_BYTES:
        yield request
        return
    middle = len(messages) // 2
    yield from cut(messages[:middle])
    yield from cut(messages[middle:])


class ResumingStream(Generic[Q, A, R]):
    """One logical stream of numbered requests over as many real ones as it takes.

    A producer fills a queue from the source; each connection first repeats what was not acknowledged, then goes on from
    the queue. `window` bounds the batches that wait for an acknowledgement.
    """

    def __init__(
        self,
        open_stream: "Callable[[], grpc.aio.StreamStreamCall[Q, A]]",
        retry: RetryPolicy,
        window: int,
        read: Callable[[Q, A], R],
    ) -> None:
        """`read` makes the result from a request and its acknowledgement."""
        self._open = open_stream
        self._read = read
        self._retry = retry
        self._window = asyncio.Semaphore(window)
        self._queue: asyncio.Queue[Q | None] = asyncio.Queue()
        self._unacknowledged: deque[Q] = deque()
        self._exhausted = False

    async def run(self, requests: AsyncIterator[Q]) -> AsyncIterator[R]:
        """Sends all requests and yields their acknowledgements. Raises an InklingError when retries do not help.

        An error of the source is raised once what it gave before is acknowledged.
        """
        producer = asyncio.create_task(self._produce(requests))
        attempt = 0
        try:
            while True:
                call = self._open()
                writer = asyncio.create_task(self._write(call))
                try:
                    async for response in call:
                        attempt = 0
                        yield self._acknowledge(response)
                    if self._exhausted and not self._unacknowledged:
                        await producer
                        return
                    raise Unavailable("the service ended the stream before it had acknowledged everything")
                except (grpc.RpcError, Unavailable) as failed:
                    error = failed if isinstance(failed, Unavailable) else from_rpc_error(failed)
                    attempt += 1
                    if not self._retry.retries(attempt, error):
                        raise error from failed
                    delay = self._retry.delay(attempt, error)
                finally:
                    # Ended before the next connection begins: two writers would take turns at the queue.
                    call.cancel()
                    await ended(writer)
                await asyncio.sleep(delay)
        finally:
            await ended(producer)

    async def _produce(self, requests: AsyncIterator[Q]) -> None:
        try:
            async for request in requests:
                await self._window.acquire()
                self._queue.put_nowait(request)
        finally:
            self._queue.put_nowait(None)

    async def _write(self, call: "grpc.aio.StreamStreamCall[Q, A]") -> None:
        # A call that ends while something is written tells why to its reader.
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            for request in list(self._unacknowledged):
                await call.write(request)
            while not self._exhausted:
                following = await self._queue.get()
                if following is None:
                    self._exhausted = True
                else:
                    self._unacknowledged.append(following)
                    await call.write(following)
            await call.done_writing()

    def _acknowledge(self, response: A) -> R:
        request = self._unacknowledged.popleft()
        if request.sequence != response.sequence:
            raise Internal(f"the service acknowledged batch {response.sequence}, expected {request.sequence}")
        self._window.release()
        return self._read(request, response)


async def ended(task: asyncio.Task[None]) -> None:
    """Cancels a task and waits for its end; what it raised is of no interest any more."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
