"""What was acknowledged survives the end of the process, however it ends."""

import asyncio
import time
from pathlib import Path

import grpc
import pytest

from inkling.ingest.v1.ingest_service_pb2 import COMPRESSION_NONE, IngestRequest, SubscribeRequest
from inkling.ingest.v1.ingest_service_pb2_grpc import IngestServiceStub
from services.kernel.columns import EventBatch
from services.runtime.auth import Role
from tests.ingest.events import event
from tests.ingest.processes import IngestProcess, bearer
from tests.ingest.statuses import failure
from tests.ingest.test_ingest_calls import now

ROLES = frozenset({Role.INGEST, Role.OPERATE})


async def ids_of(stub: IngestServiceStub, metadata: tuple[tuple[str, str], ...]) -> list[str]:
    """The ids in the log."""
    request = SubscribeRequest(stop_at_head=True, compression=COMPRESSION_NONE)
    ids: list[str] = []
    async for part in stub.Subscribe(request, metadata=metadata):
        if part.record_batch:
            ids += EventBatch.from_ipc(part.record_batch).record_batch["event_id"].to_pylist()
    return ids


@pytest.mark.slow
async def test_acknowledged_events_survive_a_kill(tmp_path: Path) -> None:
    process = IngestProcess(tmp_path).start()
    metadata = bearer(await process.key("p", ROLES))
    acknowledged: dict[str, int] = {}
    for attempt in range(3):
        async with process.channel() as channel:
            stub = IngestServiceStub(channel)

            async def send(worker: int, attempt: int = attempt, stub: IngestServiceStub = stub) -> None:
                for i in range(10_000):
                    ids = [f"{attempt}-{worker}-{i}-{k}" for k in range(20)]
                    events = [event(event_id, at=now()) for event_id in ids]
                    try:
                        response = await stub.Ingest(IngestRequest(events=events), metadata=metadata)
                    except grpc.aio.AioRpcError:
                        return
                    acknowledged[ids[-1]] = response.position

            senders = [asyncio.create_task(send(worker)) for worker in range(4)]
            await asyncio.sleep(0.3 + 0.2 * attempt)
            process.kill()
            await asyncio.gather(*senders)
        process.start()
    async with process.channel() as channel:
        ids = await ids_of(IngestServiceStub(channel), metadata)
    process.stop()
    assert acknowledged
    assert {event_id: ids[position - 1] for event_id, position in acknowledged.items()} == {
        event_id: event_id for event_id in acknowledged
    }


async def test_followers_are_sent_away_when_the_server_ends(tmp_path: Path) -> None:
    process = IngestProcess(tmp_path).start()
    metadata = bearer(await process.key("p", ROLES))
    async with process.channel() as channel:
        call = IngestServiceStub(channel).Subscribe(SubscribeRequest(), metadata=metadata)
        await call.read()
        started = time.monotonic()
        stopping = asyncio.create_task(asyncio.to_thread(process.stop))

        async def read_on() -> None:
            while await call.read() is not grpc.aio.EOF:
                pass

        error = await failure(read_on())
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert await stopping == 0
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("variable", ["PROT", "LOG_URL"])
def test_wrong_settings_end_the_process_at_once(tmp_path: Path, variable: str) -> None:
    with pytest.raises(RuntimeError):
        IngestProcess(tmp_path, {variable: "mysql://nowhere/x"}).start()
