"""Erasing a subject over the wire, in a real process, and a kill in the middle of it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.longrunning import operations_pb2

from inkling.ingest.v1 import ingest_service_pb2, subject_service_pb2
from inkling.ingest.v1.ingest_service_pb2_grpc import IngestServiceStub
from inkling.ingest.v1.subject_service_pb2_grpc import SubjectServiceStub
from inkling.types.v1 import erasure_pb2
from services.kernel.erasing import subject_hash
from services.runtime.auth import Role
from services.runtime.erasure_messages import receipt_from
from tests.ingest.events import event
from tests.ingest.processes import IngestProcess, bearer
from tests.ingest.statuses import reason_of

VALUE = "ada.lovelace@example.org"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IngestProcess]:
    """A process."""
    process = IngestProcess(tmp_path_factory.mktemp("ingest"), {"ARCHIVE_FLUSH_SECONDS": "0.2"}).start()
    yield process
    process.stop()


async def finished(channel: grpc.aio.Channel, name: str, metadata: object) -> operations_pb2.Operation:
    """An operation once it is done."""
    wait = channel.unary_unary(
        "/google.longrunning.Operations/WaitOperation",
        request_serializer=operations_pb2.WaitOperationRequest.SerializeToString,
        response_deserializer=operations_pb2.Operation.FromString,
    )
    operation: operations_pb2.Operation = await wait(
        operations_pb2.WaitOperationRequest(name=name), metadata=metadata, timeout=60
    )
    assert operation.done, operation
    return operation


async def send(channel: grpc.aio.Channel, metadata: object, first: int, count: int) -> None:
    """Sends events of two users."""
    events = [event(f"e{n}", keys={"user_id": VALUE if n % 2 else "bob"}) for n in range(first, first + count)]
    request = ingest_service_pb2.IngestRequest(events=events)
    assert (await IngestServiceStub(channel).Ingest(request, metadata=metadata)).accepted_count == count


async def test_a_kill_in_the_middle_delays_an_erasure_and_no_file_holds_the_value_afterwards(
    server: IngestProcess,
) -> None:
    metadata = bearer(await server.key("shop", {Role.INGEST, Role.OPERATE}))
    request = subject_service_pb2.EraseSubjectRequest(attribute_key="user_id", key_value=VALUE, request_id="r1")
    async with server.channel() as channel:
        for first in range(0, 5_000, 500):
            await send(channel, metadata, first, 500)
        await asyncio.sleep(0.3)
        operation = await SubjectServiceStub(channel).EraseSubject(request, metadata=metadata)
    assert VALUE.encode() not in operation.SerializeToString()
    server.kill()
    server.start()
    async with server.channel() as channel:
        done = await finished(channel, operation.name, metadata)
        message = erasure_pb2.ErasureReceipt()
        assert done.response.Unpack(message)
        receipt = receipt_from(message)
        assert (message.digest, message.content_json) == (receipt.digest, receipt.to_json())
        assert receipt.subject == subject_hash("shop", "user_id", VALUE)
        assert {each.store: each.count for each in receipt.stores}["events"] == 2_500
        read = subject_service_pb2.GetErasureReceiptRequest(name=receipt.name)
        assert await SubjectServiceStub(channel).GetErasureReceipt(read, metadata=metadata) == message
        again = await SubjectServiceStub(channel).EraseSubject(request, metadata=metadata)
        assert (await finished(channel, again.name, metadata)).response == done.response
        assert [path for path in server.data_dir.rglob("*") if path.is_file() and VALUE.encode() in content(path)] == []


def content(path: Path) -> bytes:
    """A file's bytes."""
    return path.read_bytes()


async def test_only_operators_and_services_erase(server: IngestProcess) -> None:
    metadata = bearer(await server.key("shop", {Role.INGEST, Role.READ, Role.DEFINE}))
    async with server.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await SubjectServiceStub(channel).EraseSubject(
                subject_service_pb2.EraseSubjectRequest(attribute_key="user_id", key_value="bob"), metadata=metadata
            )
    assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("fields", [{"key_value": "x"}, {"attribute_key": "user_id"}])
async def test_a_request_names_a_subject(server: IngestProcess, fields: dict[str, str]) -> None:
    metadata = bearer(await server.key("shop", {Role.OPERATE}))
    async with server.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await SubjectServiceStub(channel).EraseSubject(
                subject_service_pb2.EraseSubjectRequest(**fields), metadata=metadata
            )
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(error.value) == "BAD_KEY"
