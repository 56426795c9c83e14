"""Events a second and read latency, each beside its floor: the same bytes to an echo server, in the same run."""

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import grpc

from examples.demo.attributes import SERVICE
from examples.demo.cdnow import Purchase
from inkling.features.v1 import profile_pb2, profile_service_pb2
from inkling.ingest.v1 import ingest_service_pb2

BATCH, CALLERS = 2_000, 4
READS, WARM_UP = 2_000, 200
OPTIONS = (("grpc.max_send_message_length", 16 << 20), ("grpc.use_local_subchannel_pool", 1))
INGEST = "/inkling.ingest.v1.IngestService/Ingest"
GET_PROFILE = "/inkling.features.v1.ProfileService/GetProfile"

RawMethod = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Latencies:
    """Of sequential calls, in milliseconds."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured."""

    events_per_second: float
    events_floor: float
    read: Latencies
    read_floor: Latencies


async def measure(
    ingest: str, features: str, ingest_key: str, read_key: str, purchases: Sequence[Purchase], customers: Sequence[str]
) -> Figures:
    """Measures both paths and their floors. `ingest_key` is of a project of its own: its events change no profile."""
    batches = [
        ingest_service_pb2.IngestRequest(
            events=[each.to_event().to_message() for each in purchases[start : start + BATCH]]
        ).SerializeToString()
        for start in range(0, len(purchases), BATCH)
    ]
    chosen = random.Random(4).sample(list(customers), min(READS, len(customers)))
    reads = [read_request(customer) for customer in chosen]
    async with echo_server() as echo:
        async with channel(ingest) as to_ingest, channel(echo) as to_echo:
            events_floor = await throughput(raw(to_echo, "/demo.Echo/Swallow"), batches, (), len(purchases))
            credentials = (("authorization", f"Bearer {ingest_key}"),)
            events = await throughput(raw(to_ingest, INGEST), batches, credentials, len(purchases))
        async with channel(features) as to_features, channel(echo) as to_echo:
            credentials = (("authorization", f"Bearer {read_key}"),)
            get_profile = raw(to_features, GET_PROFILE)
            answers = [await get_profile(each, metadata=credentials) for each in reads[:WARM_UP]]
            read = await latencies(get_profile, reads, credentials)
            read_floor = await latencies(raw(to_echo, "/demo.Echo/Echo"), answers * (len(reads) // len(answers)), ())
    return Figures(events, events_floor, read, read_floor)


def read_request(customer: str) -> bytes:
    """The bytes of a GetProfile."""
    return profile_service_pb2.GetProfileRequest(
        key_value=customer, selection=profile_pb2.Selection(feature_service=f"featureServices/{SERVICE}")
    ).SerializeToString()


async def throughput(method: RawMethod, batches: Sequence[bytes], metadata: Metadata, events: int) -> float:
    """Events a second of some concurrent callers, until all batches are answered."""
    await method(batches[0], metadata=metadata)
    waiting = iter(batches)

    async def caller() -> None:
        for batch in waiting:
            await method(batch, metadata=metadata)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(caller())
    return events / (time.perf_counter() - started)


async def latencies(method: RawMethod, requests: Sequence[bytes], metadata: Metadata) -> Latencies:
    """Of calls one after the other."""
    for request in requests[:WARM_UP]:
        await method(request, metadata=metadata)
    taken: list[float] = []
    for request in requests:
        started = time.perf_counter()
        await method(request, metadata=metadata)
        taken.append((time.perf_counter() - started) * 1_000)
    taken.sort()
    return Latencies(taken[len(taken) // 2], taken[len(taken) * 99 // 100])


def channel(address: str) -> grpc.aio.Channel:
    """A connection of its own."""
    return grpc.aio.insecure_channel(address, options=OPTIONS)


def raw(opened: grpc.aio.Channel, method: str) -> RawMethod:
    """A method called with bytes, so that both sides of a comparison do the same on the client."""
    return opened.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)


@contextlib.asynccontextmanager
async def echo_server() -> AsyncIterator[str]:
    """The echo server as a process; gives its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "examples.demo.echo"), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield f"127.0.0.1:{int(await process.stdout.readline())}"
    finally:
        process.terminate()
        await process.wait()
