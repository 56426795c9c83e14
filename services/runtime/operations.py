"""Long-running operations (AIP 151): work that goes on after the call that started it, and survives restarts.

    async with OperationRunner.open(database, owner="features-0", domain="features.inkling",
                                    resumers={"publish": resume_publish}) as runner:
        operation = await runner.start("publish", caller.project, PublishMetadata(...), work)

What an operation needs to go on after a restart must be in its metadata: that is all its resumer gets. Each running
operation is leased to its owner, which renews the lease. When an owner starts again it takes up at once what it left;
what other owners left is taken up by anyone when the lease has run out. Owners must be distinct and should be stable
(the pod's name).
"""

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from google.longrunning import operations_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from services.runtime.calls import CALL
from services.runtime.clocks import Clock, SystemClock
from services.runtime.database import Database
from services.runtime.errors import Aborted, Cancelled, InklingError, Internal, Unavailable
from services.runtime.operation_store import MIGRATIONS, OperationStore, StoredOperation, parse_name
from services.runtime.statuses import status_of

__all__ = ["MIGRATIONS", "OperationRunner", "Progress", "Resumer", "Work"]

Progress = Callable[[Message], Awaitable[None]]
"""`await progress(metadata)` says how far it is. Stored at most twice a second, so call it as often as you like."""
Work = Callable[[Progress], Awaitable[Message]]
"""Returns the operation's response. An InklingError that it raises becomes the operation's error; it is cancelled like
any task."""
Resumer = Callable[[operations_pb2.Operation, str, Progress], Awaitable[Message]]
"""Goes on with an interrupted operation: (the operation with its last metadata, project, progress) to response."""

_LOGGER = logging.getLogger(__name__)
_LEASE_SECONDS = 15.0
_HEARTBEATS_A_LEASE = 5
_PROGRESS_SECONDS = 0.5
_POLL_SECONDS = 0.5
_RETENTION_SECONDS = 30 * 24 * 3600


@dataclass(eq=False)
class _Running:
    """An operation that runs in this process."""

    stored: StoredOperation
    metadata: bytes
    written_at: float = 0.0
    begun: bool = False
    """The task has taken its first step: before that, cancelling it would leave nobody to store the end."""
    cancelled: bool = False
    settling: bool = False
    """The work has ended and its result is being stored: too late to cancel."""
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        if self.task is not None and not (self.cancelled or self.settling):
            self.cancelled = True
            if self.begun:
                self.task.cancel()


