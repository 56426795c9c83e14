"""Exports: profiles written to the blob store by long-running operations, each with a manifest."""

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from services.features.export import Columns, Gathered, gather, scratch, write_csv, write_parquet
from services.features.export_parts import Roster
from services.features.projects import Projects
from services.features.selections import Selection
from services.runtime.blobs import BlobStore
from services.runtime.clocks import Clock
from services.runtime.errors import InvalidArgument, NotFound, Unimplemented, Violation

PREFIX = "exports/"
_PIECE = 1024 * 1024
_REPORT_SECONDS = 0.5

Members = Callable[[str, str], Awaitable[tuple[str, Sequence[str]]]]
"""The attribute key and the members, in no order, of a project's segment by its name; raises NotFound."""
Rosters = Callable[[str, str], Sequence[Roster]]
"""All segments of a project's attribute key, with their members."""
Report = Callable[[int, int], Awaitable[None]]
"""Hears how many of how many profiles are read."""


class ExportFormat(StrEnum):
    """The form of an exported file."""

    PARQUET = "parquet"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export."""

    attribute_key: str
    selection: Selection
    segment: str = ""
    """segments/{segment}; empty is all profiles."""
    format: ExportFormat = ExportFormat.PARQUET
    statuses: bool = False


@dataclass(frozen=True, slots=True)
class Export:
    """The manifest of an exported file. Times are microseconds."""

    name: str
    """exports/{export}"""
    attribute_key: str
    segment: str
    format: ExportFormat
    columns: tuple[str, ...]
    row_count: int
    position: int
    as_of_us: int
    size_bytes: int
    sha256: str
    create_time_us: int
    key: str
    """The file's name in the blob store."""


