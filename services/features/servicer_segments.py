"""SegmentService: converts requests, calls the segments, formats what they say."""

import copy
import hashlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

import grpc.aio
from google.protobuf.empty_pb2 import Empty

from inkling.features.v1 import segment_service_pb2 as messages
from inkling.features.v1 import segment_service_pb2_grpc
from services.features.proto import timestamp
from services.features.proto_reader import duration_us
from services.features.segments.definitions import SegmentDefinition
from services.features.segments.language import Mistake
from services.features.segments.live import LiveSegment, SegmentState
from services.features.segments.service import ProjectSegments, Segments
from services.features.segments.watching import Place, Seen, SegmentWatcher
from services.features.servicer_profiles import (
    DEFAULT_WAIT_SECONDS,
    MAX_BATCH,
    MAX_KEY_VALUE,
    MAX_WAIT_SECONDS,
    MAX_WATCHED,
)
from services.features.store import Request
from services.runtime import fieldmasks
from services.runtime.auth import Role, current_caller
from services.runtime.errors import InvalidArgument, Violation
from services.runtime.paging import PageTokens, page_size
from services.runtime.server import Service

# The names of the methods are the protocol's.

SERVICE_NAME = "inkling.features.v1.SegmentService"
_DEFINITIONS = ("GetSegment", "ListSegments")
# What is in a segment is what profiles say: who may not read these may not read it.
_MEMBERS = ("ListMembers", "CheckMembership", "WatchSegment")
_WRITES = ("CreateSegment", "UpdateSegment", "DeleteSegment", "PreviewSegment")
POLICIES = {
    **{f"/{SERVICE_NAME}/{method}": frozenset({Role.READ, Role.DEFINE, Role.SERVICE}) for method in _DEFINITIONS},
    **{f"/{SERVICE_NAME}/{method}": frozenset({Role.READ, Role.SERVICE}) for method in _MEMBERS},
    **{f"/{SERVICE_NAME}/{method}": frozenset({Role.DEFINE}) for method in _WRITES},
}
MAX_REQUEST_ID = 128
MAX_MEMBERS_PAGE = 10_000
MAX_SAMPLE = 100
_FIELDS = ("condition", "description", "owner")
_STATES = {
    SegmentState.EVALUATING: messages.SEGMENT_STATE_EVALUATING,
    SegmentState.SERVING: messages.SEGMENT_STATE_SERVING,
    SegmentState.BROKEN: messages.SEGMENT_STATE_BROKEN,
}

Context = grpc.aio.ServicerContext[Any, Any]


def segment_service(servicer: "SegmentServicer", domain: str) -> Service:
    """The service to give to `serve`."""
    return Service(
        name="segments",
        domain=domain,
        register=lambda server: segment_service_pb2_grpc.add_SegmentServiceServicer_to_server(servicer, server),
        health_names=(SERVICE_NAME,),
        policies=POLICIES,
        descriptors=(messages.DESCRIPTOR,),
        endless_methods=frozenset({f"/{SERVICE_NAME}/WatchSegment"}),
    )