class OperationRunner:
    """Runs work in this process and keeps what becomes of it in SQL."""

    def __init__(
        self,
        store: OperationStore,
        owner: str,
        domain: str,
        resumers: Mapping[str, Resumer],
        clock: Clock,
        lease_seconds: float,
    ) -> None:
        self.store = store
        self.domain = domain
        """The domain of the errors of operations."""
        self._owner = owner
        self._resumers = resumers
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._running: dict[str, _Running] = {}
        self._closing = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        database: Database,
        *,
        owner: str,
        domain: str = "inkling",
        resumers: Mapping[str, Resumer] | None = None,
        clock: Clock | None = None,
        lease_seconds: float = _LEASE_SECONDS,
    ) -> AsyncIterator["OperationRunner"]:
        """Opens the runner over a database that has `MIGRATIONS`.

        What `owner` left unfinished is resumed by the resumer of its kind, or else failed with reason INTERRUPTED. On
        exit running work is cancelled and left unfinished: the next start goes on with it.
        """
        runner = cls(OperationStore(database), owner, domain, resumers or {}, clock or SystemClock(), lease_seconds)
        now_us = runner._clock.now_us()
        await runner.store.delete_finished_before(now_us - _RETENTION_SECONDS * 1_000_000)
        await runner._adopt(left_by=owner)
        heart = asyncio.create_task(runner._beat())
        try:
            yield runner
        finally:
            heart.cancel()
            await asyncio.wait((heart,))
            await runner._close()

    async def start(self, kind: str, project: str, metadata: Message, work: Work) -> operations_pb2.Operation:
        """Stores the operation, then starts the work; returns at once. Raises Unavailable."""
        if self._closing:
            raise Unavailable("the server is going away", reason="DRAINING")
        now_us = self._clock.now_us()
        stored = await self.store.insert(project, kind, _pack(metadata), self._owner, now_us, self._lease_until_us())
        self._launch(stored, work)
        return stored.to_proto()

    async def get(self, project: str, name: str) -> operations_pb2.Operation:
        """The operation `operations/{id}` as it is now; raises NotFound."""
        return (await self.store.get(project, parse_name(name))).to_proto()

    async def wait(self, project: str, name: str, timeout_seconds: float | None) -> operations_pb2.Operation:
        """The operation when it is done, or as it is after the timeout; raises NotFound."""
        operation_id = parse_name(name)
        stored = await self.store.get(project, operation_id)
        try:
            async with asyncio.timeout(timeout_seconds):
                while not stored.done:
                    running = self._running.get(operation_id)
                    if running is not None:
                        await running.finished.wait()
                    else:
                        await asyncio.sleep(_POLL_SECONDS)
                    stored = await self.store.get(project, operation_id)
        except TimeoutError:
            stored = await self.store.get(project, operation_id)
        return stored.to_proto()

    async def cancel(self, project: str, name: str) -> None:
        """Asks for the end of an operation, wherever it runs; nothing happens when it is done. Raises NotFound."""
        stored = await self.store.request_cancel(project, parse_name(name))
        running = self._running.get(stored.id)
        if running is not None:
            running.cancel()

    async def delete(self, project: str, name: str) -> None:
        """Forgets a finished operation; raises NotFound, and FailedPrecondition while it runs."""
        await self.store.delete(project, parse_name(name))

    def _launch(self, stored: StoredOperation, work: Work) -> None:
        running = _Running(stored, stored.metadata)
        self._running[stored.id] = running
        # The caller stays known; the call that started the work ends long before it.
        context = contextvars.copy_context()
        context.run(CALL.set, None)
        running.task = asyncio.create_task(self._run(running, work), context=context)

    async def _run(self, running: _Running, work: Work) -> None:
        stored = running.stored

        async def progress(metadata: Message) -> None:
            running.metadata = _pack(metadata)
            now = asyncio.get_running_loop().time()
            if now - running.written_at < _PROGRESS_SECONDS:
                return
            running.written_at = now
            if await _unbroken(self.store.write_metadata(stored, running.metadata, self._clock.now_us())):
                running.cancelled = True
                raise asyncio.CancelledError

        try:
            try:
                running.begun = True
                if running.cancelled:
                    raise asyncio.CancelledError
                response = await work(progress)
            except asyncio.CancelledError:
                if self._closing and not running.cancelled:
                    return
                await self._fail(running, Cancelled("the operation was cancelled", reason="CANCELLED"))
            except InklingError as error:
                if isinstance(error, Internal):
                    _LOGGER.error("broken invariant in %s", stored.name, exc_info=error)
                await self._fail(running, error)
            except Exception as error:
                _LOGGER.error("unexpected error in %s", stored.name, exc_info=error)
                await self._fail(running, Internal("unexpected error"))
            else:
                await self._finish(running, response=_pack(response))
        finally:
            del self._running[stored.id]
            running.finished.set()

    async def _fail(self, running: _Running, error: InklingError) -> None:
        status = status_of(error, self.domain, running.stored.name if isinstance(error, Internal) else "")
        await self._finish(running, error=status.SerializeToString())

    async def _finish(self, running: _Running, response: bytes | None = None, error: bytes | None = None) -> None:
        """Stores the result; goes on trying while the database is away. A restart meanwhile does the work again."""
        running.settling = True
        while True:
            try:
                await self.store.finish(
                    running.stored, running.metadata, self._clock.now_us(), response=response, error=error
                )
                return
            except (Unavailable, Aborted) as failure:
                _LOGGER.warning("cannot store the result of %s: %s", running.stored.name, failure.message)
                await asyncio.sleep(_POLL_SECONDS)

    async def _adopt(self, left_by: str | None = None) -> None:
        for orphan in await self.store.orphans(self._clock.now_us(), left_by):
            if orphan.id in self._running or not await self.store.claim(orphan, self._owner, self._lease_until_us()):
                continue
            _LOGGER.info("taking up %s", orphan.name, extra={"fields": {"kind": orphan.kind}})
            self._launch(orphan, self._continuation(orphan))

    def _continuation(self, orphan: StoredOperation) -> Work:
        resumer = self._resumers.get(orphan.kind)

        async def work(progress: Progress) -> Message:
            if orphan.cancel_requested:
                raise Cancelled("the operation was cancelled", reason="CANCELLED")
            if resumer is None:
                raise Aborted("the server that ran the operation ended: start it again", reason="INTERRUPTED")
            return await resumer(orphan.to_proto(), orphan.project, progress)

        return work

    async def _beat(self) -> None:
        """Renews the leases, hears of cancellations made elsewhere, and takes up what others left."""
        while True:
            await asyncio.sleep(self._lease_seconds / _HEARTBEATS_A_LEASE)
            try:
                if self._running:
                    for cancelled in await self.store.renew(self._owner, list(self._running), self._lease_until_us()):
                        running = self._running.get(cancelled)
                        if running is not None:
                            running.cancel()
                await self._adopt()
            except InklingError as error:
                _LOGGER.warning("cannot renew the leases of operations: %s", error.message)

    async def _close(self) -> None:
        self._closing = True
        left = list(self._running)
        tasks = [running.task for running in self._running.values() if running.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
            try:
                await self.store.release(self._owner, left)
            except InklingError as error:
                _LOGGER.warning("cannot release operations: %s", error.message)

    def _lease_until_us(self) -> int:
        return self._clock.now_us() + round(self._lease_seconds * 1_000_000)


async def _unbroken(write: Coroutine[Any, Any, bool]) -> bool:
    """Awaits a write to its end, also when it is cancelled meanwhile; the cancellation goes on after it.

    A transaction that is cut off may hold SQLite's lock until its connection is collected.
    """
    writing = asyncio.ensure_future(write)
    try:
        return await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait((writing,))
        # Whether it failed does not matter any more.
        if not writing.cancelled():
            writing.exception()
        raise


def _pack(message: Message) -> bytes:
    packed = AnyMessage()
    packed.Pack(message)
    return packed.SerializeToString()
