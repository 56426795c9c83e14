"""Setting properties: values a second through BatchSetProperties, durable, and until they are read.

The floor, in the same run: events of the same bytes through bare Ingest, from the same client. Each write sets five
properties of one profile (two strings, two numbers, a boolean); a stream carries chunks of 1,000 writes. Medians of
interleaved rounds; CPU is that of the service processes, user and system.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc.aio
import uvloop

from benchmarks.processes import running_suite
from benchmarks.tables import Table, median_of
from examples.demo.figures import INGEST, OPTIONS, raw
from inkling import AsyncClient
from inkling.cli.suite import Suite
from inkling.client.properties import PropertySpec, PropertyWrite
from inkling.features.v1 import property_service_pb2 as messages
from services.features.properties import PropertyDefinition, PropertyType
from services.features.property_events import WriteEncoder
from services.kernel.columns import RESERVED_VENDOR
from services.runtime.auth import MIGRATIONS, KeyStore, Role
from services.runtime.database import Database

PROFILES, CHUNK, ROUNDS, WINDOW = 50_000, 1_000, 3, 4
BATCH_SET = "/inkling.features.v1.PropertyService/BatchSetProperties"
SPECS = (
    PropertySpec("plan", "string"),
    PropertySpec("country", "string"),
    PropertySpec("score", "numeric"),
    PropertySpec("lifetime_value", "numeric"),
    PropertySpec("subscribed", "boolean"),
)
_TICKS = os.sysconf("SC_CLK_TCK")


def values(number: int, round_: int) -> dict[str, str | float | bool]:
    """What is set of one profile."""
    return {
        "plan": ("free", "basic", "pro")[number % 3],
        "country": ("GB", "FR", "DE", "NL")[number % 4],
        "score": number / 7,
        "lifetime_value": float(number + round_),
        "subscribed": number % 2 == 0,
    }


def chunks(round_: int) -> Iterator[bytes]:
    """The requests of a stream, as bytes."""
    for sequence, start in enumerate(range(0, PROFILES, CHUNK), 1):
        writes = [PropertyWrite(f"user-{n}", values(n, round_)).to_message() for n in range(start, start + CHUNK)]
        yield messages.BatchSetPropertiesRequest(
            sequence=sequence, attribute_key="user_id", writes=writes, write_id=f"round-{round_}-{sequence}"
        ).SerializeToString()


def batches(round_: int) -> Iterator[bytes]:
    """The same writes as events of nobody's vendor, byte for byte as many."""
    encoder = encoder_of()
    for request in chunks(round_):
        message = messages.BatchSetPropertiesRequest.FromString(request)
        encoded = encoder.encode(message.writes, message.write_id, time.time_ns() // 1_000)
        yield encoded.request.replace(RESERVED_VENDOR.encode(), b"example")


def encoder_of() -> WriteEncoder:
    """The encoder of the service, over the same declarations."""
    definitions = [PropertyDefinition("user_id", spec.name, PropertyType(spec.type)) for spec in SPECS]
    return WriteEncoder(definitions, "user_id", "api")


async def through_ingest(channel: grpc.aio.Channel, key: str, requests: list[bytes]) -> None:
    """All batches, so many at once."""
    send, metadata = raw(channel, INGEST), (("authorization", f"Bearer {key}"),)
    waiting = iter(requests)

    async def caller() -> None:
        for request in waiting:
            await send(request, metadata=metadata)

    await asyncio.gather(*(caller() for _ in range(WINDOW)))


async def through_properties(channel: grpc.aio.Channel, key: str, requests: list[bytes]) -> int:
    """All chunks over one stream; the position of the last."""

    async def stream() -> AsyncIterator[bytes]:
        for request in requests:
            yield request

    call = channel.stream_stream(BATCH_SET, response_deserializer=messages.BatchSetPropertiesResponse.FromString)(
        stream(), metadata=(("authorization", f"Bearer {key}"),)
    )
    position = accepted = 0
    async for answer in call:
        position, accepted = max(position, answer.position), accepted + answer.accepted_count
    assert accepted == PROFILES
    return position


def cpu_seconds(suite: Suite) -> float:
    """What both services used so far."""
    used = 0.0
    for name in ("ingest", "features"):
        fields = Path(f"/proc/{suite.pid(name)}/stat").read_text().rpartition(")")[2].split()
        used += (int(fields[11]) + int(fields[12])) / _TICKS
    return used


async def measure() -> list[Table]:
    """One suite, two projects: the floor's events are nobody's."""
    table = Table(
        f"Properties: {PROFILES:,} profiles with {len(SPECS)} values, chunks of {CHUNK:,}",
        ["values/s, durable", "values/s, until read", "CPU µs a value", "of the floor"],
        "Budget: 1,000,000 values a minute on 2 cores, that is 16,667 a second.",
    )
    count = PROFILES * len(SPECS)
    measured: dict[str, list[tuple[float, float, float]]] = {"BatchSetProperties": [], "floor: bare Ingest": []}
    with tempfile.TemporaryDirectory() as name:
        async with running_suite(Path(name)) as (suite, key):
            async with Database.open(f"sqlite:///{name}/auth.db", MIGRATIONS) as database:
                _, other_key = await KeyStore(database).create("floor", [Role.INGEST])
            addresses = {each: suite.address(each) for each in ("ingest", "features")}
            async with (
                AsyncClient(api_key=key, **addresses) as client,  # type: ignore[arg-type]
                grpc.aio.insecure_channel(addresses["ingest"], options=OPTIONS) as to_ingest,
                grpc.aio.insecure_channel(addresses["features"], options=OPTIONS) as to_features,
            ):
                await client.properties.declare_many(SPECS, attribute_key="user_id")
                for round_ in range(ROUNDS):
                    requests, events = list(chunks(round_)), list(batches(round_))
                    started, cpu = time.perf_counter(), cpu_seconds(suite)
                    await through_ingest(to_ingest, other_key, events)
                    seconds = time.perf_counter() - started
                    used = (cpu_seconds(suite) - cpu) / count * 1e6
                    measured["floor: bare Ingest"].append((count / seconds, 0.0, used))
                    started, cpu = time.perf_counter(), cpu_seconds(suite)
                    position = await through_properties(to_features, key, requests)
                    durable = time.perf_counter() - started
                    await client.profiles.get(
                        f"user-{PROFILES - 1}", properties=["*"], attribute_key="user_id", min_position=position
                    )
                    read = time.perf_counter() - started
                    used = (cpu_seconds(suite) - cpu) / count * 1e6
                    measured["BatchSetProperties"].append((count / durable, count / read, used))
    base = median_of(each[0] for each in measured["floor: bare Ingest"])
    for title, rounds in measured.items():
        durable, read, used = (median_of(each[place] for each in rounds) for place in range(3))
        table.add(title, durable, read if read else "", used, f"{durable / base:.0%}")
    return [table]


def run() -> list[Table]:
    """Measures and tabulates."""
    return uvloop.run(measure())


if __name__ == "__main__":
    for each in run():
        each.print()