class SegmentServicer(segment_service_pb2_grpc.SegmentServiceServicer):
    """Defines segments, and says who is in them."""

    def __init__(self, segments: Segments, tokens: PageTokens) -> None:
        self._segments = segments
        self._tokens = tokens

    async def _of_project(self) -> ProjectSegments:
        return await self._segments.of(current_caller().project)

    # Definitions.

    async def CreateSegment(self, request: messages.CreateSegmentRequest, context: Context) -> messages.Segment:
        """Creates a segment."""
        given = request.segment
        definition = SegmentDefinition(
            request.segment_id, given.attribute_key, given.condition, given.description, given.owner
        )
        live = await (await self._of_project()).create(
            definition, _request(request), validate_only=request.validate_only
        )
        return _message(live)

    async def GetSegment(self, request: messages.GetSegmentRequest, context: Context) -> messages.Segment:
        """Reads a segment."""
        return _message((await self._of_project()).get(request.name))

    async def ListSegments(
        self, request: messages.ListSegmentsRequest, context: Context
    ) -> messages.ListSegmentsResponse:
        """Lists the segments, by id."""
        size = page_size(request.page_size)
        scope = (current_caller().project, "ListSegments")
        after = str(self._tokens.verify(request.page_token, *scope).get("s", ""))
        rest = [live for live in (await self._of_project()).all() if live.definition.segment_id > after]
        token = self._tokens.sign({"s": rest[size - 1].definition.segment_id}, *scope) if len(rest) > size else ""
        return messages.ListSegmentsResponse(segments=[_message(live) for live in rest[:size]], next_page_token=token)

    async def UpdateSegment(self, request: messages.UpdateSegmentRequest, context: Context) -> messages.Segment:
        """Changes a segment."""
        source = request.segment

        def changed(before: SegmentDefinition) -> SegmentDefinition:
            target = messages.Segment(condition=before.condition, description=before.description, owner=before.owner)
            fieldmasks.apply(request.update_mask, source, target, _FIELDS)
            return replace(before, condition=target.condition, description=target.description, owner=target.owner)

        live = await (await self._of_project()).update(
            source.name, changed, source.etag, validate_only=request.validate_only
        )
        return _message(live)

    async def DeleteSegment(self, request: messages.DeleteSegmentRequest, context: Context) -> Empty:
        """Deletes a segment."""
        await (await self._of_project()).delete(request.name, request.etag)
        return Empty()

    async def PreviewSegment(
        self, request: messages.PreviewSegmentRequest, context: Context
    ) -> messages.PreviewSegmentResponse:
        """Says who would be in a segment."""
        if not 0 <= request.sample_size <= MAX_SAMPLE:
            raise _out_of_range("sample_size", f"must be from 0 to {MAX_SAMPLE}")
        segments = await self._of_project()
        preview = await segments.preview(request.attribute_key, request.condition, request.sample_size or 10)
        return messages.PreviewSegmentResponse(
            mistakes=[_mistake(each) for each in preview.mistakes],
            size=preview.size,
            profile_count=preview.profiles,
            sample_key_values=preview.sample,
        )

    # Members.

    async def ListMembers(self, request: messages.ListMembersRequest, context: Context) -> messages.ListMembersResponse:
        """Lists the members, by key value."""
        size = page_size(request.page_size, default=1_000, maximum=MAX_MEMBERS_PAGE)
        scope = (current_caller().project, "ListMembers", request.name)
        after = str(self._tokens.verify(request.page_token, *scope).get("k", ""))
        live, found, more = await (await self._of_project()).page(request.name, after, size)
        return messages.ListMembersResponse(
            members=[messages.Member(key_value=key, since_time=timestamp(since)) for key, since in found],
            next_page_token=self._tokens.sign({"k": found[-1][0]}, *scope) if more else "",
            size=live.members.count,
        )

    async def CheckMembership(
        self, request: messages.CheckMembershipRequest, context: Context
    ) -> messages.CheckMembershipResponse:
        """Says whether profiles are in a segment."""
        if not 1 <= len(request.key_values) <= MAX_BATCH:
            raise _out_of_range("key_values", f"must be 1 to {MAX_BATCH}, not {len(request.key_values)}")
        _check_key_values(request.key_values)
        if request.min_position < 0:
            raise _out_of_range("min_position", "must not be negative: 0 does not wait")
        wait = duration_us(request.wait_timeout) / 1e6 if request.HasField("wait_timeout") else DEFAULT_WAIT_SECONDS
        if not 0 <= wait <= MAX_WAIT_SECONDS:
            raise _out_of_range("wait_timeout", f"must be from 0 to {MAX_WAIT_SECONDS:g} seconds")
        segments = await self._of_project()
        live = await segments.current(request.name)
        await segments.keeper.wait_for(request.min_position, wait)
        response = messages.CheckMembershipResponse(position=segments.keeper.position)
        for key in request.key_values:
            since = live.members.since_us(live.universe.find(key))
            membership = response.memberships.add(key_value=key, member=since is not None)
            if since is not None:
                membership.since_time.CopyFrom(timestamp(since))
        return response

    async def WatchSegment(
        self, request: messages.WatchSegmentRequest, context: Context
    ) -> AsyncGenerator[messages.WatchSegmentResponse, None]:
        """Tells who enters and leaves."""
        if len(request.key_values) > MAX_WATCHED:
            raise _out_of_range("key_values", f"must be at most {MAX_WATCHED}: leave them out to watch all")
        _check_key_values(request.key_values)
        project = current_caller().project
        wanted = frozenset(request.key_values)
        keys = hashlib.sha256("\0".join(sorted(wanted)).encode()).hexdigest()
        scope = ("WatchSegment", project, request.name, keys)
        resume = self._place(request.resume_token, scope)
        watcher = SegmentWatcher(await self._of_project(), self._segments.journal, request.name, wanted)
        async for message in watcher.messages(resume, send_initial=request.send_initial):
            place = message.place
            yield messages.WatchSegmentResponse(
                changes=_changes(message.changes),
                resume_token="" if place is None else self._tokens.sign({"u": place.uid, "s": place.sequence}, *scope),
            )

    def _place(self, token: str, scope: Sequence[str]) -> Place | None:
        if not token:
            return None
        try:
            content = self._tokens.verify(token, *scope)
            return Place(str(content["u"]), int(content["s"] or 0))
        except (InvalidArgument, KeyError, ValueError):
            text = "is not a token of this stream: start without one"
            raise InvalidArgument(
                f"resume_token {text}", reason="BAD_TOKEN", violations=(Violation("resume_token", text, "BAD_TOKEN"),)
            ) from None


