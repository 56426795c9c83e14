"""ProfileService, what is not the present of one profile: lists, the past, and what is behind a value."""

from collections.abc import Callable
from typing import Any, NamedTuple

import grpc.aio

from inkling.features.v1 import profile_history_pb2 as messages
from inkling.features.v1 import profile_pb2
from inkling.types.v1.value_pb2 import Value as ValueMessage
from services.features import wire
from services.features.archive import ArchiveListing
from services.features.explain import VALUE_TYPES, ExplainedEvent, Explanation, Page, explain
from services.features.explain_rollup import PREFIX, RollupQuestion
from services.features.history import (
    MAX_VALUES,
    Explainable,
    check_instants,
    compiled_now,
    compiled_then,
    explainable,
    out_of_range,
    steps,
)
from services.features.listing import keys_after
from services.features.past import Past, PastReader, profiles_at
from services.features.past_pairs import Pair
from services.features.profiles import as_of_field
from services.features.project import Project
from services.features.projects import Projects
from services.features.proto import timestamp
from services.features.proto_reader import duration_us, instant_us
from services.features.servicer_profiles import check_key_value, selection_of
from services.kernel.asof import Column
from services.runtime.auth import Role, current_caller
from services.runtime.paging import PageTokens, page_size

# The names of the methods are the protocol's.

SERVICE_NAME = "inkling.features.v1.ProfileService"
POLICIES = {
    f"/{SERVICE_NAME}/{method}": frozenset({Role.READ, Role.SERVICE})
    for method in ("ListProfiles", "GetProfileHistory", "ExplainValue")
}

Context = grpc.aio.ServicerContext[Any, Any]


class _Asked(NamedTuple):
    page: Page
    pair: Pair
    position: int
    scope: tuple[str, ...]


