"""DatasetService: converts requests, calls the creator and the store, formats what they say."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
from google.longrunning import operations_pb2
from google.protobuf.empty_pb2 import Empty

from inkling.features.v1 import dataset_pb2 as datasets_pb2
from inkling.features.v1 import dataset_service_pb2, dataset_service_pb2_grpc
from inkling.features.v1 import dataset_service_pb2 as messages
from services.features.dataset_files import AS_OF
from services.features.datasets.creating import DatasetCreator, folder, input_key
from services.features.datasets.messages import dataset_message, file_message, manifest_file
from services.features.datasets.store import DatasetStore, State, StoredDataset
from services.features.datasets.tables import TableError, canonical, to_bytes
from services.runtime.auth import Role, current_caller
from services.runtime.blobs import BlobStore
from services.runtime.errors import FailedPrecondition, InvalidArgument, NotFound, Violation
from services.runtime.operations import OperationRunner
from services.runtime.paging import PageTokens, page_size
from services.runtime.server import Service

# The names of the methods are the protocol's.

SERVICE_NAME = "inkling.features.v1.DatasetService"
_READS = ("GetDataset", "ListDatasets", "ReadDatasetFile")
_WRITES = ("CreateDataset", "DeleteDataset", "UploadDatasetRows")
POLICIES = {
    # What is in a training set is what profiles say: who may not read these may not read it.
    **{f"/{SERVICE_NAME}/{method}": frozenset({Role.READ, Role.SERVICE}) for method in _READS},
    **{f"/{SERVICE_NAME}/{method}": frozenset({Role.DEFINE, Role.SERVICE}) for method in _WRITES},
}
CHUNK_BYTES = 1 << 20
MAX_REQUEST_ID = 128
_ID = re.compile(r"datasets/([0-9a-f]{24})")

Context = grpc.aio.ServicerContext[Any, Any]


def dataset_service(servicer: "DatasetServicer", domain: str) -> Service:
    """The service to give to `serve`."""
    return Service(
        name="datasets",
        domain=domain,
        register=lambda server: dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server(servicer, server),
        health_names=(SERVICE_NAME,),
        policies=POLICIES,
        descriptors=(dataset_service_pb2.DESCRIPTOR,),
    )


class DatasetServicer(dataset_service_pb2_grpc.DatasetServiceServicer):
    """Computes training sets."""

    def __init__(
        self,
        creator: DatasetCreator,
        store: DatasetStore,
        blobs: BlobStore,
        runner: OperationRunner,
        tokens: PageTokens,
        max_upload_bytes: int,
    ) -> None:
        self._creator = creator
        self._store = store
        self._blobs = blobs
        self._runner = runner
        self._tokens = tokens
        self._max_upload_bytes = max_upload_bytes

    async def CreateDataset(self, request: messages.CreateDatasetRequest, context: Context) -> operations_pb2.Operation:
        """Computes a training set."""
        project = current_caller().project
        if len(request.request_id) > MAX_REQUEST_ID:
            raise _bad("request_id", f"must be at most {MAX_REQUEST_ID} characters", "OUT_OF_RANGE")
        if request.validate_only:
            await self._creator.check(project, request.spec)
            return operations_pb2.Operation(done=True)
        return await self._creator.create(self._runner, project, request)

    async def GetDataset(self, request: messages.GetDatasetRequest, context: Context) -> datasets_pb2.Dataset:
        """Reads what is known of a training set."""
        return dataset_message(await self._get(request.name))

    async def ListDatasets(
        self, request: messages.ListDatasetsRequest, context: Context
    ) -> messages.ListDatasetsResponse:
        """Lists them, the newest first."""
        project = current_caller().project
        size = page_size(request.page_size)
        scope = (project, "ListDatasets")
        cursor = self._tokens.verify(request.page_token, *scope)
        before = (int(cursor["t"] or 0), str(cursor["d"])) if cursor else None
        found = await self._store.page(project, size + 1, before)
        token = ""
        if len(found) > size:
            last = found[size - 1]
            token = self._tokens.sign({"t": last.create_time_us, "d": last.dataset_id}, *scope)
        page = [dataset_message(each) for each in found[:size]]
        return messages.ListDatasetsResponse(datasets=page, next_page_token=token)

    async def DeleteDataset(self, request: messages.DeleteDatasetRequest, context: Context) -> Empty:
        """Deletes a training set with its files, and its table of rows when no other stands on it."""
        project = current_caller().project
        stored = await self._get(request.name)
        if stored.state is State.RUNNING:
            raise FailedPrecondition(
                f"{stored.name} is being computed: cancel {stored.operation} first",
                reason="IN_USE",
                metadata={"operation": stored.operation},
            )
        await self._creator.remove_files(project, stored.dataset_id)
        await self._store.delete(project, stored.dataset_id)
        if stored.inputs and not await self._store.stand_on(project, stored.inputs):
            await self._blobs.delete(input_key(project, stored.inputs))
        return Empty()

    async def ReadDatasetFile(
        self, request: messages.ReadDatasetFileRequest, context: Context
    ) -> AsyncIterator[messages.ReadDatasetFileResponse]:
        """Streams a file."""
        project = current_caller().project
        stored = await self._get(request.name)
        if stored.state is not State.READY:
            raise FailedPrecondition(f"{stored.name} is {stored.state}", reason="DATASET_NOT_READY")
        files = [*json.loads(stored.manifest)["files"], manifest_file(stored)]
        file = next((each for each in files if each["name"] == request.file), None)
        if file is None:
            raise NotFound(f"{stored.name} has no file {request.file[:100]!r}", reason="NOT_FOUND")
        if not 0 <= request.offset <= file["bytes"]:
            raise _bad("offset", f"must be from 0 to {file['bytes']}", "OUT_OF_RANGE")
        yield messages.ReadDatasetFileResponse(file=file_message(file))
        async for chunk in self._chunks(f"{folder(project)}/{stored.dataset_id}/{request.file}", request.offset):
            yield messages.ReadDatasetFileResponse(data=chunk)

    async def UploadDatasetRows(
        self, request_iterator: AsyncIterator[messages.UploadDatasetRowsRequest], context: Context
    ) -> messages.UploadDatasetRowsResponse:
        """Takes a table of keys and instants."""
        project = current_caller().project
        options: messages.UploadDatasetRowsOptions | None = None
        received = bytearray()
        async for request in request_iterator:
            if request.WhichOneof("content") == "options" and options is None and not received:
                options = request.options
            elif request.WhichOneof("content") == "chunk" and options is not None:
                received += request.chunk
            else:
                raise _bad("options", "come once, before the first chunk", "BAD_DATASET")
            if len(received) > self._max_upload_bytes:
                raise _bad("chunk", f"a table has at most {self._max_upload_bytes:,} bytes", "OUT_OF_RANGE")
        if options is None or not options.key_column:
            raise _bad("options.key_column", "is missing: say which column holds the keys", "BAD_DATASET")
        instant_column = options.instant_column or AS_OF
        try:
            table = await asyncio.to_thread(canonical, bytes(received), options.key_column, instant_column)
        except TableError as error:
            raise _bad("chunk", f"the table {error}", "BAD_TABLE") from error
        input_id, content = await asyncio.to_thread(to_bytes, table)
        await self._creator.keep_input(project, input_id, content)
        columns = table.column_names[2:]
        return messages.UploadDatasetRowsResponse(input=input_id, row_count=table.num_rows, columns=columns)

    async def _chunks(self, key: str, offset: int) -> AsyncIterator[bytes]:
        """The bytes of a file from an offset on; where it is a file, without having all of it in memory."""
        path = await self._blobs.open_path(key)
        if path is None:
            content = await self._blobs.get(key)
            for start in range(offset, len(content), CHUNK_BYTES):
                yield content[start : start + CHUNK_BYTES]
            return
        with await asyncio.to_thread(path.open, "rb") as opened:
            await asyncio.to_thread(opened.seek, offset)
            while chunk := await asyncio.to_thread(opened.read, CHUNK_BYTES):
                yield chunk

    async def _get(self, name: str) -> StoredDataset:
        match = _ID.fullmatch(name)
        if match is None:
            raise _bad("name", f"{name[:200]!r} is not a name of the form datasets/{{dataset}}", "BAD_NAME")
        return await self._store.get(current_caller().project, match[1])


def _bad(field: str, description: str, reason: str) -> InvalidArgument:
    return InvalidArgument(
        f"{field}: {description}", reason=reason, violations=(Violation(field, description, reason),)
    )
