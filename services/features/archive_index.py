"""The files of a project's archive, as ingest lists them."""

from typing import Protocol

import grpc.aio

from inkling.ingest.v1 import archive_service_pb2 as messages
from inkling.ingest.v1.archive_service_pb2_grpc import ArchiveServiceStub
from services.features.archive import ArchivedFile, ArchiveListing
from services.runtime.errors import FailedPrecondition, Unavailable

_PAGE = 10_000
_TIMEOUT_SECONDS = 60.0


class Listings(Protocol):
    """Whoever knows what the archive holds."""

    async def listing(self, project: str, *, settle: bool = True) -> ArchiveListing:
        """What a project's archive holds; with `settle`, after everything in the log was archived.

        Raises Unavailable when it cannot be said now, FailedPrecondition where there is no archive.
        """
        ...


class ArchiveIndex:
    """Listings over a channel to ingest that shows the key of a service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = ArchiveServiceStub(channel)

    async def listing(self, project: str, *, settle: bool = True) -> ArchiveListing:
        """See Listings."""
        files: list[ArchivedFile] = []
        token = ""
        while True:
            request = messages.ListArchiveFilesRequest(page_size=_PAGE, page_token=token, settle=settle)
            page = await self._page(request, project)
            files.extend(_file(each) for each in page.files)
            token = page.next_page_token
            if not token:
                break
        since = page.complete_since_time
        return ArchiveListing(
            project=project,
            files=tuple(files),
            position=page.position,
            complete_since_us=_microseconds(since) if page.HasField("complete_since_time") else None,
            horizon_us=_microseconds(page.deduplication_horizon),
        )

    async def _page(self, request: messages.ListArchiveFilesRequest, project: str) -> messages.ListArchiveFilesResponse:
        try:
            page: messages.ListArchiveFilesResponse = await self._stub.ListArchiveFiles(
                request, metadata=(("x-inkling-project", project),), timeout=_TIMEOUT_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                raise FailedPrecondition(
                    "ingest keeps no archive, from which the past is read: set INKLING_INGEST_ARCHIVE",
                    reason="NO_ARCHIVE",
                ) from error
            raise Unavailable("the archive cannot be listed now: try again", reason="NO_ARCHIVE_NOW") from error
        return page


def _file(message: messages.ArchiveFile) -> ArchivedFile:
    return ArchivedFile(
        key=message.key,
        first_position=message.first_position,
        last_position=message.last_position,
        min_occurred_us=_microseconds(message.min_occurred_time),
        max_occurred_us=_microseconds(message.max_occurred_time),
        event_count=message.event_count,
        size_bytes=message.size_bytes,
    )


def _microseconds(message: object) -> int:
    """Of a Timestamp or a Duration."""
    seconds: int = getattr(message, "seconds")  # noqa: B009
    nanos: int = getattr(message, "nanos")  # noqa: B009
    return seconds * 1_000_000 + nanos // 1_000
