"""One gRPC channel per service, with credentials, deadlines, compression and retries."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeVar

import grpc

from inkling.errors import ClientClosed, InklingError, ResourceExhausted, Unavailable, from_rpc_error

ServiceName = Literal["ingest", "features", "insights"]
Request = TypeVar("Request")
Response = TypeVar("Response")

CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", 32 << 20),
    ("grpc.max_send_message_length", 9 << 20),
    ("grpc.enable_retries", 0),
)
"""Reconnects quickly, because a service that was restarted is back within seconds; retries are made here, not twice."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed call is tried again: UNAVAILABLE always, RESOURCE_EXHAUSTED when the service says how long to wait.

    The wait doubles from `first_delay` to `max_delay` seconds, each time a random part of it; the service's own
    RetryInfo goes before. `attempts` bounds the attempts, the deadline of the call bounds them all.
    """

    attempts: int = 8
    first_delay: float = 0.1
    max_delay: float = 5.0

    def delay(self, attempt: int, error: InklingError) -> float:
        """Seconds to wait after the failed attempt of this number, counted from 1."""
        if error.retry_after is not None:
            return error.retry_after.total_seconds()
        # Between half and the whole, so that callers who failed together do not come back together.
        return min(self.max_delay, self.first_delay * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)

    def retries(self, attempt: int, error: InklingError) -> bool:
        """Whether to try again after the failed attempt of this number."""
        retryable = isinstance(error, Unavailable) or (isinstance(error, ResourceExhausted) and error.retry_after)
        return bool(retryable) and attempt < self.attempts


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Certificates in PEM: the authority that signed the server's, and the client's own pair for mutual TLS."""

    root_certificate: bytes | None = None
    private_key: bytes | None = None
    certificate: bytes | None = None


class Transport:
    """The channels of one client. Opened at first use, on the running loop; closed by `close`."""

    def __init__(
        self,
        addresses: dict[ServiceName, str],
        *,
        api_key: str,
        timeout: timedelta,
        retry: RetryPolicy,
        compression: Literal["gzip"] | None,
        tls: TlsFiles | None,
    ) -> None:
        self._addresses = addresses
        self._api_key = api_key
        self._tls = tls
        self._compression = grpc.Compression.Gzip if compression == "gzip" else grpc.Compression.NoCompression
        self._channels: dict[ServiceName, grpc.aio.Channel] = {}
        self._closed = False
        self.timeout = timeout
        self.retry = retry

    def channel(self, service: ServiceName) -> grpc.aio.Channel:
        """The channel to a service; ClientClosed after `close`."""
        self._refuse_closed()
        if service not in self._channels:
            address = self._addresses[service]
            if self._tls is None:
                opened = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS, compression=self._compression)
            else:
                credentials = grpc.ssl_channel_credentials(
                    self._tls.root_certificate, self._tls.private_key, self._tls.certificate
                )
                opened = grpc.aio.secure_channel(
                    address, credentials, options=CHANNEL_OPTIONS, compression=self._compression
                )
            self._channels[service] = opened
        return self._channels[service]

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries; ClientClosed after `close`."""
        self._refuse_closed()
        return (("authorization", f"Bearer {self._api_key}"),) if self._api_key else ()

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        timeout: timedelta | None = None,
        retries: bool = True,
    ) -> Response:
        """Calls a unary method; `timeout` bounds all attempts together. Raises an InklingError.

        `retries` is False for what must not be done twice.
        """
        ends = asyncio.get_running_loop().time() + (timeout or self.timeout).total_seconds()

        async def attempt() -> Response:
            left = max(0.001, ends - asyncio.get_running_loop().time())
            answer: Response = await method(request, timeout=left, metadata=self.metadata())
            return answer

        return await self.retrying(attempt, ends=ends, retries=retries)

    async def retrying(
        self, attempt: Callable[[], Awaitable[Response]], *, ends: float | None, retries: bool = True
    ) -> Response:
        """Runs an attempt until it succeeds, may not be retried, or would have to wait past `ends` (loop time)."""
        number = 0
        while True:
            number += 1
            try:
                return await attempt()
            except grpc.RpcError as failed:
                error = from_rpc_error(failed)
                if not retries or not self.retry.retries(number, error):
                    raise error from failed
                delay = self.retry.delay(number, error)
                if ends is not None and asyncio.get_running_loop().time() + delay >= ends:
                    raise error from failed
            await asyncio.sleep(delay)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ClientClosed("the client is closed")

    async def close(self) -> None:
        """Closes the channels; calls in flight are cancelled."""
        self._closed = True
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            await channel.close()
