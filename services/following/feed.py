"""The log as a service sees it: ingest's Subscribe, followed with reconnection."""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

import grpc.aio

from inkling.ingest.v1 import ingest_service_pb2, project_pb2
from inkling.ingest.v1.ingest_service_pb2_grpc import IngestServiceStub
from services.kernel.columns import EventBatch
from services.kernel.fold import DAY_US, ClockKind

_LOGGER = logging.getLogger(__name__)
FIRST_DELAY_SECONDS, MAX_DELAY_SECONDS = 0.05, 5.0


class PositionLostError(Exception):
    """The log does not have the position asked for: it was trimmed away, or the log is another one."""


class FeedUnavailableError(Exception):
    """The log cannot be read now."""


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How a project's log is to be evaluated."""

    clock: ClockKind = "wall"
    horizon_us: int = 7 * DAY_US


@dataclass(frozen=True, slots=True)
class Part:
    """Some consecutive records of the log, or only news of where it stands."""

    settings: LogSettings | None
    """In the first part of a stream, and when they change."""
    first_position: int
    last_position: int
    """0 when the part carries no records."""
    data: bytes
    """The records as one Arrow IPC stream; empty when a filter left none."""
    head_position: int
    complete_since_us: int | None
    """The event time before which the log may have been trimmed."""

    def batch(self) -> EventBatch | None:
        """The records, decoded."""
        return EventBatch.from_ipc(self.data) if self.data else None


class Feed(Protocol):
    """A source of parts of the logs."""

    def follow(
        self, project: str, after_position: int, max_bytes: int, *, stop_at_head: bool = False
    ) -> AsyncGenerator[Part, None]:
        """The parts after a position, in order, without end unless `stop_at_head`.

        Raises FeedUnavailableError when the stream breaks, PositionLostError.
        """
        ...


class IngestFeed:
    """The feed that ingest serves, to the consumer of a name: its progress is measured under it."""

    def __init__(self, channel: grpc.aio.Channel, consumer: str, compression: str = "none") -> None:
        self._stub = IngestServiceStub(channel)
        self._consumer = consumer
        self._compression = ingest_service_pb2.Compression.Value(f"COMPRESSION_{compression.upper()}")

    async def follow(
        self, project: str, after_position: int, max_bytes: int, *, stop_at_head: bool = False
    ) -> AsyncGenerator[Part, None]:
        """See Feed."""
        request = ingest_service_pb2.SubscribeRequest(
            consumer=self._consumer,
            after_position=after_position,
            max_bytes=max_bytes,
            stop_at_head=stop_at_head,
            compression=self._compression,
        )
        call = self._stub.Subscribe(request, metadata=(("x-inkling-project", project),))
        try:
            async for message in call:
                yield _part(message)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.OUT_OF_RANGE:
                raise PositionLostError(f"position {after_position} of the log is gone") from error
            raise FeedUnavailableError(f"the log stream ended: {error.code().name}") from error
        finally:
            call.cancel()


def _part(message: ingest_service_pb2.SubscribeResponse) -> Part:
    settings = None
    if message.HasField("settings"):
        horizon = message.settings.deduplication_horizon
        settings = LogSettings(
            clock="log" if message.settings.clock == project_pb2.CLOCK_LOG else "wall",
            horizon_us=horizon.seconds * 1_000_000 + horizon.nanos // 1_000 or 7 * DAY_US,
        )
    since = message.complete_since_time
    return Part(
        settings=settings,
        first_position=message.first_position,
        last_position=message.last_position,
        data=message.record_batch,
        head_position=message.head_position,
        complete_since_us=since.seconds * 1_000_000 + since.nanos // 1_000
        if message.HasField("complete_since_time")
        else None,
    )


class Backoff:
    """Waits longer after each failure, with jitter, and starts anew after a success."""

    def __init__(self) -> None:
        self._delay = FIRST_DELAY_SECONDS

    def reset(self) -> None:
        """Things work again."""
        self._delay = FIRST_DELAY_SECONDS

    async def wait(self, what: str, project: str, error: Exception) -> None:
        """Logs the failure, then waits."""
        _LOGGER.warning("%s: %s", what, error, extra={"fields": {"project": project, "delay": round(self._delay, 2)}})
        await asyncio.sleep(self._delay * random.uniform(0.5, 1.0))
        self._delay = min(2 * self._delay, MAX_DELAY_SECONDS)


async def follow_steadily(feed: Feed, project: str, position: "Position", max_bytes: int) -> AsyncGenerator[Part, None]:
    """Follows a log without end, connecting again after a break where `position` stands then."""
    backoff = Backoff()
    while True:
        try:
            async with aclosing(feed.follow(project, position.position, max_bytes)) as parts:
                async for part in parts:
                    yield part
                    backoff.reset()
            raise FeedUnavailableError("the log stream ended by itself")
        except FeedUnavailableError as error:
            await backoff.wait("cannot follow the log", project, error)


class Position(Protocol):
    """Something that stands at a position of the log."""

    @property
    def position(self) -> int:
        """The position of the last record applied."""
        ...
