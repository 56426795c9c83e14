"""Subscribe against a real process."""

import asyncio
import time
import zlib

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from inkling.ingest.v1 import project_pb2
from inkling.ingest.v1.ingest_service_pb2 import (
    COMPRESSION_LZ4,
    COMPRESSION_NONE,
    COMPRESSION_ZSTD,
    ShardRange,
    SubscribeRequest,
)
from inkling.ingest.v1.project_service_pb2 import UpdateProjectSettingsRequest
from services.kernel.columns import EventBatch
from tests.ingest.conftest import Project
from tests.ingest.events import event
from tests.ingest.processes import SERVICE_KEY, bearer
from tests.ingest.statuses import failure, reason_of
from tests.ingest.test_ingest_calls import now


async def fill(project: Project, count: int = 10, size: int = 3) -> list[str]:
    for i in range(count):
        events = [event(f"e{i}-{k}", at=now(), keys={"user_id": f"u{i * size + k}"}) for k in range(size)]
        await project.send(*events)
    return [f"e{i}-{k}" for i in range(count) for k in range(size)]


async def test_the_first_message_carries_settings_and_no_batch(project: Project) -> None:
    (first,) = await project.parts()
    assert first.settings.clock == project_pb2.CLOCK_WALL
    assert first.settings.deduplication_horizon == Duration(seconds=7 * 86400)
    assert (first.record_batch, first.head_position, first.oldest_position) == (b"", 0, 1)
    assert not first.HasField("complete_since_time")


async def test_small_batches_are_merged_up_to_the_size_asked_for(project: Project) -> None:
    ids = await fill(project)
    parts = await project.parts()
    assert len(parts) == 2
    assert (parts[1].first_position, parts[1].last_position, parts[1].head_position) == (1, 30, 30)
    assert EventBatch.from_ipc(parts[1].record_batch).record_batch["event_id"].to_pylist() == ids
    small = (await project.parts(max_bytes=1))[1:]
    assert [(part.first_position, part.last_position) for part in small] == [(1 + 3 * i, 3 + 3 * i) for i in range(10)]


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4, 29, 30])
async def test_a_stream_starts_after_the_position_also_within_a_batch(project: Project, after: int) -> None:
    ids = await fill(project)
    rows = await project.rows(after_position=after)
    assert [row["event_id"] for row in rows] == ids[after:]
    if after < 30:
        assert (await project.parts(after_position=after))[1].first_position == after + 1


@pytest.mark.parametrize("compression", [COMPRESSION_NONE, COMPRESSION_LZ4, COMPRESSION_ZSTD])
async def test_batches_come_compressed_as_asked(project: Project, compression: int) -> None:
    ids = await fill(project)
    rows = await project.rows(compression=compression)
    assert [row["event_id"] for row in rows] == ids


async def test_shards_are_filtered_by_the_hash_of_the_key(project: Project) -> None:
    await fill(project)
    await project.send(event("keyless", at=now(), keys={"account_id": "a"}))
    everything = await project.rows()
    seen = []
    for first, last in ((0, 20), (21, 63)):
        shards = ShardRange(attribute_key="user_id", first=first, last=last)
        parts = await project.parts(shards=shards, max_bytes=1)
        assert parts[-1].last_position == 31
        rows = await project.rows(shards=shards)
        assert all(first <= zlib.crc32(str(row["k.user_id"]).encode()) % 64 <= last for row in rows)
        seen += [row["event_id"] for row in rows]
    assert sorted(map(str, seen)) == sorted(str(row["event_id"]) for row in everything if row.get("k.user_id"))


async def test_a_follower_gets_new_events_at_once_and_hears_of_the_head_when_idle(project: Project) -> None:
    call = project.ingest.Subscribe(SubscribeRequest(), metadata=project.metadata)
    await call.read()
    idle = await call.read()
    assert (idle.last_position, idle.head_position) == (0, 0)
    latencies = []
    for i in range(5):
        started = time.perf_counter()
        await project.send(event(f"e{i}", at=now()))
        while not (part := await call.read()).record_batch:
            pass
        latencies.append(time.perf_counter() - started)
        assert part.last_position == i + 1
    assert min(latencies) < 0.15
    call.cancel()


async def test_a_follower_hears_of_changed_settings(project: Project) -> None:
    call = project.ingest.Subscribe(SubscribeRequest(), metadata=project.metadata)
    await call.read()
    changed = project_pb2.ProjectSettings(max_lead=Duration(seconds=60))
    await project.projects.UpdateProjectSettings(
        UpdateProjectSettingsRequest(settings=changed), metadata=project.metadata
    )
    async with asyncio.timeout(10):
        while not (part := await call.read()).HasField("settings"):
            pass
    assert part.settings.max_lead.seconds == 60
    call.cancel()


async def test_a_position_beyond_the_head_is_out_of_range(project: Project) -> None:
    await fill(project, 1)
    error = await failure(project.parts(after_position=4))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.OUT_OF_RANGE, "POSITION_OUT_OF_RANGE")


@pytest.mark.parametrize(
    "fields",
    [
        {"after_position": -1},
        {"max_bytes": 16 * 1024 * 1024 + 1},
        {"max_bytes": -1},
        {"shards": ShardRange(attribute_key="user_id", first=5, last=4)},
        {"shards": ShardRange(attribute_key="user_id", first=0, last=64)},
        {"shards": ShardRange(first=0, last=1)},
        {"compression": 9},
    ],
    ids=str,
)
async def test_what_is_out_of_range_is_refused(project: Project, fields: dict[str, object]) -> None:
    error = await failure(project.parts(**fields))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "OUT_OF_RANGE")


async def test_a_service_follows_the_project_that_it_names(project: Project, other_project: Project) -> None:
    await fill(project, 1)
    for name, count in ((project.name, 3), (other_project.name, 0)):
        request = SubscribeRequest(stop_at_head=True, compression=COMPRESSION_NONE)
        call = project.ingest.Subscribe(request, metadata=bearer(SERVICE_KEY, name))
        heads = [part.head_position async for part in call]
        assert heads[-1] == count


async def test_a_slow_reader_holds_the_stream_back_without_losing_anything(project: Project) -> None:
    blob = {"p": "x" * 30_000}
    for i in range(60):
        await project.send(
            *(event(f"e{i}-{k}", at=now(), properties=blob | {"n": k}, keys={"user_id": str(k)}) for k in range(20))
        )
    request = SubscribeRequest(stop_at_head=True, compression=COMPRESSION_NONE, max_bytes=1)
    call = project.ingest.Subscribe(request, metadata=project.metadata)
    positions = []
    while (part := await call.read()) is not grpc.aio.EOF:
        positions.append(part.last_position)
        await asyncio.sleep(0.005)
    assert positions == [0, *range(20, 1201, 20)]
