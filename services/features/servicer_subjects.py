"""SubjectService: converts requests, starts erasures as operations, formats receipts."""

from typing import Any

import grpc.aio
from google.longrunning import operations_pb2
from google.protobuf.message import Message

from inkling.features.v1 import subject_service_pb2 as messages
from inkling.features.v1 import subject_service_pb2_grpc
from inkling.types.v1 import erasure_pb2
from services.features.erasure import FeaturesEraser
from services.runtime.auth import Role, current_caller
from services.runtime.erasure_messages import receipt_message
from services.runtime.erasures import Erasure, check_request, parse_name
from services.runtime.errors import FailedPrecondition
from services.runtime.operations import OperationRunner, Progress
from services.runtime.server import Service

# The names of the methods are the protocol's.

SERVICE_NAME = "inkling.features.v1.SubjectService"
ROLES = frozenset({Role.OPERATE})
POLICIES = {f"/{SERVICE_NAME}/{method}": ROLES for method in ("EraseSubject", "GetErasureReceipt")}
KIND = "erase_subject"

Context = grpc.aio.ServicerContext[Any, Any]


class SubjectServicer(subject_service_pb2_grpc.SubjectServiceServicer):
    """Erases subjects."""

    def __init__(self, eraser: FeaturesEraser, runner: OperationRunner) -> None:
        self._eraser = eraser
        self._runner = runner

    async def EraseSubject(self, request: messages.EraseSubjectRequest, context: Context) -> operations_pb2.Operation:
        """Starts an erasure, or goes on with the one that the request began."""
        check_request(request.attribute_key, request.key_value, request.request_id)
        project = current_caller().project
        erasure = await self._eraser.begin(project, request.attribute_key, request.key_value, request.request_id)

        async def work(progress: Progress) -> Message:
            return await _run(self._eraser, erasure, progress)

        return await self._runner.start(KIND, project, _metadata(erasure, ""), work)

    async def GetErasureReceipt(
        self, request: messages.GetErasureReceiptRequest, context: Context
    ) -> erasure_pb2.ErasureReceipt:
        """Reads a receipt."""
        erasure = await self._eraser.get(current_caller().project, parse_name(request.name))
        if erasure.receipt is None:
            raise FailedPrecondition("the erasure goes on: wait for its operation", reason="RUNNING")
        return receipt_message(erasure.receipt)


class ErasureResumer:
    """Goes on with erasures that a restart interrupted."""

    def __init__(self, eraser: FeaturesEraser) -> None:
        self._eraser = eraser

    async def resume(self, operation: operations_pb2.Operation, project: str, progress: Progress) -> Message:
        """See `operations.Resumer`."""
        metadata = erasure_pb2.ErasureMetadata()
        operation.metadata.Unpack(metadata)
        return await _run(self._eraser, await self._eraser.get(project, parse_name(metadata.name)), progress)


def subject_service(servicer: SubjectServicer, domain: str) -> Service:
    """The service to give to `serve`."""
    return Service(
        name="subjects",
        domain=domain,
        register=lambda server: subject_service_pb2_grpc.add_SubjectServiceServicer_to_server(servicer, server),
        health_names=(SERVICE_NAME,),
        policies=POLICIES,
        descriptors=(messages.DESCRIPTOR,),
    )


async def _run(eraser: FeaturesEraser, erasure: Erasure, progress: Progress) -> Message:
    async def report(stage: str) -> None:
        await progress(_metadata(erasure, stage))

    return receipt_message(await eraser.run(erasure.project, erasure.erasure_id, report))


def _metadata(erasure: Erasure, stage: str) -> erasure_pb2.ErasureMetadata:
    return erasure_pb2.ErasureMetadata(
        name=erasure.name, attribute_key=erasure.attribute_key, subject=erasure.subject, stage=stage
    )
