"""grpc.health.v1. Ours and not the library's because that one begins as SERVING and never ends its watches."""

# The names of the methods are the protocol's.
# ruff: noqa: N802

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVICE_NAME = "grpc.health.v1.Health"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
LIVENESS = "liveness"
"""A name that is SERVING as long as the process answers: for liveness probes, which must not look at dependencies."""


class HealthServicer(health_pb2_grpc.HealthServicer):
    """The health of named services, and of the process (the empty name): all NOT_SERVING at first, then all SERVING."""

    def __init__(self, names: Iterable[str]) -> None:
        self._statuses = dict.fromkeys(("", *names), NOT_SERVING) | {LIVENESS: SERVING}
        self._changed = asyncio.Event()
        self._closed = False

    async def Check(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """The status of a name; NOT_FOUND for an unknown one, as the protocol says."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no service of that name")
        return health_pb2.HealthCheckResponse(status=status)

    async def List(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """The status of all names."""
        response = health_pb2.HealthListResponse()  # type: ignore[attr-defined]  # newer than the stubs
        for name, status in self._statuses.items():
            response.statuses[name].status = status
        return response

    async def Watch(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        """The status of a name and each change of it, until the server closes."""
        last = None
        while not self._closed:
            changed = self._changed
            status = self._statuses.get(request.service, SERVICE_UNKNOWN)
            if status != last:
                yield health_pb2.HealthCheckResponse(status=status)
                last = status
            await changed.wait()

    def set_serving(self, serving: bool) -> None:
        """All names but the liveness one become SERVING or NOT_SERVING."""
        for name in self._statuses.keys() - {LIVENESS}:
            self._statuses[name] = SERVING if serving else NOT_SERVING
        self._wake()

    def close(self) -> None:
        """Ends the watches, so that they do not hold up the server's end."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
