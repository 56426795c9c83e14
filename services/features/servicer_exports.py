"""ProfileService, the exports: converts requests, starts operations, streams files."""

from collections.abc import AsyncGenerator
from typing import Any

import grpc.aio
from google.longrunning import operations_pb2
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from inkling.features.v1 import export_pb2 as messages
from services.features.exports import Export, ExportFormat, ExportRequest, Exports
from services.features.proto import timestamp
from services.features.servicer_profiles import selection_of
from services.runtime.auth import Role, current_caller
from services.runtime.clocks import Clock
from services.runtime.errors import InvalidArgument, Violation
from services.runtime.operations import OperationRunner, Progress
from services.runtime.paging import PageTokens, page_size

# The names of the methods are the protocol's.

KIND = "export"
SERVICE_NAME = "inkling.features.v1.ProfileService"
# Everything about everybody at once is more than a backend that reads profiles needs.
POLICIES = {
    f"/{SERVICE_NAME}/{method}": frozenset({Role.OPERATE, Role.SERVICE})
    for method in ("ExportProfiles", "ReadExportFile", "ListExports", "DeleteExport")
}
_FORMATS = {0: ExportFormat.PARQUET, 1: ExportFormat.PARQUET, 2: ExportFormat.CSV}

Context = grpc.aio.ServicerContext[Any, Any]


class Exporter:
    """Exports as operations: what is started here, and what a restart left."""

    def __init__(self, exports: Exports, clock: Clock) -> None:
        self._exports = exports
        self._clock = clock

    async def start(
        self, runner: OperationRunner, project: str, request: messages.ExportProfilesRequest
    ) -> operations_pb2.Operation:
        """Starts an export; raises at once what is wrong with the request."""
        await self._exports.check(project, _request(request))
        metadata = messages.ExportMetadata(
            name=self._exports.new_name(), start_time=timestamp(self._clock.now_us()), request=request
        )

        async def work(progress: Progress) -> Message:
            return await self._work(project, metadata, progress)

        return await runner.start(KIND, project, metadata, work)

    async def resume(self, operation: operations_pb2.Operation, project: str, progress: Progress) -> Message:
        """Begins again what a restart interrupted."""
        metadata = messages.ExportMetadata()
        operation.metadata.Unpack(metadata)
        return await self._work(project, metadata, progress)

    async def _work(self, project: str, metadata: messages.ExportMetadata, progress: Progress) -> Message:
        async def report(done: int, total: int) -> None:
            metadata.done_count, metadata.total_count = done, total
            await progress(metadata)

        return export_message(await self._exports.write(project, metadata.name, _request(metadata.request), report))


class ExportServicer:
    """Writes profiles to files."""

    def __init__(self, exporter: Exporter, exports: Exports, runner: OperationRunner, tokens: PageTokens) -> None:
        self._exporter = exporter
        self._exports = exports
        self._runner = runner
        self._tokens = tokens

    def register(self, server: grpc.aio.Server) -> None:
        """Adds its methods."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "ExportProfiles": grpc.unary_unary_rpc_method_handler(
                self.ExportProfiles,
                request_deserializer=messages.ExportProfilesRequest.FromString,
                response_serializer=operations_pb2.Operation.SerializeToString,
            ),
            "ReadExportFile": grpc.unary_stream_rpc_method_handler(
                self.ReadExportFile,
                request_deserializer=messages.ReadExportFileRequest.FromString,
                response_serializer=messages.ReadExportFileResponse.SerializeToString,
            ),
            "ListExports": grpc.unary_unary_rpc_method_handler(
                self.ListExports,
                request_deserializer=messages.ListExportsRequest.FromString,
                response_serializer=messages.ListExportsResponse.SerializeToString,
            ),
            "DeleteExport": grpc.unary_unary_rpc_method_handler(
                self.DeleteExport,
                request_deserializer=messages.DeleteExportRequest.FromString,
                response_serializer=Empty.SerializeToString,
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))

    async def ExportProfiles(
        self, request: messages.ExportProfilesRequest, context: Context
    ) -> operations_pb2.Operation:
        """Starts an export."""
        return await self._exporter.start(self._runner, current_caller().project, request)

    async def ReadExportFile(
        self, request: messages.ReadExportFileRequest, context: Context
    ) -> AsyncGenerator[messages.ReadExportFileResponse, None]:
        """Streams a file."""
        async for piece in self._exports.read(current_caller().project, request.name, request.offset):
            yield messages.ReadExportFileResponse(data=piece)

    async def ListExports(self, request: messages.ListExportsRequest, context: Context) -> messages.ListExportsResponse:
        """Lists what was exported, newest first."""
        project = current_caller().project
        size = page_size(request.page_size)
        scope = (project, "ListExports")
        before = str(self._tokens.verify(request.page_token, *scope).get("n", ""))
        found = await self._exports.page(project, before, size + 1)
        token = self._tokens.sign({"n": found[size - 1].name}, *scope) if len(found) > size else ""
        return messages.ListExportsResponse(
            exports=[export_message(each) for each in found[:size]], next_page_token=token
        )

    async def DeleteExport(self, request: messages.DeleteExportRequest, context: Context) -> Empty:
        """Deletes an export."""
        await self._exports.delete(current_caller().project, request.name)
        return Empty()


def export_message(export: Export) -> messages.Export:
    """A manifest as a message."""
    return messages.Export(
        name=export.name,
        attribute_key=export.attribute_key,
        segment=export.segment,
        format=messages.ExportFormat.Value(f"EXPORT_FORMAT_{export.format.name}"),
        columns=export.columns,
        row_count=export.row_count,
        position=export.position,
        as_of_time=timestamp(export.as_of_us),
        size_bytes=export.size_bytes,
        sha256=export.sha256,
        create_time=timestamp(export.create_time_us),
        key=export.key,
    )


def _request(message: messages.ExportProfilesRequest) -> ExportRequest:
    if message.format not in _FORMATS:
        text = "is EXPORT_FORMAT_PARQUET or EXPORT_FORMAT_CSV"
        raise InvalidArgument(
            f"format {text}", reason="OUT_OF_RANGE", violations=(Violation("format", text, "OUT_OF_RANGE"),)
        )
    return ExportRequest(
        message.attribute_key,
        selection_of(message.selection),
        message.segment,
        _FORMATS[message.format],
        message.statuses,
    )
