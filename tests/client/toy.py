"""A service as the supervisor knows one: a process with health, settings from its environment, an end on SIGTERM.

It says what it was told. `toy_first` and `toy_second` run it under two names.
"""

import asyncio
import os
import signal
import sys

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


async def serve(prefix: str) -> None:
    """Serves until SIGTERM."""
    told = {name.removeprefix(prefix): value for name, value in os.environ.items() if name.startswith(prefix)}
    if told.get("FAIL"):
        print("the database is on fire", flush=True)
        sys.exit(3)
    print(f"told {' '.join(f'{name}={told[name]}' for name in sorted(told))}", flush=True)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    servicer = health.aio.HealthServicer()
    await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{told['PORT']}")
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await asyncio.sleep(0.1)
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    await stop.wait()
    await server.stop(0)
    print("bye", flush=True)


def main(prefix: str) -> None:
    """Runs it."""
    asyncio.run(serve(prefix))
