"""Training sets: computed by features from the archive, downloaded as Parquet with a manifest."""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.longrunning import operations_pb2
from google.protobuf import json_format

from inkling.client.operations import Operations, Progress
from inkling.client.transport import Transport
from inkling.errors import Internal
from inkling.features.v1 import dataset_service_pb2
from inkling.features.v1.dataset_pb2 import Dataset, DatasetSpec
from inkling.features.v1.dataset_service_pb2_grpc import DatasetServiceStub

if TYPE_CHECKING:
    from inkling.features.v1.dataset_service_pb2_grpc import DatasetServiceAsyncStub

CHUNK_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class UploadedRows:
    """A table of rows that is there now: `input` is what `moments.rows.input` takes.

    `columns` are its other columns, which the rows of the training set carry.
    """

    input: str
    rows: int
    columns: tuple[str, ...]


class AsyncDatasets:
    """The project's training sets; they are the messages of `dataset.proto`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._operations = Operations(transport, "features")

    async def create(
        self,
        spec: DatasetSpec | Mapping[str, Any] | str,
        *,
        request_id: str = "",
        wait: bool = True,
        timeout: timedelta | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Dataset:
        """Computes a training set and, unless `wait` is False, returns when it is there.

        `spec` is a message, its JSON (as text or object), or a manifest: then the same bytes are computed again.
        InvalidArgument names each mistake. The call is not tried again without a `request_id`.
        """
        request = dataset_service_pb2.CreateDatasetRequest(spec=read_spec(spec), request_id=request_id)
        operation: operations_pb2.Operation = await self._transport.call(
            self._stub.CreateDataset, request, retries=bool(request_id)
        )
        metadata = dataset_service_pb2.DatasetMetadata()
        operation.metadata.Unpack(metadata)
        if wait:
            await self._operations.wait(operation, timeout=timeout, on_progress=on_progress)
        return await self.get(metadata.name)

    async def check(self, spec: DatasetSpec | Mapping[str, Any] | str) -> None:
        """Raises what `create` would refuse, and computes nothing."""
        request = dataset_service_pb2.CreateDatasetRequest(spec=read_spec(spec), validate_only=True)
        await self._transport.call(self._stub.CreateDataset, request)

    async def get(self, dataset: str) -> Dataset:
        """What is known of a training set."""
        request = dataset_service_pb2.GetDatasetRequest(name=dataset_name(dataset))
        return await self._transport.call(self._stub.GetDataset, request)

    async def list(self) -> AsyncIterator[Dataset]:
        """All training sets, the newest first."""
        request = dataset_service_pb2.ListDatasetsRequest(page_size=100)
        while True:
            response = await self._transport.call(self._stub.ListDatasets, request)
            for dataset in response.datasets:
                yield dataset
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    async def delete(self, dataset: str) -> None:
        """Deletes a training set with its files."""
        request = dataset_service_pb2.DeleteDatasetRequest(name=dataset_name(dataset))
        await self._transport.call(self._stub.DeleteDataset, request)

    async def cancel(self, dataset: str) -> None:
        """Ends the computation of a training set."""
        await self._operations.cancel((await self.get(dataset)).operation)

    async def upload_rows(
        self, path: Path, *, key_column: str, instant_column: str = "as_of", timeout: timedelta | None = None
    ) -> UploadedRows:
        """Uploads a table (CSV or Parquet) of the keys and instants to compute rows for."""

        async def requests() -> AsyncIterator[dataset_service_pb2.UploadDatasetRowsRequest]:
            options = dataset_service_pb2.UploadDatasetRowsOptions(key_column=key_column, instant_column=instant_column)
            yield dataset_service_pb2.UploadDatasetRowsRequest(options=options)
            with await asyncio.to_thread(path.open, "rb") as file:
                while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                    yield dataset_service_pb2.UploadDatasetRowsRequest(chunk=chunk)

        async def attempt() -> UploadedRows:
            seconds = None if timeout is None else timeout.total_seconds()
            call = self._stub.UploadDatasetRows(requests(), metadata=self._transport.metadata(), timeout=seconds)
            response = await call
            return UploadedRows(response.input, response.row_count, tuple(response.columns))

        return await self._transport.retrying(attempt, ends=None)

    async def download(self, dataset: str, folder: Path) -> tuple[Path, ...]:
        """Writes the files of a training set into a folder, each checked against its checksum; returns their paths."""
        known = await self.get(dataset)
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        paths = [await self._fetch(known.name, file.name, file.sha256, folder) for file in known.files]
        return tuple(paths)

    async def _fetch(self, name: str, file: str, sha256: str, folder: Path) -> Path:
        path = folder / Path(file).name
        part = path.with_name(f"{path.name}.part")

        async def attempt() -> None:
            digest = hashlib.sha256()
            request = dataset_service_pb2.ReadDatasetFileRequest(name=name, file=file)
            with await asyncio.to_thread(part.open, "wb") as target:
                async for response in self._stub.ReadDatasetFile(request, metadata=self._transport.metadata()):
                    digest.update(response.data)
                    await asyncio.to_thread(target.write, response.data)
            if digest.hexdigest() != sha256:
                raise Internal(f"{file} of {name} came with other bytes than it has: try again")

        try:
            await self._transport.retrying(attempt, ends=None)
            await asyncio.to_thread(os.replace, part, path)
        finally:
            await asyncio.to_thread(part.unlink, missing_ok=True)
        return path

    @cached_property
    def _stub(self) -> "DatasetServiceAsyncStub":
        return DatasetServiceStub(self._transport.channel("features"))


def read_spec(spec: DatasetSpec | Mapping[str, Any] | str) -> DatasetSpec:
    """The message of a specification in any form; of a manifest its specification. ValueError for anything else."""
    if isinstance(spec, DatasetSpec):
        return spec
    document = json.loads(spec) if isinstance(spec, str) else dict(spec)
    if isinstance(document, dict) and "spec" in document and "files" in document:
        document = document["spec"]
    try:
        return json_format.ParseDict(document, DatasetSpec())
    except json_format.ParseError as error:
        raise ValueError(str(error)) from None


def dataset_name(dataset: str) -> str:
    """datasets/{dataset}, from that or the id alone."""
    return dataset if dataset.startswith("datasets/") else f"datasets/{dataset}"
