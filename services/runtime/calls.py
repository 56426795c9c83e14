"""One RPC while it runs: what the interceptors learn of it, and what goes along with the calls that it causes."""

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from services.runtime.callers import Caller
from services.runtime.errors import Code

RawContext = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, eq=False)
class Method:
    """What is fixed for a method. Compared by identity: it is a key on the hot path."""

    full_name: str
    """`/inkling.ingest.v1.IngestService/Ingest`"""
    kind: str
    """`unary`, `client_stream`, `server_stream` or `bidi_stream`."""
    domain: str
    """The domain of its errors."""
    public: bool = False
    """Needs no credential (health)."""
    endless: bool = False
    """Ends only when somebody ends it: the server does when it drains."""

    @property
    def service_name(self) -> str:
        """`inkling.ingest.v1.IngestService`"""
        return self.full_name.rpartition("/")[0].lstrip("/")

    @property
    def name(self) -> str:
        """`Ingest`"""
        return self.full_name.rpartition("/")[2]


@dataclass(slots=True, eq=False)
class Call:
    """One RPC. The interceptors fill it in, from the outside in."""

    method: Method
    context: RawContext
    metadata: dict[str, str | bytes]
    request_id: str = ""
    caller: Caller | None = None
    code: Code = Code.OK
    outgoing: dict[str, str] = field(default_factory=dict)
    """Metadata for the calls that this one causes: request id, trace."""
    task: asyncio.Task[object] | None = None
    drained: bool = False
    """Ended by the server, which is going away."""
    ended: bool = False
    """Over; tasks that it started may still run."""


CALL: ContextVar[Call | None] = ContextVar("call", default=None)


def current_call() -> Call | None:
    """The RPC that runs now; None outside of one, and in tasks that go on after the one that started them."""
    call = CALL.get()
    return None if call is None or call.ended else call


def remaining_seconds() -> float | None:
    """How long the caller of the RPC that runs now will wait; None when it set no deadline, or outside of one."""
    call = current_call()
    return None if call is None else call.context.time_remaining()
