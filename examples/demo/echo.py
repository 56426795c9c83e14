"""A gRPC server that answers every request with the same bytes: what the network and gRPC cost when nothing is done.

Run as `python -m examples.demo.echo`; it prints its port.
"""

import asyncio

import grpc
import uvloop


async def serve() -> None:
    """Serves until the process is ended."""

    async def echo(request: bytes, context: object) -> bytes:
        return request

    async def swallow(request: bytes, context: object) -> bytes:
        return b""

    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Swallow": grpc.unary_unary_rpc_method_handler(swallow),
    }
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 16 << 20)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("demo.Echo", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