class HistoryServicer:
    """Lists profiles, and reads them as they were."""

    def __init__(self, projects: Projects, reader: PastReader, tokens: PageTokens) -> None:
        self._projects = projects
        self._reader = reader
        self._tokens = tokens

    def register(self, server: grpc.aio.Server) -> None:
        """Adds its methods; responses with profiles are bytes already."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "ListProfiles": grpc.unary_unary_rpc_method_handler(
                self.ListProfiles, request_deserializer=messages.ListProfilesRequest.FromString
            ),
            "GetProfileHistory": grpc.unary_unary_rpc_method_handler(
                self.GetProfileHistory, request_deserializer=messages.GetProfileHistoryRequest.FromString
            ),
            "ExplainValue": grpc.unary_unary_rpc_method_handler(
                self.ExplainValue,
                request_deserializer=messages.ExplainValueRequest.FromString,
                response_serializer=messages.ExplainValueResponse.SerializeToString,
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))

    async def _project(self) -> Project:
        return await self._projects.get(current_caller().project)

    async def ListProfiles(self, request: messages.ListProfilesRequest, context: Context) -> bytes:
        """A page of profiles, by key value."""
        project = await self._project()
        size = page_size(request.page_size)
        projection = project.serving()
        selection = selection_of(request.selection) if request.HasField("selection") else None
        compiled = compiled_now(project, selection, request.attribute_key, projection)
        question = request.selection.SerializeToString(deterministic=True).hex()
        scope = (project.name, "ListProfiles", compiled.attribute_key, question)
        after = str(self._tokens.verify(request.page_token, *scope).get("k", ""))
        keys = await keys_after(projection, compiled.attribute_key, after, size + 1)
        token = self._tokens.sign({"k": keys[size - 1]}, *scope) if len(keys) > size else ""
        # Nothing yields from here on: the page holds at one instant.
        as_of = as_of_field(projection.instant(moving=compiled.moving))
        position = projection.position
        profiles = [wire.delimited(1, compiled.profile(key, position, as_of)) for key in keys[:size]]
        return b"".join(profiles) + wire.text_field(2, token)

    async def GetProfileHistory(self, request: messages.GetProfileHistoryRequest, context: Context) -> bytes:
        """A profile as of some instants."""
        check_key_value(request.key_value, "key_value")
        project = await self._project()
        instants = _instants(request)
        selection = selection_of(request.selection)
        meant = compiled_then(project, selection, request.attribute_key, Past())
        if len(instants) * len(meant.attributes) > MAX_VALUES:
            raise out_of_range("as_of_times", f"mean more than {MAX_VALUES} values: ask for fewer")
        _check_position(request.position)
        pairs = [Pair(request.key_value, instant) for instant in instants]
        written, position = await profiles_at(
            self._reader,
            project.name,
            lambda past: compiled_then(project, selection, request.attribute_key, past),
            pairs,
            request.position,
            known_position(project),
        )
        return b"".join(
            wire.delimited(1, meant.profile_of(request.key_value, values, position, as_of_field(instant)))
            for instant, values in zip(instants, written, strict=True)
        )

    async def ExplainValue(
        self, request: messages.ExplainValueRequest, context: Context
    ) -> messages.ExplainValueResponse:
        """The events behind a value."""
        check_key_value(request.key_value, "key_value")
        _check_position(request.position)
        project = await self._project()
        size = page_size(request.page_size)
        if request.value.startswith(PREFIX):
            return await self._explain_rollup(project, request, size)
        value = explainable(project, request.value, request.attribute_key)
        asked = self._asked(project, request, value.attribute_key, size)
        page, pair, position, scope = asked
        found, position = await self._explain(project, value, pair, position, page)
        response = _explanation_message(found, value, pair, position)
        shown = page.offset + len(found.events)
        if shown < found.relevant:
            response.next_page_token = self._tokens.sign({"t": pair.instant_us, "p": position, "o": shown}, *scope)
        return response

    def _asked(self, project: Project, request: messages.ExplainValueRequest, attribute_key: str, size: int) -> _Asked:
        given_us = instant_us(request.as_of_time) if request.HasField("as_of_time") else None
        scope = (project.name, "ExplainValue", attribute_key, request.key_value, request.value, str(given_us))
        cursor = self._tokens.verify(request.page_token, *scope)
        if cursor:
            t_us, position = int(cursor["t"] or 0), int(cursor["p"] or 0)
        elif given_us is None:
            projection = project.serving()
            t_us = projection.instant(moving=True)
            position = request.position or projection.position
        else:
            t_us, position = given_us, request.position
        return _Asked(Page(int(cursor.get("o") or 0), size), Pair(request.key_value, t_us), position, scope)

    async def _explain_rollup(
        self, project: Project, request: messages.ExplainValueRequest, size: int
    ) -> messages.ExplainValueResponse:
        question = RollupQuestion.of(project, request.value, request.attribute_key)
        page, pair, position, scope = self._asked(project, request, question.definition.attribute_key, size)
        found = await question.answer(self._reader, pair, position, known_position(project), page)
        response = messages.ExplainValueResponse(
            value=profile_pb2.Profile.FromString(found.value).rollups[0],
            as_of_time=timestamp(pair.instant_us),
            position=found.position,
            relevant_count=found.relevant,
            counted_count=found.counted,
            members=[
                messages.ExplainedMember(
                    key_value=member.key_value,
                    value=profile_pb2.Profile.FromString(member.value).values[0] if member.value else None,
                    counted=member.counted,
                )
                for member in found.members
            ],
        )
        shown = page.offset + len(found.members)
        if shown < found.relevant:
            token = {"t": pair.instant_us, "p": found.position, "o": shown}
            response.next_page_token = self._tokens.sign(token, *scope)
        return response

    async def _explain(
        self, project: Project, value: Explainable, pair: Pair, position: int, page: Page
    ) -> tuple[Explanation, int]:
        found: list[Explanation] = []

        def compute(listing: ArchiveListing, until: int) -> list[Column]:
            records = self._reader.events(listing, value.attribute_key, value.aggregations, {pair.key_value}, until)
            explained = explain(value.attribute_key, value.aggregations, pair, records, listing.complete_since_us, page)
            found[:] = [explained]
            return explained.columns

        reached = await self._reader.compute(project.name, position, compute, known_position(project))
        return found[0], reached.position


def known_position(project: Project) -> int:
    """Up to where records were applied: nobody can have read of later ones here. 0 while nothing is served."""
    return 0 if project.projection is None else project.projection.position


def _explanation_message(
    found: Explanation, value: Explainable, pair: Pair, position: int
) -> messages.ExplainValueResponse:
    response = messages.ExplainValueResponse(
        value=_value_message(found, value, pair),
        as_of_time=timestamp(pair.instant_us),
        position=position,
        relevant_count=found.relevant,
        counted_count=found.counted,
    )
    if found.window_start_us is not None:
        response.window_start_time.CopyFrom(timestamp(found.window_start_us))
    term_type = value.aggregations[0].term_type
    encode = wire.ENCODERS[VALUE_TYPES[term_type]] if term_type else None
    response.events.extend(_event_message(event, encode) for event in found.events)
    return response


def _value_message(found: Explanation, value: Explainable, pair: Pair) -> profile_pb2.AttributeValue:
    """The value as serving writes it; a property as an attribute."""
    value.past.engines[value.attribute_key].columns = found.columns
    written = profile_pb2.Profile.FromString(value.compiled.values(pair.key_value))
    if written.values:
        return written.values[0]
    (own,) = written.properties
    message = profile_pb2.AttributeValue(name=own.name, status=own.status)
    if own.HasField("value"):
        message.value.CopyFrom(own.value)
    if own.HasField("event_time"):
        message.last_event_time.CopyFrom(own.event_time)
    return message


def _event_message(event: ExplainedEvent, encode: Callable[[Any], bytes] | None) -> messages.ExplainedEvent:
    message = messages.ExplainedEvent(
        event_id=event.event_id,
        event_type=event.event_type,
        occurred_time=timestamp(event.occurred_us),
        received_time=timestamp(event.received_us),
        in_window=event.in_window,
        counted=event.counted,
        decisive=event.decisive,
        revision=event.revision,
    )
    if event.term is not None and encode is not None:
        message.term.CopyFrom(ValueMessage.FromString(encode(event.term)))
    return message


def _instants(request: messages.GetProfileHistoryRequest) -> list[int]:
    """The instants asked for."""
    ranged = [name for name in ("start_time", "end_time", "step") if request.HasField(name)]
    if ranged and (request.as_of_times or len(ranged) < 3):
        raise out_of_range("as_of_times", "or all of start_time, end_time and step must be given, and not both")
    if ranged:
        instants = steps(instant_us(request.start_time), instant_us(request.end_time), duration_us(request.step))
    else:
        instants = [instant_us(each) for each in request.as_of_times]
    check_instants(instants)
    return instants


def _check_position(position: int) -> None:
    if position < 0:
        raise out_of_range("position", "must not be negative: 0 takes all records")
