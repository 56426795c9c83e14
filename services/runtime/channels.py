"""Channels to other services: a timeout for every method and retries from one table, credentials on every call.

What belongs to the call that is being answered goes along: its request id, its trace, and what is left of its
deadline. So work that nobody waits for any more stops everywhere.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import grpc
import grpc.aio

from services.runtime import tls
from services.runtime.call_rules import service_config, timeout_seconds
from services.runtime.calls import current_call
from services.runtime.settings import MEBIBYTE

_Metadata = tuple[tuple[str, str | bytes], ...]


def open_channel(
    target: str,
    *,
    key: str = "",
    project: str | None = None,
    health_service: str = "",
    ca_file: Path | None = None,
    certificate_file: Path | None = None,
    key_file: Path | None = None,
    max_receive_bytes: int = 32 * MEBIBYTE,
    max_send_bytes: int = 16 * MEBIBYTE,
) -> grpc.aio.Channel:
    """A channel to `target` (`dns:///features:7002`, `127.0.0.1:7002`); close it, or use it in `async with`.

    `key` is an API key or the shared service key; `project` is sent as `x-inkling-project` (services only; leave it
    out to give it with each call's metadata). `health_service` turns on health checks of that name. With `ca_file`
    the connection is TLS, with a certificate and its key mutual TLS.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", service_config(health_service, timeouts=False)),
        ("grpc.max_receive_message_length", max_receive_bytes),
        ("grpc.max_send_message_length", max_send_bytes),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        # Channels of one process do not share a connection behind our back.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if ca_file is None:
        channel = grpc.aio.insecure_channel(target, options=options)
    else:
        credentials = tls.client_credentials(ca_file, certificate_file, key_file)
        channel = grpc.aio.secure_channel(target, credentials, options=options)
    fixed: list[tuple[str, str | bytes]] = []
    if key:
        fixed.append(("authorization", f"Bearer {key}"))
    if project is not None:
        fixed.append(("x-inkling-project", project))
    return _Channel(channel, tuple(fixed))


class _Channel(grpc.aio.Channel):
    """Adds to each call what its caller need not think of.

    Not gRPC's own interceptors, which cost a task for each call.
    """

    def __init__(self, channel: grpc.aio.Channel, metadata: _Metadata) -> None:
        self._channel = channel
        self._metadata = metadata

    async def __aenter__(self) -> Self:
        await self._channel.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._channel.close()

    async def close(self, grace: float | None = None) -> None:
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._channel.channel_ready()

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._outgoing(method, self._channel.unary_unary(method, *arguments, **options))

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._outgoing(method, self._channel.unary_stream(method, *arguments, **options))

    def stream_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._outgoing(method, self._channel.stream_unary(method, *arguments, **options))

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._outgoing(method, self._channel.stream_stream(method, *arguments, **options))

    def _outgoing(self, method: str, call: Callable[..., Any]) -> Callable[..., Any]:
        fixed = self._metadata
        default_timeout = timeout_seconds(method)

        def outgoing(
            *request: Any,
            timeout: float | None = default_timeout,
            metadata: Iterable[tuple[str, str | bytes]] | Mapping[str, str | bytes] | None = None,
            **options: Any,
        ) -> Any:
            given = metadata.items() if isinstance(metadata, Mapping) else metadata or ()
            cause = current_call()
            if cause is None:
                return call(*request, timeout=timeout, metadata=(*fixed, *given), **options)
            remaining = cause.context.time_remaining()
            if remaining is not None:
                timeout = remaining if timeout is None else min(timeout, remaining)
            return call(*request, timeout=timeout, metadata=(*fixed, *cause.outgoing.items(), *given), **options)

        return outgoing
