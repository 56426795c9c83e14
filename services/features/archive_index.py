"""The files of a project's archive, as ingest lists them."""

import grpc.aio

from inkling.ingest.v1 import archive_service_pb2 as messages
from inkling.ingest.v1.archive_service_pb2_grpc import ArchiveServiceStub
from services.features.archive import ArchivedFile, ArchiveListing, NoArchive
from services.runtime.errors import Unavailable

_PAGE = 10_000
_TIMEOUT_SECONDS = 60.0


class ArchiveIndex:
    """See `archive.Listings`: over a channel to ingest that shows the key of a service."""

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
                await NoArchive().listing(project)
            raise Unavailable("the archive cannot be listed now: try again", reason="ARCHIVE_UNAVAILABLE") from error
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
