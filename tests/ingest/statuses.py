"""Reads the rich status of a failed call."""

from collections.abc import Awaitable

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

DOMAIN = "ingest.inkling"


async def failure(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason in its ErrorInfo."""
    info = detail(error, error_details_pb2.ErrorInfo())
    assert info is not None
    assert info.domain == DOMAIN
    return info.reason


def detail(error: grpc.aio.AioRpcError, message):  # type: ignore[no-untyped-def]
    """One detail of the status by its type, or None."""
    status = rpc_status.from_call(error)
    for packed in status.details if status is not None else ():
        if packed.Unpack(message):
            return message
    return None
