"""RollupService: converts requests, calls the catalog, formats what it says."""

from typing import Any

import grpc.aio
from google.protobuf.empty_pb2 import Empty

from inkling.features.v1 import rollup_service_pb2 as messages
from inkling.features.v1 import rollup_service_pb2_grpc
from services.features.definitions import Problem
from services.features.projects import Projects
from services.features.property_store import StoredRollup
from services.features.proto import timestamp
from services.features.rollup_sources import check_source
from services.features.rollups import RollupDefinition, RollupFunction
from services.runtime.auth import Role, current_caller
from services.runtime.paging import PageTokens, page_size

# The names of the methods are the protocol's.

SERVICE_NAME = "inkling.features.v1.RollupService"
POLICIES = {
    **{
        f"/{SERVICE_NAME}/{method}": frozenset({Role.DEFINE, Role.SERVICE})
        for method in ("CreateRollup", "DeleteRollup")
    },
    **{
        f"/{SERVICE_NAME}/{method}": frozenset({Role.READ, Role.DEFINE, Role.SERVICE})
        for method in ("GetRollup", "ListRollups")
    },
}
_FUNCTIONS = {each: messages.RollupFunction.Value(f"ROLLUP_FUNCTION_{each.name}") for each in RollupFunction}

Context = grpc.aio.ServicerContext[Any, Any]


class RollupServicer(rollup_service_pb2_grpc.RollupServiceServicer):
    """Declares roll-ups."""

    def __init__(self, projects: Projects, tokens: PageTokens) -> None:
        self._projects = projects
        self._tokens = tokens

    async def CreateRollup(self, request: messages.CreateRollupRequest, context: Context) -> messages.Rollup:
        """Declares a roll-up."""
        catalog = (await self._projects.get(current_caller().project)).catalog
        problems: list[Problem] = []
        definition = RollupDefinition(
            attribute_key=request.attribute_key,
            rollup_id=request.rollup_id,
            reference=request.rollup.reference,
            attribute=request.rollup.attribute,
            function=_function(request.rollup, problems),
            description=request.rollup.description,
        )
        problems += check_source(catalog, definition)
        stored = await catalog.properties.create_rollup(definition, problems, validate_only=request.validate_only)
        return _message(stored)

    async def GetRollup(self, request: messages.GetRollupRequest, context: Context) -> messages.Rollup:
        """Reads a declaration."""
        catalog = (await self._projects.get(current_caller().project)).catalog
        return _message(catalog.properties.rollup(request.name))

    async def ListRollups(self, request: messages.ListRollupsRequest, context: Context) -> messages.ListRollupsResponse:
        """Lists the declarations, by attribute key, then name."""
        size = page_size(request.page_size)
        catalog = (await self._projects.get(current_caller().project)).catalog
        scope = (current_caller().project, "ListRollups", request.attribute_key)
        cursor = self._tokens.verify(request.page_token, *scope)
        after = (str(cursor.get("k", "")), str(cursor.get("r", "")))
        stored = catalog.properties.rollups(request.attribute_key)
        rest = [s for s in stored if (s.definition.attribute_key, s.definition.rollup_id) > after]
        token = ""
        if len(rest) > size:
            last = rest[size - 1].definition
            token = self._tokens.sign({"k": last.attribute_key, "r": last.rollup_id}, *scope)
        return messages.ListRollupsResponse(rollups=[_message(each) for each in rest[:size]], next_page_token=token)

    async def DeleteRollup(self, request: messages.DeleteRollupRequest, context: Context) -> Empty:
        """Deletes a declaration."""
        catalog = (await self._projects.get(current_caller().project)).catalog
        await catalog.properties.delete_rollup(request.name)
        return Empty()


def _function(message: messages.Rollup, problems: list[Problem]) -> RollupFunction | None:
    for function, number in _FUNCTIONS.items():
        if number == message.function:
            return function
    if message.function:
        problems.append(Problem("rollup.function", "is unknown", f"one of {', '.join(_FUNCTIONS)}"))
    return None


def _message(stored: StoredRollup) -> messages.Rollup:
    definition = stored.definition
    assert definition.function is not None, "validated before"
    message = messages.Rollup(
        name=definition.name,
        reference=definition.reference,
        attribute=definition.attribute,
        function=_FUNCTIONS[definition.function],
        description=definition.description,
    )
    message.create_time.CopyFrom(timestamp(stored.create_time_us))
    return message
