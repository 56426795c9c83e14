"""Serving the 19 attributes: read latency, how soon an acknowledged event can be read, and recovery."""

import asyncio
import json
import shutil
import tempfile
import time
from pathlib import Path
from random import Random

import grpc

from benchmarks.processes import running_suite
from benchmarks.tables import Table, median_of, percentile
from benchmarks.web_requests import web_requests
from examples.demo.figures import GET_PROFILE, INGEST, OPTIONS, RawMethod, echo_server, raw
from inkling import AsyncClient
from inkling.cli.suite import Suite
from inkling.features.v1 import profile_pb2, profile_service_pb2
from inkling.ingest.v1 import ingest_service_pb2

GROUP = Path(__file__).parent.parent / "tests" / "conformance" / "signals_prospect_group.json"
SERVICE = Path(__file__).parent.parent / "tests" / "conformance" / "signals_service.json"
EVENTS, BATCH, VISITORS, READS = 300_000, 500, 10_000, 4_000
PACED, MEASURED = 100, 300
SELECTION = profile_pb2.Selection(feature_service="featureServices/prospect_scoring_tutorial_service")


def read_request(visitor: str, min_position: int = 0) -> bytes:
    """A GetProfile of all nineteen."""
    return profile_service_pb2.GetProfileRequest(
        key_value=visitor, selection=SELECTION, min_position=min_position
    ).SerializeToString()


async def latencies(calls: dict[str, tuple[RawMethod, list[bytes], str]]) -> dict[str, list[float]]:
    """Milliseconds of single calls, one after the other; the methods take turns."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(READS):
        for name, (call, requests, key) in calls.items():
            metadata = (("authorization", f"Bearer {key}"),) if key else ()
            started = time.perf_counter()
            await call(requests[i % len(requests)], metadata=metadata)
            if i >= READS // 10:
                taken[name].append((time.perf_counter() - started) * 1e3)
    return taken


async def reading(suite: Suite, key: str, visitors: list[str]) -> Table:
    """GetProfile beside an echo of the same response bytes."""
    table = Table(
        "GetProfile of 19 attributes, ms",
        ["p50", "× echo", "p99", "× echo", "bytes"],
        "One call at a time, in turn with the floor: an asyncio gRPC server that is sent, and answers, the very bytes "
        "of the responses. Budget: p50 at most 1.5 × echo.",
    )
    async with (
        echo_server() as echo,
        grpc.aio.insecure_channel(suite.address("features"), options=OPTIONS) as to_features,
        grpc.aio.insecure_channel(echo, options=OPTIONS) as to_echo,
    ):
        get_profile = raw(to_features, GET_PROFILE)
        requests = [read_request(visitor) for visitor in visitors[:500]]
        answers = [await get_profile(each, metadata=(("authorization", f"Bearer {key}"),)) for each in requests]
        taken = await latencies(
            {"GetProfile": (get_profile, requests, key), "echo": (raw(to_echo, "/demo.Echo/Echo"), answers, "")}
        )
    floor = {part: percentile(taken["echo"], part) for part in (0.5, 0.99)}
    size = median_of(len(answer) for answer in answers)
    for name, values in taken.items():
        p50, p99 = percentile(values, 0.5), percentile(values, 0.99)
        table.add(name, p50, p50 / floor[0.5], p99, p99 / floor[0.99], size)
    return table


async def freshness(suite: Suite, key: str, batches: list[bytes], visitors: list[str]) -> Table:
    """From an acknowledged write to an answer that has it, while writes come at half of what ingest takes."""
    table = Table(
        "From acknowledged to readable, ms",
        ["p50", "p99", "events/s"],
        "A writer sends batches of 500 at half the rate at which one caller can; after each acknowledgement a reader "
        "asks for a profile at that position. Budget: p99 at most 50.",
    )
    metadata = (("authorization", f"Bearer {key}"),)
    random = Random(3)
    async with (
        grpc.aio.insecure_channel(suite.address("features"), options=OPTIONS) as to_features,
        grpc.aio.insecure_channel(suite.address("ingest"), options=OPTIONS) as to_ingest,
    ):
        ingest, get_profile = raw(to_ingest, INGEST), raw(to_features, GET_PROFILE)
        started = time.perf_counter()
        for batch in batches[:PACED]:
            await ingest(batch, metadata=metadata)
        pause = (time.perf_counter() - started) / PACED
        taken: list[float] = []
        started = time.perf_counter()
        for batch in batches[PACED : PACED + MEASURED]:
            answer = ingest_service_pb2.IngestResponse.FromString(await ingest(batch, metadata=metadata))
            acknowledged = time.perf_counter()
            await get_profile(read_request(random.choice(visitors), answer.position), metadata=metadata)
            taken.append((time.perf_counter() - acknowledged) * 1e3)
            await asyncio.sleep(pause)
        rate = MEASURED * BATCH / (time.perf_counter() - started)
    table.add("19 attributes", percentile(taken, 0.5), percentile(taken, 0.99), rate)
    return table


async def recovery(suite: Suite, folder: Path, events: int) -> Table:
    """From SIGKILL to healthy: by the newest snapshot, and by the log alone."""
    table = Table(
        "Recovery of features, s",
        ["until healthy", "of which start", "per million events"],
        f"Killed after {events:,} events. The start of the process (imports, loading compiled code) is that of a "
        "features service with nothing to recover.",
    )
    with tempfile.TemporaryDirectory() as nothing:
        async with running_suite(Path(nothing)) as (other, _):
            await other.kill("features")
            started = time.perf_counter()
            await other.start_one("features")
            start = time.perf_counter() - started
    for name in ("snapshot and log", "log alone"):
        await suite.kill("features")
        if name == "log alone":
            await asyncio.to_thread(forget_snapshots, folder)
        started = time.perf_counter()
        await suite.start_one("features", timeout=300)
        seconds = time.perf_counter() - started
        table.add(name, seconds, start, (seconds - start) / events * 1e6)
    return table


def forget_snapshots(folder: Path) -> None:
    """Leaves only the log to recover from."""
    for snapshots in folder.rglob("snapshots"):
        shutil.rmtree(snapshots)


async def measure() -> list[Table]:
    """One suite for all three."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with running_suite(folder) as (suite, key):
            async with AsyncClient(
                api_key=key, ingest=suite.address("ingest"), features=suite.address("features")
            ) as client:
                await client.project.set(clock="log")
                group, service = json.loads(GROUP.read_text()), json.loads(SERVICE.read_text())
                await client.definitions.apply(group, publish=True)
                await client.definitions.apply(service)
                batches, visitors = web_requests(EVENTS, BATCH, VISITORS)
                tables = [await freshness(suite, key, batches, visitors)]
                async with grpc.aio.insecure_channel(suite.address("ingest"), options=OPTIONS) as to_ingest:
                    ingest, metadata = raw(to_ingest, INGEST), (("authorization", f"Bearer {key}"),)
                    for batch in batches[PACED + MEASURED :]:
                        last = await ingest(batch, metadata=metadata)
                position = ingest_service_pb2.IngestResponse.FromString(last).position
                await client.profiles.get(
                    visitors[0], service="prospect_scoring_tutorial_service", min_position=position
                )
            tables.insert(0, await reading(suite, key, visitors))
            tables.append(await recovery(suite, folder, position))
            return tables


def run() -> list[Table]:
    """Measures and tabulates."""
    return asyncio.run(measure())


if __name__ == "__main__":
    for each in run():
        each.print()
