"""Ingest's part of an erasure, over the wire."""

import asyncio

import grpc.aio
from google.longrunning import operations_pb2
from google.protobuf.duration_pb2 import Duration

from inkling.ingest.v1 import subject_service_pb2
from inkling.ingest.v1.subject_service_pb2_grpc import SubjectServiceStub
from inkling.types.v1 import erasure_pb2
from services.runtime.erasure_messages import receipt_from
from services.runtime.erasures import Receipt
from services.runtime.errors import Aborted, Unavailable

_WAIT_SECONDS = 60
_TIMEOUT_SECONDS = 75.0
_TRIES = 20
_PAUSE_SECONDS = 0.5


class IngestErasures:
    """See `eraser.LogErasures`: over a channel to ingest that shows the key of a service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = SubjectServiceStub(channel)
        # Called by its path: the stubs of google.longrunning ship without types.
        self._wait = channel.unary_unary(
            "/google.longrunning.Operations/WaitOperation",
            request_serializer=operations_pb2.WaitOperationRequest.SerializeToString,
            response_deserializer=operations_pb2.Operation.FromString,
        )

    async def erase(self, project: str, attribute_key: str, value: str, request_id: str) -> Receipt:
        """See LogErasures. Goes on while ingest restarts; raises Unavailable when it stays away, Aborted."""
        request = subject_service_pb2.EraseSubjectRequest(
            attribute_key=attribute_key, key_value=value, request_id=request_id
        )
        metadata = (("x-inkling-project", project),)
        failures = 0
        operation: operations_pb2.Operation | None = None
        while operation is None or not operation.done:
            try:
                if operation is None:
                    operation = await self._stub.EraseSubject(request, metadata=metadata, timeout=_TIMEOUT_SECONDS)
                else:
                    wait = operations_pb2.WaitOperationRequest(
                        name=operation.name, timeout=Duration(seconds=_WAIT_SECONDS)
                    )
                    operation = await self._wait(wait, metadata=metadata, timeout=_TIMEOUT_SECONDS)
                failures = 0
            except grpc.aio.AioRpcError as error:
                failures += 1
                if failures >= _TRIES:
                    raise Unavailable("ingest cannot be asked to erase now: try again", reason="NOT_READY") from error
                await asyncio.sleep(_PAUSE_SECONDS)
        receipt = erasure_pb2.ErasureReceipt()
        if operation.HasField("error") or not operation.response.Unpack(receipt):
            raise Aborted("ingest could not erase the subject: try again", reason="INTERRUPTED")
        return receipt_from(receipt)
