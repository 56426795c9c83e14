"""The gRPC server of a service process: interceptors, health, metrics, reflection, drain.

services = [Service("ingest", "ingest.inkling", register, (INGEST,), policies, (ingest_service_pb2.DESCRIPTOR,))]
run(serve(settings, services, ready=warm()), settings)
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import uvloop
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from services.runtime import health, tls
from services.runtime.auth import MIGRATIONS, KeyStore, Role
from services.runtime.database import Database
from services.runtime.interceptors import (
    AccessLog,
    Authentication,
    CallMetrics,
    Chain,
    DeadlineCheck,
    ErrorMapping,
    Quota,
    RequestIds,
    Tracing,
    ordered,
)
from services.runtime.settings import Settings
from services.runtime.telemetry import configure_logging, metrics_endpoint

_LOGGER = logging.getLogger(__name__)


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
    """Full names of its gRPC services (`inkling.ingest.v1.IngestService`), for health, reflection and errors."""
    policies: Mapping[str, frozenset[Role]]
    """Full method name to the roles of which one is enough. A method without an entry is refused."""
    descriptors: tuple[FileDescriptor, ...] = ()
    """The files that declare its services: each of their methods must have a policy, or the server does not start."""
    endless_methods: frozenset[str] = field(default_factory=frozenset)
    """Streams that never end by themselves (Subscribe): ended with UNAVAILABLE when the server drains."""

    def missing_policies(self) -> list[str]:
        """Methods of its gRPC services that have no policy."""
        return [
            name
            for file in self.descriptors
            for service in file.services_by_name.values()
            if service.full_name in self.health_names
            for name in (f"/{service.full_name}/{method.name}" for method in service.methods)
            if name not in self.policies
        ]


class Server:
    """A listening server. `serve` is the usual way to have one; tests open it themselves."""

    def __init__(self, server: grpc.aio.Server, port: int, chain: Chain, servicer: health.HealthServicer) -> None:
        self._server = server
        self._chain = chain
        self._health = servicer
        self.port = port
        """The port it listens on."""
        self.interceptors = chain.interceptors
        """From the outside in."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings,
        services: Sequence[Service],
        *,
        keys: KeyStore | None = None,
        registry: CollectorRegistry | None = None,
    ) -> AsyncIterator["Server"]:
        """Listens, NOT_SERVING. On exit ends the endless calls, stops (`grace_seconds`), then closes what it opened.

        Opens the key store of `auth_database_url` if none is given. `registry` may hold metrics of the service; the
        server adds its own. Raises ValueError for methods without a policy, Unavailable when the port is taken.
        """
        for service in services:
            if missing := service.missing_policies():
                raise ValueError(f"methods without a policy: {', '.join(missing)}")
        async with AsyncExitStack() as stack:
            if keys is None:
                keys = await stack.enter_async_context(open_keys(settings))
            tracer = None
            if settings.otlp_endpoint:
                from services.runtime.tracing import open_tracer

                tracer = stack.enter_context(open_tracer(settings.name, settings.otlp_endpoint))
            metrics = CallMetrics()
            stack.enter_context(metrics_endpoint(settings, _collecting(registry or CollectorRegistry(), metrics)))
            chain = Chain(
                ordered(
                    request_id=RequestIds(),
                    tracing=Tracing(tracer),
                    metrics=metrics,
                    access_log=AccessLog(),
                    errors=ErrorMapping(),
                    auth=Authentication(
                        keys,
                        {method: roles for service in services for method, roles in service.policies.items()},
                        insecure=settings.insecure,
                        service_certificates=settings.tls_service_names,
                    ),
                    quota=Quota(settings.quota_requests_per_second, settings.quota_burst),
                    deadline=DeadlineCheck(),
                ),
                domains={name: service.domain for service in services for name in service.health_names},
                public_services=(health.SERVICE_NAME, *reflection_services(settings)),
                endless_methods=frozenset().union(*(service.endless_methods for service in services)),
            )
            names = [name for service in services for name in service.health_names]
            servicer = health.HealthServicer(names)
            grpc_server = grpc.aio.server(
                interceptors=[chain], options=_options(settings), maximum_concurrent_rpcs=settings.max_concurrent_rpcs
            )
            health_pb2_grpc.add_HealthServicer_to_server(servicer, grpc_server)
            for service in services:
                service.register(grpc_server)
            if settings.reflection:
                reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], grpc_server)
            server = cls(grpc_server, _listen(grpc_server, settings), chain, servicer)
            await grpc_server.start()
            try:
                _LOGGER.info("listening", extra={"fields": {"host": settings.host, "port": server.port}})
                yield server
            finally:
                server.set_serving(False)
                servicer.close()
                chain.end_endless_calls()
                await grpc_server.stop(settings.grace_seconds)

    def set_serving(self, serving: bool = True) -> None:
        """Health becomes SERVING (or NOT_SERVING) for every name but the liveness one."""
        self._health.set_serving(serving)


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

    A second signal cuts the drain short. Health is NOT_SERVING until `ready` is done; when `ready` raises, the server
    stops and the error is raised here. `on_listening` is told the port.
    """
    warming = asyncio.ensure_future(ready) if ready is not None else None
    try:
        with _signals() as signalled:
            async with Server.open(settings, services, keys=keys, registry=registry) as server:
                if on_listening is not None:
                    on_listening(server.port)
                stopping = asyncio.create_task(signalled.wait())
                if warming is not None:
                    await asyncio.wait((warming, stopping), return_when=asyncio.FIRST_COMPLETED)
                    if warming.done():
                        warming.result()
                if not stopping.done():
                    server.set_serving()
                    _LOGGER.info("serving")
                await stopping
                signalled.clear()
                server.set_serving(False)
                _LOGGER.info("draining", extra={"fields": {"seconds": settings.drain_seconds}})
                try:
                    async with asyncio.timeout(settings.drain_seconds):
                        await signalled.wait()
                except TimeoutError:
                    pass
        _LOGGER.info("stopped")
    finally:
        if warming is not None and not warming.done():
            warming.cancel()
            await asyncio.wait((warming,))


def run(main: Coroutine[Any, Any, None], settings: Settings | None = None) -> None:
    """Runs a process: logging as the settings say, uvloop, then `main`."""
    if settings is not None:
        configure_logging(settings)
    uvloop.run(main)


@asynccontextmanager
async def open_keys(settings: Settings) -> AsyncIterator[KeyStore]:
    """The key store of the settings."""
    async with Database.open(settings.auth_database_url, MIGRATIONS) as database:
        yield KeyStore(database, service_key=settings.service_key, cache_seconds=settings.key_cache_seconds)


def reflection_services(settings: Settings) -> tuple[str, ...]:
    """The reflection services that need no credential, when the setting is on."""
    return (reflection.SERVICE_NAME,) if settings.reflection else ()


def _collecting(registry: CollectorRegistry, metrics: CallMetrics) -> CollectorRegistry:
    registry.register(metrics)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def _listen(server: grpc.aio.Server, settings: Settings) -> int:
    host = (
        f"[{settings.host}]" if ":" in settings.host and not settings.host.startswith(("unix:", "[")) else settings.host
    )
    address = host if host.startswith("unix:") else f"{host}:{settings.port}"
    credentials = tls.server_credentials(settings)
    if credentials is None:
        return server.add_insecure_port(address)
    return server.add_secure_port(address, credentials)


def _options(settings: Settings) -> list[tuple[str, int]]:
    """Channel arguments of the server. Times are milliseconds."""
    return [
        ("grpc.so_reuseport", int(settings.so_reuseport)),
        ("grpc.max_receive_message_length", settings.max_receive_bytes),
        ("grpc.max_send_message_length", settings.max_send_bytes),
        ("grpc.max_connection_age_ms", round(settings.max_connection_age_seconds * 1000)),
        ("grpc.max_connection_age_grace_ms", round(settings.max_connection_age_grace_seconds * 1000)),
        ("grpc.keepalive_time_ms", round(settings.keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients of the suite ping every 30 s (see channels); strangers may up to this often.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ]


@contextmanager
def _signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set."""
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled.set)
    try:
        yield signalled
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
