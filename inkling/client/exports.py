"""Exports of profiles: written by features as of one instant, downloaded as Parquet or CSV."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from google.longrunning import operations_pb2

from inkling.client.operations import Operations, Progress
from inkling.client.profiles import selection
from inkling.client.transport import Transport
from inkling.errors import Internal
from inkling.features.v1 import export_pb2 as messages
from inkling.features.v1.export_pb2 import Export
from inkling.features.v1.profile_service_pb2_grpc import ProfileServiceStub

if TYPE_CHECKING:
    from inkling.features.v1.profile_service_pb2_grpc import ProfileServiceAsyncStub

_FORMATS = {"parquet": messages.EXPORT_FORMAT_PARQUET, "csv": messages.EXPORT_FORMAT_CSV}


class AsyncExports:
    """Files of profiles. An `Export` is the message of `export.proto`: columns, rows, position, instant, checksum."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._operations = Operations(transport, "features")

    async def create(
        self,
        *,
        service: str = "",
        groups: Sequence[str] = (),
        attributes: Sequence[str] = (),
        properties: Sequence[str] = (),
        everything: bool = False,
        attribute_key: str = "",
        segment: str = "",
        format: Literal["parquet", "csv"] = "parquet",  # noqa: A002
        statuses: bool = False,
        timeout: timedelta | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Export:
        """Writes all profiles, or those of a segment, and returns when the file is there. `timeout` bounds the wait."""
        request = messages.ExportProfilesRequest(
            attribute_key=attribute_key,
            selection=selection(service, groups, attributes, properties, (), False, everything),
            segment=segment if not segment or segment.startswith("segments/") else f"segments/{segment}",
            format=_FORMATS[format],
            statuses=statuses,
        )
        operation: operations_pb2.Operation = await self._transport.call(
            self._stub.ExportProfiles, request, retries=False
        )
        done = await self._operations.wait(operation, timeout=timeout, on_progress=on_progress)
        export = Export()
        done.response.Unpack(export)
        return export

    async def list(self) -> AsyncIterator[Export]:
        """All exports, the newest first."""
        request = messages.ListExportsRequest(page_size=100)
        while True:
            response = await self._transport.call(self._stub.ListExports, request)
            for export in response.exports:
                yield export
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    async def delete(self, export: str) -> None:
        """Deletes an export with its file."""
        await self._transport.call(self._stub.DeleteExport, messages.DeleteExportRequest(name=export_name(export)))

    async def download(self, export: Export, path: Path) -> None:
        """Writes the file of an export, wholly or not at all, checked against its checksum."""
        part = path.with_name(f"{path.name}.part")

        async def attempt() -> None:
            digest = hashlib.sha256()
            request = messages.ReadExportFileRequest(name=export.name)
            with await asyncio.to_thread(part.open, "wb") as target:
                async for piece in self._stub.ReadExportFile(request, metadata=self._transport.metadata()):
                    digest.update(piece.data)
                    await asyncio.to_thread(target.write, piece.data)
            if digest.hexdigest() != export.sha256:
                raise Internal(f"{export.name} came with other bytes than it has: try again")

        try:
            await self._transport.retrying(attempt, ends=None)
            await asyncio.to_thread(os.replace, part, path)
        finally:
            await asyncio.to_thread(part.unlink, missing_ok=True)

    @cached_property
    def _stub(self) -> "ProfileServiceAsyncStub":
        return ProfileServiceStub(self._transport.channel("features"))


def export_name(export: str) -> str:
    """exports/{export}, from that or the id alone."""
    return export if export.startswith("exports/") else f"exports/{export}"
