"""Any exception becomes a status: those of the domain with their details, all others INTERNAL with a request id."""

import asyncio
import logging
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import NoReturn

import grpc.aio

from services.runtime.calls import Call
from services.runtime.errors import Code, InklingError, Internal, Unavailable
from services.runtime.statuses import DETAILS_KEY, grpc_code, status_of

_LOGGER = logging.getLogger(__name__)
_CODES = {code.value[0]: Code(code.name) for code in grpc.StatusCode}


class ErrorMapping:
    """Makes it total: nothing that a handler raises reaches gRPC as it is."""

    name = "errors"
    active = True

    def __call__(self, call: Call) -> AbstractAsyncContextManager[object]:
        return _Errors(call)


class _Errors:
    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            return
        call = self._call
        if isinstance(error, InklingError):
            if isinstance(error, Internal):
                _LOGGER.error("broken invariant in %s", call.method.full_name, exc_info=error)
            await _abort(call, error)
        elif isinstance(error, grpc.aio.AbortError):
            call.code = _CODES.get(_code_number(call), Code.UNKNOWN)
        elif isinstance(error, asyncio.CancelledError):
            if call.drained:
                _take_back_cancellation()
                await _abort(call, Unavailable("the server is going away: connect again", reason="DRAINING"))
            call.code = Code.DEADLINE_EXCEEDED if call.context.time_remaining() == 0 else Code.CANCELLED
        elif not isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            # Also what derives from BaseException only: panics of native extensions do.
            _LOGGER.error("unexpected error in %s", call.method.full_name, exc_info=error)
            await _abort(call, Internal("unexpected error"))


def _code_number(call: Call) -> int:
    code: object = call.context.code()
    return int(code.value[0]) if isinstance(code, grpc.StatusCode) else int(str(code or 0))


def _take_back_cancellation() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


async def _abort(call: Call, error: InklingError) -> NoReturn:
    call.code = error.code
    status = status_of(error, call.method.domain, call.request_id)
    trailers = ((DETAILS_KEY, status.SerializeToString()), ("x-request-id", call.request_id))
    await call.context.abort(grpc_code(error.code), status.message, trailers)
    raise AssertionError("abort always raises")
