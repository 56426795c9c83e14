"""PropertyService: converts requests, calls the catalog and the writer, formats what they say."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc.aio
from google.protobuf.empty_pb2 import Empty

from inkling.features.v1 import (
    error_reason_pb2,
    property_service_pb2_grpc,
    rollup_service_pb2,
    rollup_service_pb2_grpc,
)
from inkling.features.v1 import property_service_pb2 as messages
from services.features import servicer_rollups
from services.features.definitions import Problem
from services.features.projects import Projects
from services.features.properties import Merge, PropertyDefinition, PropertyType, Visibility
from services.features.property_events import Refusal
from services.features.property_store import StoredProperty
from services.features.property_writer import PropertyWriter, Written, check_source
from services.features.proto import timestamp
from services.features.servicer_rollups import RollupServicer
from services.runtime import fieldmasks
from services.runtime.auth import Role, current_caller
from services.runtime.errors import InvalidArgument, Violation
from services.runtime.paging import PageTokens, page_size
from services.runtime.server import Service

# The names of the methods are the protocol's.

SERVICE_NAME = "inkling.features.v1.PropertyService"
BATCH = f"/{SERVICE_NAME}/BatchSetProperties"
POLICIES = {
    **{
        f"/{SERVICE_NAME}/{method}": frozenset({Role.DEFINE, Role.SERVICE})
        for method in ("CreateProperty", "BatchCreateProperties", "UpdateProperty", "DeleteProperty")
    },
    **{
        f"/{SERVICE_NAME}/{method}": frozenset({Role.READ, Role.DEFINE, Role.INGEST, Role.SERVICE})
        for method in ("GetProperty", "ListProperties")
    },
    **{
        f"/{SERVICE_NAME}/{method}": frozenset({Role.INGEST, Role.SERVICE})
        for method in ("SetProperties", "BatchSetProperties")
    },
}
MAX_WRITES, MAX_CREATED = 5_000, 100
WINDOW = 4
"""Chunks of a stream that are on their way at once."""
_FIELDS = ("type", "description", "source", "visibility", "merge_strategy", "refers_to")
_TYPES = {each: messages.PropertyType.Value(f"PROPERTY_TYPE_{each.name}") for each in PropertyType}
_VISIBILITIES = {each: messages.PropertyVisibility.Value(f"PROPERTY_VISIBILITY_{each.name}") for each in Visibility}
_MERGES = {each: messages.MergeStrategy.Value(f"MERGE_STRATEGY_{each.name}") for each in Merge}

Context = grpc.aio.ServicerContext[Any, Any]
_Chunk = tuple[int, "asyncio.Task[Written]"]


class PropertyServicer(property_service_pb2_grpc.PropertyServiceServicer):
    """Declares properties and sets them."""

    def __init__(self, projects: Projects, writer: PropertyWriter, tokens: PageTokens) -> None:
        self._projects = projects
        self._writer = writer
        self._tokens = tokens

    # Declarations.

    async def CreateProperty(
        self, request: messages.CreatePropertyRequest, context: Context
    ) -> messages.PropertyDeclaration:
        """Declares a property."""
        (stored,) = await self._create([request], validate_only=request.validate_only)
        return _message(stored)

    async def BatchCreateProperties(
        self, request: messages.BatchCreatePropertiesRequest, context: Context
    ) -> messages.BatchCreatePropertiesResponse:
        """Declares several at once."""
        if not 1 <= len(request.requests) <= MAX_CREATED:
            raise _out_of_range("requests", f"must be 1 to {MAX_CREATED}, not {len(request.requests)}")
        if len({each.attribute_key for each in request.requests}) > 1:
            raise _out_of_range("requests", "must be of one attribute key")
        if len({each.validate_only for each in request.requests}) > 1:
            raise _out_of_range("requests", "must agree in validate_only")
        stored = await self._create(request.requests, validate_only=request.requests[0].validate_only)
        return messages.BatchCreatePropertiesResponse(properties=[_message(each) for each in stored])

    async def _create(self, requests: Any, *, validate_only: bool) -> list[StoredProperty]:
        project = await self._projects.get(current_caller().project)
        problems: list[Problem] = []
        definitions = [_definition(each.property, each.attribute_key, each.property_id, problems) for each in requests]
        stored = await project.catalog.properties.create(definitions, problems, validate_only=validate_only)
        if not validate_only:
            await project.declared()
        return stored

    async def GetProperty(self, request: messages.GetPropertyRequest, context: Context) -> messages.PropertyDeclaration:
        """Reads a declaration."""
        project = await self._projects.get(current_caller().project)
        return _message(project.catalog.properties.property(request.name))

    async def ListProperties(
        self, request: messages.ListPropertiesRequest, context: Context
    ) -> messages.ListPropertiesResponse:
        """Lists the declarations, by attribute key, then name."""
        size = page_size(request.page_size)
        project = await self._projects.get(current_caller().project)
        scope = (current_caller().project, "ListProperties", request.attribute_key)
        cursor = self._tokens.verify(request.page_token, *scope)
        after = (str(cursor.get("k", "")), str(cursor.get("p", "")))
        stored = project.catalog.properties.properties(request.attribute_key)
        rest = [s for s in stored if (s.definition.attribute_key, s.definition.property_id) > after]
        token = ""
        if len(rest) > size:
            last = rest[size - 1].definition
            token = self._tokens.sign({"k": last.attribute_key, "p": last.property_id}, *scope)
        page = [_message(each) for each in rest[:size]]
        return messages.ListPropertiesResponse(properties=page, next_page_token=token)

    async def UpdateProperty(
        self, request: messages.UpdatePropertyRequest, context: Context
    ) -> messages.PropertyDeclaration:
        """Changes a declaration."""
        project = await self._projects.get(current_caller().project)
        catalog = project.catalog.properties
        before = catalog.property(request.property.name).definition
        target = _content(before)
        fieldmasks.apply(request.update_mask, request.property, target, _FIELDS)
        problems: list[Problem] = []
        definition = _definition(target, before.attribute_key, before.property_id, problems)
        stored = await catalog.update(definition, problems, request.property.etag, validate_only=request.validate_only)
        return _message(stored)

    async def DeleteProperty(self, request: messages.DeletePropertyRequest, context: Context) -> Empty:
        """Deletes a declaration."""
        project = await self._projects.get(current_caller().project)
        await project.catalog.properties.delete(request.name)
        await project.undeclared()
        return Empty()

    # Values.

    async def SetProperties(
        self, request: messages.SetPropertiesRequest, context: Context
    ) -> messages.SetPropertiesResponse:
        """Sets properties of one profile."""
        caller = current_caller()
        source = check_source(request.source, by_service=Role.SERVICE in caller.roles)
        written = await self._writer.write(caller.project, request.attribute_key, source, [request.write], "")
        for refusal in written.refused:
            field = f"write.{refusal.field}"
            raise InvalidArgument(
                f"{field}: {refusal.message}",
                reason=refusal.reason,
                violations=(Violation(field, refusal.message, refusal.reason),),
            )
        return messages.SetPropertiesResponse(position=written.position)

    async def BatchSetProperties(
        self, requests: AsyncIterator[messages.BatchSetPropertiesRequest], context: Context
    ) -> AsyncIterator[messages.BatchSetPropertiesResponse]:
        """Sets properties of many profiles: several chunks at a time, acknowledged in their order.

        The first chunk that fails ends the stream with its error; the client sends again what was not acknowledged.
        """
        pending: asyncio.Queue[_Chunk | None] = asyncio.Queue(WINDOW)
        reader = asyncio.create_task(self._read(requests, pending))
        try:
            while (chunk := await pending.get()) is not None:
                sequence, task = chunk
                yield _response(sequence, await task)
            await reader
        finally:
            reader.cancel()
            await asyncio.wait((reader,))
            left = [chunk[1] for chunk in (pending.get_nowait() for _ in range(pending.qsize())) if chunk is not None]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _read(
        self, requests: AsyncIterator[messages.BatchSetPropertiesRequest], pending: "asyncio.Queue[_Chunk | None]"
    ) -> None:
        caller = current_caller()
        last: int | None = None
        previous: asyncio.Task[Written] | None = None
        try:
            async for request in requests:
                if last is not None and request.sequence <= last:
                    raise _out_of_range("sequence", "must rise within a stream")
                if len(request.writes) > MAX_WRITES:
                    raise _out_of_range("writes", f"must be at most {MAX_WRITES:,}: send smaller chunks")
                last = request.sequence
                source = check_source(request.source, by_service=Role.SERVICE in caller.roles)
                previous = asyncio.create_task(self._set(caller.project, source, request, previous))
                await pending.put((request.sequence, previous))
        finally:
            await pending.put(None)

    async def _set(
        self,
        project: str,
        source: str,
        request: messages.BatchSetPropertiesRequest,
        previous: "asyncio.Task[Written] | None",
    ) -> Written:
        """Encodes a chunk beside the storing of the one before, and stores it only after that.

        So none overtakes another that must be sent again, and would then be the later one.
        """
        encoded = await self._writer.encode(project, request.attribute_key, source, request.writes, request.write_id)
        if previous is not None:
            await asyncio.wait((previous,))
            previous.result()
        return await self._writer.append(project, encoded)


def property_service(properties: PropertyServicer, rollups: RollupServicer, domain: str) -> Service:
    """Both services of properties, for the server."""

    def register(server: grpc.aio.Server) -> None:
        property_service_pb2_grpc.add_PropertyServiceServicer_to_server(properties, server)
        rollup_service_pb2_grpc.add_RollupServiceServicer_to_server(rollups, server)

    return Service(
        name="properties",
        domain=domain,
        register=register,
        health_names=(SERVICE_NAME, servicer_rollups.SERVICE_NAME),
        policies={**POLICIES, **servicer_rollups.POLICIES},
        descriptors=(messages.DESCRIPTOR, rollup_service_pb2.DESCRIPTOR),
        endless_methods=frozenset({BATCH}),
    )


def _definition(
    message: messages.PropertyDeclaration, attribute_key: str, property_id: str, problems: list[Problem]
) -> PropertyDefinition:
    """The declaration under a key and an id; what is no value of an enum is a problem."""

    def read(names: Mapping[Any, int], field: str, default: Any) -> Any:
        number = getattr(message, field)
        if number == 0:
            return default
        for key, value in names.items():
            if value == number:
                return key
        problems.append(Problem(f"property.{field}", "is unknown", f"one of {', '.join(names)}"))
        return default

    return PropertyDefinition(
        attribute_key=attribute_key,
        property_id=property_id,
        type=read(_TYPES, "type", None),
        description=message.description,
        source=message.source,
        visibility=read(_VISIBILITIES, "visibility", Visibility.VISIBLE),
        merge=read(_MERGES, "merge_strategy", Merge.MOST_RECENT),
        refers_to=message.refers_to,
    )


def _content(definition: PropertyDefinition) -> messages.PropertyDeclaration:
    assert definition.type is not None, "validated before"
    return messages.PropertyDeclaration(
        name=definition.name,
        type=_TYPES[definition.type],
        description=definition.description,
        source=definition.source,
        visibility=_VISIBILITIES[definition.visibility],
        merge_strategy=_MERGES[definition.merge],
        refers_to=definition.refers_to,
    )


def _message(stored: StoredProperty) -> messages.PropertyDeclaration:
    message = _content(stored.definition)
    message.create_time.CopyFrom(timestamp(stored.create_time_us))
    message.update_time.CopyFrom(timestamp(stored.update_time_us))
    message.etag = stored.etag
    return message


def _response(sequence: int, written: Written) -> messages.BatchSetPropertiesResponse:
    return messages.BatchSetPropertiesResponse(
        sequence=sequence,
        position=written.position,
        accepted_count=written.accepted,
        rejected=[_rejected(each) for each in written.refused],
    )


def _rejected(refusal: Refusal) -> messages.RejectedWrite:
    return messages.RejectedWrite(
        index=refusal.index,
        reason=error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{refusal.reason}"),
        field=f"writes[{refusal.index}].{refusal.field}",
        message=refusal.message,
    )


def _out_of_range(field: str, description: str) -> InvalidArgument:
    return InvalidArgument(
        f"{field} {description}", reason="OUT_OF_RANGE", violations=(Violation(field, description, "OUT_OF_RANGE"),)
    )
