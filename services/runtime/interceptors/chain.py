"""Runs the interceptors around every method of the server.

gRPC asks for one interceptor, once per call; `Chain` answers with a handler that it has wrapped once per method, so a
call pays for the context managers and nothing else.

Inside the chain, not before it, requests of unary methods are parsed and their responses written, so that strangers'
bytes are not parsed at all and malformed ones are answered INVALID_ARGUMENT. Handlers may be coroutines, async
generators, or use `context.read` and `context.write`.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import grpc.aio

from services.runtime.calls import Call, Method, RawContext
from services.runtime.errors import InvalidArgument

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]  # generic in the stubs only
else:
    Handler = grpc.RpcMethodHandler

Deserializer = Callable[[bytes], Any]
Serializer = Callable[[Any], bytes]
Behavior = Callable[[Any, RawContext], Any]
_Step = Callable[[Call, Any], Awaitable[Any]]


class CallInterceptor(Protocol):
    """Makes the context manager that surrounds a call."""

    name: str
    """Its place in the order."""
    active: bool
    """Off ones cost nothing."""

    def __call__(self, call: Call) -> AbstractAsyncContextManager[object]:
        """Enters before the handler and leaves after it, with its exception if it raised one."""
        ...


class Chain(grpc.aio.ServerInterceptor):
    """The one interceptor that gRPC sees."""

    def __init__(
        self,
        interceptors: Sequence[CallInterceptor],
        *,
        domains: Mapping[str, str],
        public_services: Collection[str] = (),
        endless_methods: Collection[str] = (),
    ) -> None:
        """`domains` maps full names of gRPC services to the domains of their errors."""
        self.interceptors = tuple(interceptors)
        self._domains = domains
        self._public_services = public_services
        self._endless_methods = endless_methods
        self._handlers: dict[str, Handler] = {}
        self._endless: set[Call] = set()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The wrapped handler; None for unknown methods, which gRPC answers UNIMPLEMENTED."""
        name = str(handler_call_details.method)
        wrapped = self._handlers.get(name)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            wrapped = self._handlers[name] = self._wrap(self._describe(name, handler), handler)
        return wrapped

    def end_endless_calls(self) -> None:
        """Ends the streams that would not end by themselves; their callers get UNAVAILABLE and connect elsewhere."""
        for call in tuple(self._endless):
            if call.task is not None:
                call.drained = True
                call.task.cancel()

    def _describe(self, name: str, handler: Handler) -> Method:
        kinds = {(0, 0): "unary", (1, 0): "client_stream", (0, 1): "server_stream", (1, 1): "bidi_stream"}
        service = name.rpartition("/")[0].lstrip("/")
        return Method(
            full_name=name,
            kind=kinds[bool(handler.request_streaming), bool(handler.response_streaming)],
            domain=self._domains.get(service, "inkling"),
            public=service in self._public_services,
            endless=name in self._endless_methods,
        )

    def _wrap(self, method: Method, handler: Handler) -> Handler:
        streamed_request = bool(handler.request_streaming)
        deserialize = _strict(handler.request_deserializer)
        serialize = handler.response_serializer
        parse = None if streamed_request else deserialize
        request_deserializer = deserialize if streamed_request else None
        if not handler.response_streaming:
            behavior: Any = handler.stream_unary if streamed_request else handler.unary_unary
            run = self._entry(method, _one_response(behavior, parse, serialize))
            make = grpc.stream_unary_rpc_method_handler if streamed_request else grpc.unary_unary_rpc_method_handler
            return make(run, request_deserializer, None)
        behavior = handler.stream_stream if streamed_request else handler.unary_stream
        run = self._entry(method, _many_responses(behavior, parse))
        make = grpc.stream_stream_rpc_method_handler if streamed_request else grpc.unary_stream_rpc_method_handler
        return make(run, request_deserializer, serialize)

    def _entry(self, method: Method, innermost: _Step) -> Behavior:
        run = innermost
        for interceptor in reversed(self.interceptors):
            if interceptor.active:
                run = _around(interceptor, run)
        outermost = run

        async def enter(request: Any, context: RawContext) -> Any:
            return await outermost(Call(method, context, dict(context.invocation_metadata() or ())), request)

        async def enter_endless(request: Any, context: RawContext) -> Any:
            call = Call(method, context, dict(context.invocation_metadata() or ()), task=asyncio.current_task())
            self._endless.add(call)
            try:
                return await outermost(call, request)
            finally:
                self._endless.discard(call)

        return enter_endless if method.endless else enter


def _around(interceptor: CallInterceptor, inner: _Step) -> _Step:
    async def step(call: Call, request: Any) -> Any:
        async with interceptor(call):
            return await inner(call, request)

    return step


def _one_response(behavior: Behavior, parse: Deserializer | None, serialize: Serializer | None) -> _Step:
    async def respond(call: Call, request: Any) -> Any:
        response = await behavior(request if parse is None else parse(request), call.context)
        return response if serialize is None else serialize(response)

    return respond


def _many_responses(behavior: Behavior, parse: Deserializer | None) -> _Step:
    async def respond(call: Call, request: Any) -> None:
        context = call.context
        result = behavior(request if parse is None else parse(request), context)
        if inspect.isasyncgen(result):
            # Closed here, so that what the generator holds is given back before the call is counted as done.
            async with aclosing(result) as responses:
                async for response in responses:
                    await context.write(response)
        else:
            await result

    return respond


def _strict(deserialize: Deserializer | None) -> Deserializer | None:
    if deserialize is None:
        return None
    inner = deserialize

    def parse(data: bytes) -> Any:
        try:
            return inner(data)
        except Exception as error:
            raise InvalidArgument("the request is not a well-formed message", reason="MALFORMED") from error

    return parse
