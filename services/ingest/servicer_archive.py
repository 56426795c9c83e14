"""ArchiveService: tells which files of the archive hold which part of the log."""

from typing import Any

import grpc.aio

from inkling.ingest.v1 import archive_service_pb2 as messages
from inkling.ingest.v1 import archive_service_pb2_grpc
from services.ingest.archive import Archive, ArchiveFile
from services.ingest.messages import duration, timestamp
from services.ingest.projects import Projects
from services.runtime.auth import Role, current_caller
from services.runtime.errors import FailedPrecondition, InvalidArgument, Violation
from services.runtime.paging import PageTokens, page_size

# The names of the methods are the protocol's.

SERVICE_NAME = "inkling.ingest.v1.ArchiveService"
POLICIES = {f"/{SERVICE_NAME}/ListArchiveFiles": frozenset({Role.SERVICE, Role.OPERATE})}
_DEFAULT_PAGE, _MAX_PAGE = 1_000, 10_000

Context = grpc.aio.ServicerContext[Any, Any]


class ArchiveServicer(archive_service_pb2_grpc.ArchiveServiceServicer):
    """The archive's index, to read. Without an archive every call is refused."""

    def __init__(self, archive: Archive | None, projects: Projects, tokens: PageTokens) -> None:
        self._archive = archive
        self._projects = projects
        self._tokens = tokens

    async def ListArchiveFiles(
        self, request: messages.ListArchiveFilesRequest, context: Context
    ) -> messages.ListArchiveFilesResponse:
        """Lists the files, after archiving what is in the log if asked to."""
        archive = self._archive
        if archive is None:
            raise FailedPrecondition("this server keeps no archive: set INKLING_INGEST_ARCHIVE", reason="NO_ARCHIVE")
        project = current_caller().project
        size = page_size(request.page_size, default=_DEFAULT_PAGE, maximum=_MAX_PAGE)
        start_us, end_us = _instant(request, "start_time"), _instant(request, "end_time")
        _check(request)
        bounds = (request.after_position, request.last_position, start_us, end_us)
        scope = (project, "ListArchiveFiles", repr(bounds))
        cursor = self._tokens.verify(request.page_token, *scope)
        if cursor:
            position, after = int(cursor["end"] or 0), (int(cursor["last"] or 0), int(cursor["hour"] or 0))
        else:
            position, after = await (archive.flush if request.settle else archive.position)(project), None
        last_position = min(request.last_position or position, position)
        files = await archive.files(
            project, request.after_position, last_position, start_us, end_us, after=after, limit=size + 1
        )
        token = ""
        if len(files) > size:
            last = files[size - 1]
            token = self._tokens.sign({"end": position, "last": last.last_position, "hour": last.hour_us}, *scope)
        response = messages.ListArchiveFilesResponse(
            files=[_message(file) for file in files[:size]],
            next_page_token=token,
            position=position,
            deduplication_horizon=duration((await self._projects.get(project)).horizon_us),
        )
        # Asked after the files: what was let go of between is not in them, and told.
        since_us = await archive.complete_since_us(project)
        if since_us is not None:
            response.complete_since_time.CopyFrom(timestamp(since_us))
        return response


def _message(file: ArchiveFile) -> messages.ArchiveFile:
    return messages.ArchiveFile(
        key=file.key,
        first_position=file.first_position,
        last_position=file.last_position,
        min_occurred_time=timestamp(file.min_occurred_us),
        max_occurred_time=timestamp(file.max_occurred_us),
        event_count=file.event_count,
        size_bytes=file.size_bytes,
    )


def _instant(request: messages.ListArchiveFilesRequest, field: str) -> int | None:
    if not request.HasField(field):  # type: ignore[arg-type]
        return None
    instant = getattr(request, field)
    return int(instant.seconds * 1_000_000 + instant.nanos // 1_000)


def _check(request: messages.ListArchiveFilesRequest) -> None:
    for field in ("after_position", "last_position"):
        if getattr(request, field) < 0:
            text = "must not be negative"
            raise InvalidArgument(
                f"{field} {text}", reason="OUT_OF_RANGE", violations=(Violation(field, text, "OUT_OF_RANGE"),)
            )
