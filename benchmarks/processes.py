"""Services as processes, and what they cost: used by the benchmarks that go through gRPC."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc

from inkling.cli.suite import Suite
from inkling.cli.up import first_key

OPTIONS = (("grpc.max_send_message_length", 16 << 20), ("grpc.use_local_subchannel_pool", 1))
INGEST = "/inkling.ingest.v1.IngestService/Ingest"
GET_PROFILE = "/inkling.features.v1.ProfileService/GetProfile"

RawMethod = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


def cpu_seconds_of(pid: int) -> float:
    """The processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.asynccontextmanager
async def running_suite(folder: Path) -> AsyncIterator[tuple[Suite, str]]:
    """The services on a folder, on free ports, with a key that may do everything."""
    async with Suite(folder, environ=os.environ, ports={"ingest": 0, "features": 0}) as suite:
        key = await first_key(folder)
        assert key is not None, "the folder is new"
        await suite.start()
        yield suite, key


@contextlib.asynccontextmanager
async def echo_server() -> AsyncIterator[tuple[str, int]]:
    """The floor: a process that answers requests with nothing, or with the same bytes. Gives its address and pid."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "examples.demo.echo"), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield f"127.0.0.1:{int(await process.stdout.readline())}", process.pid
    finally:
        process.kill()
        await process.wait()


def raw(channel: grpc.aio.Channel, method: str) -> RawMethod:
    """A method called with bytes, so that the client costs the same on both sides of a comparison."""
    return channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)


async def send_all(address: str, method: str, requests: Sequence[bytes], callers: int, key: str = "") -> None:
    """Sends requests from concurrent callers, each with a connection of its own."""
    metadata = (("authorization", f"Bearer {key}"),) if key else ()
    waiting = iter(requests)

    async def caller() -> None:
        async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
            call = raw(channel, method)
            for request in waiting:
                await call(request, metadata=metadata)

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
