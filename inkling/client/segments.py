"""Segments: named conditions over what is known of profiles; who meets them, now and as it changes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from inkling.client.transport import Transport
from inkling.errors import from_rpc_error
from inkling.features.v1 import segment_service_pb2
from inkling.features.v1.segment_service_pb2_grpc import SegmentServiceStub
from inkling.values import duration, instant

if TYPE_CHECKING:
    from inkling.features.v1.segment_service_pb2_grpc import SegmentServiceAsyncStub


class SegmentState(StrEnum):
    """Whether the members are current; the meanings are those of `SegmentState` in the protos."""

    UNSPECIFIED = "UNSPECIFIED"
    EVALUATING = "EVALUATING"
    SERVING = "SERVING"
    BROKEN = "BROKEN"


class Change(StrEnum):
    """What happened to a membership; PRESENT is a member from before, at the start of a stream."""

    ENTERED = "ENTERED"
    LEFT = "LEFT"
    PRESENT = "PRESENT"


@dataclass(frozen=True, slots=True)
class ConditionMistake:
    """What is wrong with a condition, where (line and column from 1), and what to write instead."""

    description: str
    hint: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.description}" + (f" ({self.hint})" if self.hint else "")


@dataclass(frozen=True, slots=True)
class Segment:
    """A named condition on the profiles of an attribute key, with how many meet it."""

    name: str
    attribute_key: str
    condition: str
    description: str
    owner: str
    state: SegmentState
    size: int
    mistakes: tuple[ConditionMistake, ...]
    create_time: datetime
    update_time: datetime
    etag: str


@dataclass(frozen=True, slots=True)
class SegmentPreview:
    """Who would be in a segment; with mistakes nobody. `sample` are key values of the newest of them."""

    mistakes: tuple[ConditionMistake, ...]
    size: int
    profiles: int
    sample: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """A profile in a segment, and since when it is seen there."""

    key_value: str
    since: datetime


@dataclass(frozen=True, slots=True)
class MembershipChange:
    """A profile that entered or left. `position` is that of the log at which it was seen; 0 for PRESENT."""

    key_value: str
    change: Change
    time: datetime
    position: int


@dataclass(frozen=True, slots=True)
class MembershipChanges:
    """Some changes, in order. `resume_token` goes on after them, also in a new process.

    It is empty while the present members are being sent.
    """

    changes: tuple[MembershipChange, ...]
    resume_token: str


class AsyncSegments:
    """The project's segments. They are named by their ids, or by `segments/{id}`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def create(
        self,
        segment: str,
        condition: str,
        *,
        attribute_key: str,
        description: str = "",
        owner: str = "",
        request_id: str = "",
        validate_only: bool = False,
        timeout: timedelta | None = None,
    ) -> Segment:
        """Creates a segment and finds its members. InvalidArgument names each mistake of the condition."""
        request = segment_service_pb2.CreateSegmentRequest(
            segment_id=segment.removeprefix("segments/"),
            segment=segment_service_pb2.Segment(
                attribute_key=attribute_key, condition=condition, description=description, owner=owner
            ),
            request_id=request_id,
            validate_only=validate_only,
        )
        return read_segment(await self._transport.call(self._stub.CreateSegment, request, timeout=timeout))

    async def get(self, segment: str) -> Segment:
        """Reads a segment."""
        request = segment_service_pb2.GetSegmentRequest(name=segment_name(segment))
        return read_segment(await self._transport.call(self._stub.GetSegment, request))

    async def list(self) -> AsyncIterator[Segment]:
        """All segments, by id."""
        request = segment_service_pb2.ListSegmentsRequest(page_size=500)
        while True:
            response = await self._transport.call(self._stub.ListSegments, request)
            for each in response.segments:
                yield read_segment(each)
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    async def update(
        self,
        segment: str,
        *,
        condition: str | None = None,
        description: str | None = None,
        owner: str | None = None,
        etag: str = "",
        timeout: timedelta | None = None,
    ) -> Segment:
        """Changes what is given. By a new condition profiles enter and leave; a given etag must match."""
        given = {"condition": condition, "description": description, "owner": owner}
        request = segment_service_pb2.UpdateSegmentRequest(
            segment=segment_service_pb2.Segment(
                name=segment_name(segment),
                etag=etag,
                condition=condition or "",
                description=description or "",
                owner=owner or "",
            ),
            update_mask=FieldMask(paths=[name for name, text in given.items() if text is not None]),
        )
        return read_segment(await self._transport.call(self._stub.UpdateSegment, request, timeout=timeout))

    async def delete(self, segment: str, *, etag: str = "") -> None:
        """Deletes a segment; a given etag must match."""
        request = segment_service_pb2.DeleteSegmentRequest(name=segment_name(segment), etag=etag)
        await self._transport.call(self._stub.DeleteSegment, request)

    async def preview(self, condition: str, *, attribute_key: str, sample_size: int = 10) -> SegmentPreview:
        """Who would be in a segment, or every mistake of its condition; changes nothing."""
        request = segment_service_pb2.PreviewSegmentRequest(
            attribute_key=attribute_key, condition=condition, sample_size=sample_size
        )
        response = await self._transport.call(self._stub.PreviewSegment, request)
        return SegmentPreview(
            tuple(_mistake(each) for each in response.mistakes),
            response.size,
            response.profile_count,
            tuple(response.sample_key_values),
        )

    async def members(self, segment: str, *, page_size: int = 5_000) -> AsyncIterator[Member]:
        """All members, by key value."""
        request = segment_service_pb2.ListMembersRequest(name=segment_name(segment), page_size=page_size)
        while True:
            response = await self._transport.call(self._stub.ListMembers, request)
            for each in response.members:
                yield Member(each.key_value, instant(each.since_time))
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    async def check(
        self,
        segment: str,
        key_values: Sequence[str],
        *,
        min_position: int = 0,
        wait: timedelta | None = None,
        timeout: timedelta | None = None,
    ) -> dict[str, bool]:
        """Whether profiles are in a segment, by key value; more than 1,000 in several calls.

        With `min_position` (from the result of a write) it answers once that is applied, or fails after `wait`.
        """
        found: dict[str, bool] = {}
        for start in range(0, len(key_values), 1_000):
            request = segment_service_pb2.CheckMembershipRequest(
                name=segment_name(segment),
                key_values=key_values[start : start + 1_000],
                min_position=min_position,
                wait_timeout=None if wait is None else duration(wait),
            )
            response = await self._transport.call(self._stub.CheckMembership, request, timeout=timeout)
            found |= {each.key_value: each.member for each in response.memberships}
        return found

    async def watch(
        self, segment: str, key_values: Sequence[str] = (), *, resume_token: str = "", send_initial: bool = False
    ) -> AsyncIterator[MembershipChanges]:
        """Follows who enters and leaves (no key values: all), each change once, without end.

        After a break it resumes by itself. A token that is not kept any more is OutOfRange: start anew, with
        `send_initial`. The first message may have no changes: then it tells only where to go on.
        """
        attempt = 0
        while True:
            request = segment_service_pb2.WatchSegmentRequest(
                name=segment_name(segment),
                key_values=key_values,
                resume_token=resume_token,
                send_initial=send_initial and not resume_token,
            )
            call = self._stub.WatchSegment(request, metadata=self._transport.metadata())
            try:
                async for message in call:
                    attempt = 0
                    resume_token = message.resume_token or resume_token
                    yield MembershipChanges(tuple(_change(each) for each in message.changes), message.resume_token)
                # A server that drains ends the stream; it goes on with the next one.
                delay = self._transport.retry.first_delay
            except grpc.RpcError as failed:
                error = from_rpc_error(failed)
                attempt += 1
                if not self._transport.retry.retries(attempt, error):
                    raise error from failed
                delay = self._transport.retry.delay(attempt, error)
            finally:
                call.cancel()
            await asyncio.sleep(delay)

    @cached_property
    def _stub(self) -> "SegmentServiceAsyncStub":
        return SegmentServiceStub(self._transport.channel("features"))


