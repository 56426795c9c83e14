"""Looks after refused events."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from inkling.client.transport import Transport
from inkling.events import CustomerEvent
from inkling.ingest.v1 import dead_letter_service_pb2
from inkling.ingest.v1.dead_letter_service_pb2 import DeadLetter, ReplayDeadLettersResponse
from inkling.ingest.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub
from inkling.ingest.v1.error_reason_pb2 import ErrorReason
from inkling.values import timestamp

if TYPE_CHECKING:
    from inkling.ingest.v1.dead_letter_service_pb2_grpc import DeadLetterServiceAsyncStub


class AsyncDeadLetters:
    """What was refused, until it is repaired or thrown away; they are the messages of `dead_letter_service.proto`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self, *, reason: str = "") -> AsyncIterator[DeadLetter]:
        """All dead letters, newest first, without payloads; `reason` (such as BAD_KEY) chooses some."""
        request = dead_letter_service_pb2.ListDeadLettersRequest(page_size=500, reason=reason_value(reason))
        while True:
            response = await self._transport.call(self._stub.ListDeadLetters, request)
            for letter in response.dead_letters:
                yield letter
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    async def get(self, dead_letter: str) -> DeadLetter:
        """Reads one with its payload."""
        request = dead_letter_service_pb2.GetDeadLetterRequest(name=dead_letter_name(dead_letter))
        return await self._transport.call(self._stub.GetDeadLetter, request)

    async def replay(
        self,
        dead_letters: Sequence[str] = (),
        *,
        repairs: Mapping[str, CustomerEvent] | None = None,
        reason: str = "",
    ) -> ReplayDeadLettersResponse:
        """Sends dead letters again: as they are, repaired (by name), or all of a reason. Accepted ones are removed."""
        request = dead_letter_service_pb2.ReplayDeadLettersRequest(
            names=[dead_letter_name(each) for each in dead_letters],
            repairs={dead_letter_name(name): event.to_message() for name, event in (repairs or {}).items()},
            reason=reason_value(reason),
        )
        return await self._transport.call(self._stub.ReplayDeadLetters, request)

    async def purge(
        self, dead_letters: Sequence[str] = (), *, before: datetime | None = None, everything: bool = False
    ) -> int:
        """Deletes dead letters for good, and says how many."""
        request = dead_letter_service_pb2.PurgeDeadLettersRequest(
            names=[dead_letter_name(each) for each in dead_letters],
            before_time=None if before is None else timestamp(before),
            all=everything,
        )
        return (await self._transport.call(self._stub.PurgeDeadLetters, request)).purged_count

    @cached_property
    def _stub(self) -> "DeadLetterServiceAsyncStub":
        return DeadLetterServiceStub(self._transport.channel("ingest"))


def dead_letter_name(dead_letter: str) -> str:
    """deadLetters/{dead_letter}, from that or the id alone."""
    return dead_letter if dead_letter.startswith("deadLetters/") else f"deadLetters/{dead_letter}"


def reason_value(reason: str) -> ErrorReason.ValueType:
    """The value of a reason's short name; ValueError, with the known ones, for another."""
    if not reason:
        return ErrorReason.Value("ERROR_REASON_UNSPECIFIED")
    try:
        return ErrorReason.Value(f"ERROR_REASON_{reason.upper()}")
    except ValueError:
        known = ", ".join(each.removeprefix("ERROR_REASON_") for each in ErrorReason.keys()[1:])
        raise ValueError(f"there is no reason {reason}: it is one of {known}") from None