def _changes(changes: Sequence[Seen]) -> list[messages.MembershipChange]:
    return [
        messages.MembershipChange(
            key_value=each.key_value,
            kind=messages.MembershipChange.Kind.Value(f"KIND_{each.change.upper()}"),
            change_time=timestamp(each.instant_us),
            position=each.position,
        )
        for each in changes
    ]


def _message(live: LiveSegment) -> messages.Segment:
    definition = live.definition
    return messages.Segment(
        name=definition.name,
        attribute_key=definition.attribute_key,
        condition=definition.condition,
        description=definition.description,
        owner=definition.owner,
        state=_STATES[live.state],
        size=live.members.count,
        mistakes=[_mistake(each) for each in live.mistakes],
        create_time=timestamp(definition.create_time_us),
        update_time=timestamp(definition.update_time_us),
        etag=definition.etag,
    )


def _mistake(mistake: Mistake) -> messages.ConditionMistake:
    return messages.ConditionMistake(
        description=mistake.description, hint=mistake.hint, line=mistake.line, column=mistake.column
    )


def _check_key_values(values: Sequence[str]) -> None:
    for i, value in enumerate(values):
        if not 0 < len(value) <= MAX_KEY_VALUE:
            raise _out_of_range(f"key_values[{i}]", f"must have 1 to {MAX_KEY_VALUE} characters")


def _request(message: messages.CreateSegmentRequest) -> Request | None:
    """What makes a creation recognisable when it is sent again."""
    if not message.request_id:
        return None
    if len(message.request_id) > MAX_REQUEST_ID:
        raise _out_of_range("request_id", f"must be at most {MAX_REQUEST_ID} characters")
    content = copy.deepcopy(message)
    content.ClearField("request_id")
    content.ClearField("validate_only")
    return Request(message.request_id, hashlib.sha256(content.SerializeToString(deterministic=True)).hexdigest())


def _out_of_range(field: str, description: str) -> InvalidArgument:
    return InvalidArgument(
        f"{field} {description}", reason="OUT_OF_RANGE", violations=(Violation(field, description, "OUT_OF_RANGE"),)
    )