class Exports:
    """The exports of all projects."""

    def __init__(
        self,
        projects: Projects,
        blobs: BlobStore,
        clock: Clock,
        folder: Path,
        members: Members | None = None,
        rosters: Rosters | None = None,
    ) -> None:
        """`folder` is for files on their way."""
        self._projects = projects
        self._blobs = blobs
        self._clock = clock
        self._folder = folder
        self._members = members
        self._rosters = rosters

    def new_name(self) -> str:
        """A name that sorts after those before."""
        return f"{PREFIX}{self._clock.now_us():016x}{secrets.token_hex(4)}"

    async def check(self, project: str, request: ExportRequest) -> None:
        """Raises at once what is wrong with a request."""
        columns = await self.columns(project, request)
        if request.segment:
            await self._members_of(project, request.segment, columns)

    async def columns(self, project_name: str, request: ExportRequest) -> Columns:
        """What a request means; raises as reading does."""
        project = await self._projects.get(project_name)
        if request.segment and self._members is None:
            raise Unimplemented("this server knows no segments")
        return Columns.of(project.catalog, request.selection, request.attribute_key, statuses=request.statuses)

    async def write(self, project_name: str, name: str, request: ExportRequest, report: Report) -> Export:
        """Writes an export; the same name again replaces it."""
        await self._projects.wait_opened()
        project = await self._projects.get(project_name)
        columns = await self.columns(project_name, request)
        await project.ready.wait()
        keys: list[str] | None = None
        if request.segment and self._members is not None:
            keys = await self._members_of(project_name, request.segment, columns)
        with scratch(self._folder) as folder:
            counts = [0, 0]
            reporting = asyncio.create_task(_report(counts, report))
            try:

                def done(count: int, total: int) -> None:
                    counts[:] = count, total

                def rosters() -> Sequence[Roster]:
                    return self._rosters(project_name, columns.attribute_key) if self._rosters else ()

                gathered = await gather(project.serving(), columns, keys, folder, done, rosters)
                target = folder / f"profiles.{request.format}"
                writer = write_csv if request.format is ExportFormat.CSV else write_parquet
                await asyncio.to_thread(writer, gathered, target)
                await report(gathered.rows, gathered.rows)
                return await self._keep(project_name, name, request, columns, gathered, target)
            finally:
                reporting.cancel()
                await asyncio.gather(reporting, return_exceptions=True)

    async def _members_of(self, project: str, segment: str, columns: Columns) -> list[str]:
        assert self._members is not None, "looked at before"
        attribute_key, members = await self._members(project, segment)
        if attribute_key != columns.attribute_key:
            text = f"is one of {attribute_key}, the selection is of {columns.attribute_key}"
            raise InvalidArgument(
                f"the segment {text}",
                reason="BAD_SELECTION",
                violations=(Violation("segment", text, "BAD_SELECTION"),),
            )
        return sorted(members)

    async def _keep(
        self, project: str, name: str, request: ExportRequest, columns: Columns, gathered: Gathered, path: Path
    ) -> Export:
        folder = _folder_of(project, name)
        digest, size = await asyncio.to_thread(_digest, path)
        export = Export(
            name=name,
            attribute_key=columns.attribute_key,
            segment=request.segment,
            format=request.format,
            columns=tuple(columns.names),
            row_count=gathered.rows,
            position=gathered.position,
            as_of_us=gathered.as_of_us,
            size_bytes=size,
            sha256=digest,
            create_time_us=self._clock.now_us(),
            key=f"{folder}{path.name}",
        )
        await self._blobs.put(export.key, path)
        # The manifest last: what has one is whole.
        await self._blobs.put(f"{folder}manifest.json", json.dumps(asdict(export), indent=1).encode())
        return export

    async def get(self, project: str, name: str) -> Export:
        """The manifest of an export; raises NotFound."""
        try:
            data = await self._blobs.get(f"{_folder_of(project, name)}manifest.json")
        except NotFound:
            raise NotFound(f"there is no {name}", reason="NOT_FOUND") from None
        fields = json.loads(data)
        return Export(**fields | {"format": ExportFormat(fields["format"]), "columns": tuple(fields["columns"])})

    async def page(self, project: str, before: str, count: int) -> list[Export]:
        """The exports older than one, newest first; an empty name begins with the newest."""
        prefix = f"{PREFIX}{project}/"
        found = [blob.key for blob in await self._blobs.list(prefix) if blob.key.endswith("/manifest.json")]
        names = [PREFIX + key.removeprefix(prefix).split("/")[0] for key in found]
        older = sorted((name for name in names if not before or name < before), reverse=True)
        return [await self.get(project, name) for name in older[:count]]

    async def delete(self, project: str, name: str) -> None:
        """Removes an export with its file; raises NotFound."""
        export = await self.get(project, name)
        await self._blobs.delete(export.key)
        await self._blobs.delete(f"{_folder_of(project, name)}manifest.json")

    async def read(self, project: str, name: str, offset: int) -> AsyncIterator[bytes]:
        """The bytes of an export's file from an offset on, in pieces."""
        export = await self.get(project, name)
        if not 0 <= offset <= export.size_bytes:
            text = f"must be from 0 to {export.size_bytes}, the size of the file"
            raise InvalidArgument(
                f"offset {text}", reason="OUT_OF_RANGE", violations=(Violation("offset", text, "OUT_OF_RANGE"),)
            )
        path = await self._blobs.open_path(export.key)
        if path is None:
            data = await self._blobs.get(export.key)
            for start in range(offset, len(data), _PIECE):
                yield data[start : start + _PIECE]
            return
        with path.open("rb") as file:
            file.seek(offset)
            while piece := await asyncio.to_thread(file.read, _PIECE):
                yield piece


def _folder_of(project: str, name: str) -> str:
    """Where an export is; raises NotFound for what is no name of one."""
    export_id = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX) or not export_id.isalnum() or len(export_id) > 64:
        raise NotFound("an export's name is exports/{export}", reason="NOT_FOUND")
    return f"{PREFIX}{project}/{export_id}/"


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


async def _report(counts: list[int], report: Report) -> None:
    while True:
        await asyncio.sleep(_REPORT_SECONDS)
        await report(counts[0], counts[1])
