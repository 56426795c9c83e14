"""What features does of an erasure, with ingest's part played by a log in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import pytest
from google.longrunning import operations_pb2
from google.protobuf.duration_pb2 import Duration

from inkling.features.v1 import profile_pb2
from inkling.features.v1 import profile_service_pb2 as profiles
from inkling.features.v1 import subject_service_pb2 as subjects
from inkling.features.v1.subject_service_pb2_grpc import SubjectServiceStub
from inkling.types.v1 import erasure_pb2
from services.features.app import open_app
from services.features.settings import FeaturesSettings
from services.features.values import Status
from services.kernel import snapshots
from services.kernel.building import EventRow
from services.kernel.columns import DELETE
from services.kernel.erasing import ERASED_NAME, MARKER_NAME, VERSION, subject_hash
from services.runtime.clocks import ManualClock
from services.runtime.erasures import Erased, Receipt
from services.runtime.server import Server
from tests.features.memory_log import NOW_US, MemoryLog, purchase
from tests.features.reading import read_values
from tests.features.serving import GROUP, Client, create

VALUE = "ada.lovelace@example.org"
PROJECT = "default"


@dataclass
class MemoryErasures:
    """Ingest's part: deletions, a marker, and a receipt for each request."""

    log: MemoryLog
    receipts: dict[str, Receipt] = field(default_factory=dict)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def erase(self, project: str, attribute_key: str, value: str, request_id: str) -> Receipt:
        """See LogErasures."""
        if request_id not in self.receipts:
            subject = subject_hash(project, attribute_key, value)
            ids = [row.event_id for row in self.log.rows if row.keys.get(attribute_key) == value]
            written = [
                EventRow(each, ERASED_NAME, NOW_US, NOW_US, {}, "inkling", VERSION, operation=DELETE) for each in ids
            ]
            data = {"attribute_key": attribute_key, "subject": subject}
            name = f"marker {len(self.receipts)}"
            written.append(EventRow(name, MARKER_NAME, NOW_US, NOW_US, {}, "inkling", VERSION, data=data))
            position = await self.log.append(*written)
            stores = (Erased("events", len(ids), "events"),)
            self.receipts[request_id] = Receipt("erasures/1", attribute_key, subject, stores, position, position, 1, 2)
        self.asked.set()
        await self.gate.wait()
        return self.receipts[request_id]


