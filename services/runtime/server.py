"""The gRPC server of a service process: interceptors, health, metrics, reflection, drain."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from google.protobuf.descriptor import FileDescriptor
from prometheus_client import CollectorRegistry

from services.runtime.auth import KeyStore, Role
from services.runtime.settings import Settings


@dataclass(frozen=True)
class Service:
    """What a process serves: usually one servicer or a few of the same domain."""

    name: str
    """For people and logs: `ingest`."""
    domain: str
    """The domain of its errors: `ingest.inkling`."""
    register: Callable[[grpc.aio.Server], None]
    """Adds the servicers, such as `lambda server: add_IngestServiceServicer_to_server(servicer, server)`."""
    health_names: tuple[str, ...]
    """Full names of its gRPC services (`inkling.ingest.v1.IngestService`), for health and reflection."""
    policies: Mapping[str, frozenset[Role]]
    """Full method name to the roles of which one is enough. A method without an entry is refused."""
    descriptors: tuple[FileDescriptor, ...] = ()
    """The files of its services, for reflection."""
    endless_methods: frozenset[str] = field(default_factory=frozenset)
    """Streams that never end by themselves (Subscribe): ended with UNAVAILABLE when the server drains."""


class Server:
    """A running server; `serve` is the usual way to have one, tests open it themselves."""

    @property
    def port(self) -> int:
        """The port it listens on."""
        raise NotImplementedError

    @classmethod
    def open(
        cls,
        settings: Settings,
        services: Sequence[Service],
        *,
        keys: KeyStore | None = None,
        registry: CollectorRegistry | None = None,
    ) -> AbstractAsyncContextManager["Server"]:
        """Listens, NOT_SERVING; on exit stops (grace), then closes. Opens the settings' key store if not given."""
        raise NotImplementedError

    async def set_serving(self) -> None:
        """Health becomes SERVING."""
        raise NotImplementedError


async def serve(
    settings: Settings,
    services: Sequence[Service],
    *,
    ready: Awaitable[object] | None = None,
    keys: KeyStore | None = None,
    registry: CollectorRegistry | None = None,
    on_listening: Callable[[int], None] | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, then drains: NOT_SERVING, `drain_seconds`, stop with `grace_seconds`.

    Health is NOT_SERVING until `ready` is done; when `ready` raises, the server stops and the error is raised.
    """
    raise NotImplementedError


def run(main: Coroutine[Any, Any, None], settings: Settings | None = None) -> None:
    """Runs a process: logging as the settings say, uvloop, then `main`."""
    raise NotImplementedError
