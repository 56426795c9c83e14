"""Where writes of properties go: ingest's log, as events of the suite's own vendor."""

from dataclasses import dataclass
from typing import Any, Protocol

import grpc.aio

from inkling.ingest.v1 import error_reason_pb2, ingest_service_pb2
from services.runtime.errors import InvalidArgument, ResourceExhausted, Unavailable

_METHOD = "/inkling.ingest.v1.IngestService/Ingest"
_TIMEOUT_SECONDS = 15.0
_PREFIX = "ERROR_REASON_"


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """An event that the log did not take: `reason` is one of ingest's, without its prefix."""

    index: int
    reason: str
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a request: the position of its last accepted event, 0 when none was."""

    position: int
    accepted: int
    refused: tuple[RefusedEvent, ...] = ()


class EventSink(Protocol):
    """Takes events durably."""

    async def append(self, project: str, request: bytes) -> Stored:
        """Appends an encoded IngestRequest. Raises Unavailable, ResourceExhausted, InvalidArgument."""
        ...


class IngestSink:
    """The sink that ingest serves."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call: Any = channel.unary_unary(
            _METHOD, response_deserializer=ingest_service_pb2.IngestResponse.FromString
        )

    async def append(self, project: str, request: bytes) -> Stored:
        """See EventSink."""
        try:
            response = await self._call(request, metadata=(("x-inkling-project", project),), timeout=_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise ResourceExhausted("too much is waiting to be stored: send it again") from error
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise InvalidArgument("the writes are too large: send smaller chunks", reason="OUT_OF_RANGE") from error
            raise Unavailable("the log cannot be written now", reason="NOT_READY") from error
        return Stored(
            response.position,
            response.accepted_count,
            tuple(
                RefusedEvent(
                    each.index,
                    error_reason_pb2.ErrorReason.Name(each.reason).removeprefix(_PREFIX),
                    each.field.partition("].")[2],
                    each.message,
                )
                for each in response.rejected
            ),
        )


class NoSink:
    """Where there is no log to write to."""

    async def append(self, project: str, request: bytes) -> Stored:
        """Raises Unavailable."""
        raise Unavailable("this server has no log to write to", reason="NOT_READY")