@asynccontextmanager
async def erasing(
    settings: FeaturesSettings, log: MemoryLog, clock: ManualClock, erasures: MemoryErasures
) -> AsyncIterator[tuple[Client, SubjectServiceStub]]:
    """A running server with a log to erase from, and clients of it."""
    async with (
        open_app(settings, log, clock, log_erasures=erasures) as app,
        Server.open(settings, app.services, registry=app.registry) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        await app.projects.wait_ready()
        yield Client(channel), SubjectServiceStub(channel)


async def read(client: Client, value: str, position: int = 0) -> dict[str, object]:
    """The profile of a user."""
    selection = profile_pb2.Selection(attribute_groups=["attributeGroups/shopping"])
    request = profiles.GetProfileRequest(key_value=value, selection=selection, min_position=position)
    return {name: found[:2] for name, found in read_values(await client.profiles.GetProfile(request)).items()}


async def finished(client: Client, name: str) -> operations_pb2.Operation:
    """An operation once it is done."""
    request = operations_pb2.WaitOperationRequest(name=name, timeout=Duration(seconds=30))
    done = await client.operations.WaitOperation(request)
    assert done.done, done
    return done


def receipt_of(operation: operations_pb2.Operation) -> erasure_pb2.ErasureReceipt:
    """The receipt that an operation gave."""
    receipt = erasure_pb2.ErasureReceipt()
    assert operation.response.Unpack(receipt), operation.error
    return receipt


def holding(folder: Path) -> list[Path]:
    """The files that hold the value."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".snap":
                _, arrays = snapshots.freeze(snapshots.read(path))
                content += b"".join(array.tobytes() for array in arrays.values())
            if VALUE.encode() in content:
                found.append(path)
    return found


NOBODY = {"buys": (None, Status.NEVER_SEEN), "spent": (None, Status.NEVER_SEEN)}
REQUEST = subjects.EraseSubjectRequest(attribute_key="user_id", key_value=VALUE, request_id="r")


async def test_an_erased_key_is_one_that_nobody_ever_saw_until_it_comes_again(
    served_settings: FeaturesSettings, log: MemoryLog, clock: ManualClock
) -> None:
    erasures = MemoryErasures(log)
    erasures.gate.set()
    async with erasing(served_settings, log, clock, erasures) as (client, stub):
        await create(client)
        await client.publish(GROUP)
        position = await log.append(*(purchase(n, VALUE if n % 2 else "bob", NOW_US - 50 + n, 1.0) for n in range(9)))
        assert (await read(client, VALUE, position))["buys"] == (4, Status.PRESENT)
        receipt = receipt_of(await finished(client, (await stub.EraseSubject(REQUEST)).name))
        assert {("events", 4), ("state", 1)} <= {(each.store, each.count) for each in receipt.stores}
        assert receipt.ingest_digest == erasures.receipts[next(iter(erasures.receipts))].digest
        assert await read(client, VALUE) == NOBODY
        assert (await read(client, "bob"))["buys"] == (5, Status.PRESENT)
        assert holding(served_settings.data_dir) == []
        position = await log.append(purchase(100, VALUE, NOW_US - 2, 7.0), purchase(1, VALUE, NOW_US - 1, 1.0))
        assert await read(client, VALUE, position) == {"buys": (1, Status.PRESENT), "spent": (7.0, Status.PRESENT)}
        read_again = subjects.GetErasureReceiptRequest(name=receipt.name)
        assert await stub.GetErasureReceipt(read_again) == receipt


async def test_an_erasure_goes_on_after_a_restart_and_waits_for_the_marker(
    served_settings: FeaturesSettings, log: MemoryLog, clock: ManualClock
) -> None:
    erasures = MemoryErasures(log)
    await log.append(*(purchase(n, VALUE if n % 2 else "bob", NOW_US - 50 + n, 1.0) for n in range(9)))
    async with erasing(served_settings, log, clock, erasures) as (client, stub):
        await create(client)
        await client.publish(GROUP)
        operation = await stub.EraseSubject(REQUEST)
        await erasures.asked.wait()
        metadata = erasure_pb2.ErasureMetadata()
        assert operation.metadata.Unpack(metadata)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.GetErasureReceipt(subjects.GetErasureReceiptRequest(name=metadata.name))
        assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert VALUE.encode() not in operation.SerializeToString()
    erasures.gate.set()
    async with erasing(served_settings, log, clock, erasures) as (client, stub):
        receipt_of(await finished(client, operation.name))
        assert len(erasures.receipts) == 1
        assert await read(client, VALUE) == NOBODY
    assert holding(served_settings.data_dir) == []


async def test_a_snapshot_of_before_the_marker_forgets_when_it_is_recovered(
    served_settings: FeaturesSettings, log: MemoryLog, clock: ManualClock
) -> None:
    erasures = MemoryErasures(log)
    erasures.gate.set()
    position = await log.append(*(purchase(n, VALUE if n % 2 else "bob", NOW_US - 50 + n, 1.0) for n in range(9)))
    async with erasing(served_settings, log, clock, erasures) as (client, _):
        await create(client)
        await client.publish(GROUP)
        assert (await read(client, VALUE, position))["buys"] == (4, Status.PRESENT)
    assert holding(served_settings.data_dir) != []
    # Another replica asked for it: this one only reads the log.
    position = (await erasures.erase(PROJECT, "user_id", VALUE, "r")).position
    async with erasing(served_settings, log, clock, erasures) as (client, _):
        assert await read(client, VALUE, position) == NOBODY


async def test_who_watches_hears_that_an_erased_key_has_nothing_any_more(
    served_settings: FeaturesSettings, log: MemoryLog, clock: ManualClock
) -> None:
    erasures = MemoryErasures(log)
    erasures.gate.set()
    await log.append(*(purchase(n, VALUE if n % 2 else "bob", NOW_US - 50 + n, 1.0) for n in range(9)))
    async with erasing(served_settings, log, clock, erasures) as (client, stub):
        await create(client)
        await client.publish(GROUP)
        selection = profile_pb2.Selection(attribute_groups=["attributeGroups/shopping"])
        stream = client.profiles.WatchProfiles(profiles.WatchProfilesRequest(selection=selection))
        await asyncio.sleep(0.2)
        await finished(client, (await stub.EraseSubject(REQUEST)).name)
        await log.append(purchase(50, "bob", NOW_US - 2, 1.0))
        heard: dict[str, object] = {}
        async with asyncio.timeout(20):
            while "bob" not in heard:
                message = await stream.read()
                heard |= {each.key_value: read_values(each)["buys"][0] for each in message.profiles}
        stream.cancel()
    assert heard == {VALUE: None, "bob": 6}
