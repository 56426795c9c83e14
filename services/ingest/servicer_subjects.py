"""SubjectService: converts requests, starts erasures as operations, formats receipts."""

from typing import Any

import grpc.aio
from google.longrunning import operations_pb2
from google.protobuf.message import Message

from inkling.ingest.v1 import subject_service_pb2 as messages
from inkling.ingest.v1 import subject_service_pb2_grpc
from inkling.types.v1 import erasure_pb2
from services.ingest.erasure import Eraser, Subject
from services.runtime.auth import Role, current_caller
from services.runtime.erasure_messages import receipt_message
from services.runtime.erasures import Erasure, Receipt, check_request, parse_name
from services.runtime.errors import FailedPrecondition
from services.runtime.operations import OperationRunner, Progress

# The names of the methods are the protocol's.

SERVICE_NAME = "inkling.ingest.v1.SubjectService"
ROLES = frozenset({Role.OPERATE, Role.SERVICE})
POLICIES = {f"/{SERVICE_NAME}/{method}": ROLES for method in ("EraseSubject", "GetErasureReceipt")}
KIND = "erase_subject"

Context = grpc.aio.ServicerContext[Any, Any]


class SubjectServicer(subject_service_pb2_grpc.SubjectServiceServicer):
    """Erases subjects."""

    def __init__(self, operations: "ErasureOperations", runner: OperationRunner) -> None:
        self._operations = operations
        self._runner = runner

    async def EraseSubject(self, request: messages.EraseSubjectRequest, context: Context) -> operations_pb2.Operation:
        """Starts an erasure, or goes on with the one that the request began."""
        check_request(request.attribute_key, request.key_value, request.request_id)
        subject = Subject(current_caller().project, request.attribute_key, request.key_value)
        return await self._operations.start(self._runner, subject, request.request_id)

    async def GetErasureReceipt(
        self, request: messages.GetErasureReceiptRequest, context: Context
    ) -> erasure_pb2.ErasureReceipt:
        """Reads a receipt."""
        return receipt_message(await self._operations.receipt(current_caller().project, request.name))


class ErasureOperations:
    """Erasures as long-running operations."""

    def __init__(self, eraser: Eraser) -> None:
        self._eraser = eraser

    async def start(self, runner: OperationRunner, subject: Subject, request_id: str) -> operations_pb2.Operation:
        """Stores what is to be erased, then starts to."""
        erasure = await self._eraser.begin(subject, request_id)

        async def work(progress: Progress) -> Message:
            return await self._run(erasure, progress)

        return await runner.start(KIND, subject.project, _metadata(erasure, ""), work)

    async def resume(self, operation: operations_pb2.Operation, project: str, progress: Progress) -> Message:
        """Goes on with an erasure that a restart interrupted."""
        metadata = erasure_pb2.ErasureMetadata()
        operation.metadata.Unpack(metadata)
        return await self._run(await self._eraser.get(project, parse_name(metadata.name)), progress)

    async def receipt(self, project: str, name: str) -> Receipt:
        """The receipt of an erasure; raises NotFound, and FailedPrecondition while it goes on."""
        erasure = await self._eraser.get(project, parse_name(name))
        if erasure.receipt is None:
            raise FailedPrecondition("the erasure goes on: wait for its operation", reason="RUNNING")
        return erasure.receipt

    async def _run(self, erasure: Erasure, progress: Progress) -> Message:
        async def report(stage: str) -> None:
            await progress(_metadata(erasure, stage))

        return receipt_message(await self._eraser.run(erasure.project, erasure.erasure_id, report))


def _metadata(erasure: Erasure, stage: str) -> erasure_pb2.ErasureMetadata:
    return erasure_pb2.ErasureMetadata(
        name=erasure.name, attribute_key=erasure.attribute_key, subject=erasure.subject, stage=stage
    )