def segment_name(segment: str) -> str:
    """segments/{segment}, from that or the id alone."""
    return segment if segment.startswith("segments/") else f"segments/{segment}"


def read_segment(message: segment_service_pb2.Segment) -> Segment:
    """The segment of a message; a state that this client does not know yet is UNSPECIFIED."""
    state = segment_service_pb2.SegmentState.Name(message.state).removeprefix("SEGMENT_STATE_")
    return Segment(
        name=message.name,
        attribute_key=message.attribute_key,
        condition=message.condition,
        description=message.description,
        owner=message.owner,
        state=SegmentState(state) if state in SegmentState.__members__ else SegmentState.UNSPECIFIED,
        size=message.size,
        mistakes=tuple(_mistake(each) for each in message.mistakes),
        create_time=instant(message.create_time),
        update_time=instant(message.update_time),
        etag=message.etag,
    )


def _mistake(message: segment_service_pb2.ConditionMistake) -> ConditionMistake:
    return ConditionMistake(message.description, message.hint, message.line, message.column)


def _change(message: segment_service_pb2.MembershipChange) -> MembershipChange:
    kind = segment_service_pb2.MembershipChange.Kind.Name(message.kind).removeprefix("KIND_")
    return MembershipChange(message.key_value, Change(kind), instant(message.change_time), message.position)
