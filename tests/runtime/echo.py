"""A service with a method of every kind, over `StringValue`, that does what its requests say."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
from google.protobuf.wrappers_pb2 import StringValue

from services.runtime import errors
from services.runtime.auth import Role, current_caller
from services.runtime.calls import current_call
from services.runtime.server import Service

NAME = "test.v1.EchoService"
READ = frozenset({Role.READ})
SECRET = "swordfish"
Context = grpc.aio.ServicerContext[Any, Any]


class PanicException(BaseException):
    """What a native extension raises when it panics: not an Exception."""


class EchoServicer:
    """Answers with what it is sent, or fails as it is told."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.generator_closed = asyncio.Event()

    async def echo(self, request: StringValue, context: Context) -> StringValue:
        match request.value:
            case "secret failure":
                raise ValueError(f"the secret is {SECRET}")
            case "panic":
                raise PanicException(f"the secret is {SECRET}")
            case "internal":
                raise errors.Internal(f"the secret is {SECRET}")
            case "missing":
                raise errors.NotFound("no such thing", reason="NO_SUCH_THING", metadata={"thing": "a"})
            case "violations":
                violations = [errors.Violation(f"items[{n}]", f"bad{'ly' * 60}: fix it", "BAD") for n in range(60)]
                raise errors.InvalidArgument("many mistakes", violations=violations)
            case "later":
                raise errors.Unavailable("busy", retry_after=timedelta(seconds=2.5))
            case "abort":
                await context.abort(grpc.StatusCode.DATA_LOSS, "by hand")
            case "not a message":
                return "not a message"  # type: ignore[return-value]
            case "who":
                caller = current_caller()
                return StringValue(value=f"{caller.project} {','.join(sorted(caller.roles))}")
            case "request id":
                call = current_call()
                return StringValue(value=call.request_id if call else "")
            case "sleep":
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
        return StringValue(value=request.value)

    async def expand(self, request: StringValue, context: Context) -> AsyncIterator[StringValue]:
        try:
            for character in request.value:
                if character == "!":
                    raise errors.OutOfRange("an exclamation mark")
                if character == "?":
                    raise ValueError(f"the secret is {SECRET}")
                yield StringValue(value=character)
        finally:
            self.generator_closed.set()

    async def write(self, request: StringValue, context: Context) -> None:
        for character in request.value:
            await context.write(StringValue(value=character))

    async def collect(self, requests: AsyncIterator[StringValue], context: Context) -> StringValue:
        return StringValue(value="".join([request.value async for request in requests]))

    async def chat(self, requests: AsyncIterator[StringValue], context: Context) -> AsyncIterator[StringValue]:
        async for request in requests:
            if request.value == "!":
                raise errors.OutOfRange("an exclamation mark")
            yield StringValue(value=request.value.upper())

    async def forever(self, request: StringValue, context: Context) -> AsyncIterator[StringValue]:
        yield StringValue(value="first")
        await asyncio.Event().wait()

    async def raw(self, request: bytes, context: Context) -> bytes:
        return request[::-1]

    def register(self, server: grpc.aio.Server) -> None:
        """Adds all methods, and one that no policy names."""
        coding: dict[str, Any] = {
            "request_deserializer": StringValue.FromString,
            "response_serializer": StringValue.SerializeToString,
        }
        behaviors: dict[str, Any] = {
            "Echo": grpc.unary_unary_rpc_method_handler(self.echo, **coding),
            "Expand": grpc.unary_stream_rpc_method_handler(self.expand, **coding),
            "Write": grpc.unary_stream_rpc_method_handler(self.write, **coding),
            "Collect": grpc.stream_unary_rpc_method_handler(self.collect, **coding),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat, **coding),
            "Forever": grpc.unary_stream_rpc_method_handler(self.forever, **coding),
            "Raw": grpc.unary_unary_rpc_method_handler(self.raw),
            "Forgotten": grpc.unary_unary_rpc_method_handler(self.echo, **coding),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, behaviors),))


METHODS = {
    "Echo": "unary_unary",
    "Expand": "unary_stream",
    "Write": "unary_stream",
    "Collect": "stream_unary",
    "Chat": "stream_stream",
    "Forever": "unary_stream",
    "Raw": "unary_unary",
}


def echo_service(servicer: EchoServicer) -> Service:
    """The service, with a policy for every method but `Forgotten`."""
    return Service(
        name="echo",
        domain="echo.inkling",
        register=servicer.register,
        health_names=(NAME,),
        policies={f"/{NAME}/{method}": READ for method in METHODS},
        endless_methods=frozenset({f"/{NAME}/Forever"}),
    )


async def send(channel: grpc.aio.Channel, method: str, *values: str, **options: Any) -> list[str]:
    """Calls a method of any kind with requests of these values; the values of the answers."""
    kind = METHODS.get(method, "unary_unary")
    call = getattr(channel, kind)(
        f"/{NAME}/{method}",
        request_serializer=StringValue.SerializeToString,
        response_deserializer=StringValue.FromString,
    )
    messages = [StringValue(value=value) for value in values]
    begun = call(iter(messages) if kind.startswith("stream") else messages[0], **options)
    if kind.endswith("stream"):
        return [response.value async for response in begun]
    return [(await begun).value]
