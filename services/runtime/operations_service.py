"""google.longrunning.Operations over a runner: get, list, wait, cancel, delete, each within the caller's project."""

from typing import Any

import grpc.aio
from google.longrunning import operations_pb2, operations_pb2_grpc, operations_proto_pb2
from google.protobuf.empty_pb2 import Empty

from services.runtime.auth import Role, current_caller
from services.runtime.errors import InvalidArgument, Violation
from services.runtime.operations import OperationRunner
from services.runtime.paging import PageTokens, page_size
from services.runtime.server import Service

# The names of the methods are the protocol's.
# ruff: noqa: N802

SERVICE_NAME = "google.longrunning.Operations"
_MAX_WAIT_SECONDS = 300.0
_FILTERS = {"": None, "done=true": True, "done=false": False}


def operations_service(runner: OperationRunner, tokens: PageTokens, roles: frozenset[Role]) -> Service:
    """The service to give to `serve`; `roles` may call all of its methods, the errors are of the runner's domain."""
    methods = ("ListOperations", "GetOperation", "DeleteOperation", "CancelOperation", "WaitOperation")
    return Service(
        name="operations",
        domain=runner.domain,
        register=lambda server: operations_pb2_grpc.add_OperationsServicer_to_server(
            OperationsServicer(runner, tokens), server
        ),
        health_names=(SERVICE_NAME,),
        policies={f"/{SERVICE_NAME}/{method}": roles for method in methods},
        descriptors=(operations_proto_pb2.DESCRIPTOR,),
    )


class OperationsServicer(operations_pb2_grpc.OperationsServicer):  # type: ignore[misc]  # untyped base
    """Converts, calls the runner, formats."""

    def __init__(self, runner: OperationRunner, tokens: PageTokens) -> None:
        self._runner = runner
        self._tokens = tokens

    async def GetOperation(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """The operation as it is now."""
        return await self._runner.get(current_caller().project, request.name)

    async def ListOperations(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """The project's operations, newest first. The filter is `done=true`, `done=false` or empty."""
        project = current_caller().project
        if request.name not in ("", "operations"):
            hint = "name must be empty or `operations`"
            raise InvalidArgument(hint, reason="BAD_NAME", violations=(Violation("name", hint),))
        text = request.filter.replace(" ", "")
        if text not in _FILTERS:
            hint = "filter must be empty, `done=true` or `done=false`"
            raise InvalidArgument(hint, reason="BAD_FILTER", violations=(Violation("filter", hint),))
        scope = (project, SERVICE_NAME, text)
        cursor = self._tokens.verify(request.page_token, *scope)
        before = (int(str(cursor["time"])), str(cursor["id"])) if cursor else None
        size = page_size(request.page_size)
        found = await self._runner.store.page(project, size + 1, before, _FILTERS[text])
        response = operations_pb2.ListOperationsResponse(operations=[stored.to_proto() for stored in found[:size]])
        if len(found) > size:
            last = found[size - 1]
            response.next_page_token = self._tokens.sign({"time": last.create_time_us, "id": last.id}, *scope)
        return response

    async def WaitOperation(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """The operation when it is done, or as it is after `timeout` (default and at most 5 minutes)."""
        timeout = min(request.timeout.ToTimedelta().total_seconds(), _MAX_WAIT_SECONDS)
        if not request.HasField("timeout"):
            timeout = _MAX_WAIT_SECONDS
        return await self._runner.wait(current_caller().project, request.name, timeout)

    async def CancelOperation(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """Asks for its end."""
        await self._runner.cancel(current_caller().project, request.name)
        return Empty()

    async def DeleteOperation(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """Forgets its result."""
        await self._runner.delete(current_caller().project, request.name)
        return Empty()
