"""Channels to other services: one service config with a timeout for every method, credentials on every call."""

from pathlib import Path

import grpc.aio


def open_channel(
    target: str,
    *,
    key: str = "",
    project: str | None = None,
    health_service: str = "",
    ca_file: Path | None = None,
    certificate_file: Path | None = None,
    key_file: Path | None = None,
) -> grpc.aio.Channel:
    """A channel to `target` (`dns:///features:7002`, `127.0.0.1:7002`); close it, or use it in `async with`.

    `key` is an API key or the shared service key; `project` is named in `x-inkling-project` (service key only; leave
    it out to give it with each call's metadata). `health_service` turns on health checks of that name.
    """
    raise NotImplementedError
