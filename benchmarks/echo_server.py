"""The floors of bench_ingest as processes: `python -m benchmarks.echo_server echo|append FOLDER`.

`echo` takes the bytes of a request and answers; `append` also appends them, as they are, to the same durable log. Both
are bare grpc.aio servers on uvloop. The port is the first line printed.
"""

import asyncio
import sys

import grpc
import grpc.aio
import uvloop

from services.ingest.log import open_log

_ANSWER = b"\x08\xf4\x03\x10\xf4\x03"
_OPTIONS = [("grpc.max_receive_message_length", 16 << 20), ("grpc.so_reuseport", 0)]


async def serve(mode: str, folder: str) -> None:
    """Serves until killed."""
    async with open_log(f"sqlite:///{folder}/floor.db") as log:

        async def echo(request: bytes, context: object) -> bytes:
            return _ANSWER

        async def append(request: bytes, context: object) -> bytes:
            await log.append("p", request, 500, min_occurred_us=0, max_occurred_us=1, received_us=1)
            return _ANSWER

        server = grpc.aio.server(options=_OPTIONS)
        handler = grpc.unary_unary_rpc_method_handler({"echo": echo, "append": append}[mode], None, None)
        methods = {"Ingest": handler}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("inkling.ingest.v1.IngestService", methods),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], sys.argv[2]))
