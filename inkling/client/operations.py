"""Follows long-running operations (AIP 151)."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import grpc
from google.longrunning import operations_pb2
from google.protobuf.empty_pb2 import Empty

from inkling.client.transport import ServiceName, Transport
from inkling.errors import DeadlineExceeded, OperationFailed, from_status
from inkling.features.v1.dataset_service_pb2 import DatasetMetadata
from inkling.features.v1.definition_service_pb2 import PublishMetadata
from inkling.features.v1.export_pb2 import ExportMetadata


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an operation is: events done of those known now, and the stage it is in."""

    name: str
    stage: str
    done: int
    total: int
    finished: bool


class Operations:
    """The operations of one service."""

    def __init__(self, transport: Transport, service: ServiceName) -> None:
        self._transport = transport
        self._service = service

    async def wait(
        self,
        operation: operations_pb2.Operation,
        *,
        timeout: timedelta | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> operations_pb2.Operation:
        """Polls until it is done and returns it. OperationFailed or the error that it ended with; DeadlineExceeded."""
        loop = asyncio.get_running_loop()
        ends = None if timeout is None else loop.time() + timeout.total_seconds()
        pause = 0.02
        while True:
            if on_progress is not None:
                on_progress(read_progress(operation))
            if operation.done:
                break
            if ends is not None and loop.time() + pause > ends:
                raise DeadlineExceeded(f"{operation.name} goes on, but is not done after {timeout}")
            await asyncio.sleep(pause)
            pause = min(0.5, pause * 1.5)
            operation = await self.get(operation.name)
        if operation.HasField("error"):
            error = from_status(code_name(operation.error.code), operation.error)
            raise OperationFailed(
                f"{operation.name} failed: {error.message}", reason=error.reason, violations=error.violations
            )
        return operation

    async def get(self, name: str) -> operations_pb2.Operation:
        """Reads an operation by its name."""
        # Called by its path: the stubs of google.longrunning ship without types.
        method = self._transport.channel(self._service).unary_unary(
            "/google.longrunning.Operations/GetOperation",
            request_serializer=operations_pb2.GetOperationRequest.SerializeToString,
            response_deserializer=operations_pb2.Operation.FromString,
        )
        return await self._transport.call(method, operations_pb2.GetOperationRequest(name=name))

    async def cancel(self, name: str) -> None:
        """Asks for the end of an operation; nothing happens when it is done."""
        method = self._transport.channel(self._service).unary_unary(
            "/google.longrunning.Operations/CancelOperation",
            request_serializer=operations_pb2.CancelOperationRequest.SerializeToString,
            response_deserializer=Empty.FromString,
        )
        await self._transport.call(method, operations_pb2.CancelOperationRequest(name=name))


def code_name(number: int) -> str:
    """The name of a status code by its number."""
    return next((code.name for code in grpc.StatusCode if code.value[0] == number), "UNKNOWN")


def read_progress(operation: operations_pb2.Operation) -> Progress:
    """The progress that an operation's metadata tells; zeros when it tells none that is known here."""
    exported = ExportMetadata()
    if operation.metadata.Unpack(exported):
        return Progress(exported.name, "export", exported.done_count, exported.total_count, operation.done)
    metadata: PublishMetadata | DatasetMetadata = PublishMetadata()
    for known in (PublishMetadata(), DatasetMetadata()):
        if operation.metadata.Unpack(known):
            metadata = known
    return Progress(
        metadata.name or operation.name, metadata.stage, metadata.done_count, metadata.total_count, operation.done
    )
