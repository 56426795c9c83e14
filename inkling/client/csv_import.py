"""Streams a CSV file to ingest and follows its progress."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from inkling.client.transport import Transport
from inkling.ingest.v1 import collection_pb2, error_reason_pb2, event_pb2, ingest_service_pb2

if TYPE_CHECKING:
    from inkling.ingest.v1.ingest_service_pb2_grpc import IngestServiceAsyncStub

ColumnType = Literal["string", "number", "integer", "boolean", "timestamp", "string_list"]

CHUNK_BYTES = 256 << 10
MAX_ERRORS_KEPT = 1_000


@dataclass(frozen=True, slots=True)
class LineError:
    """One refused line: its number in the file (the header is 1), the column at fault if one is, and why."""

    line: int
    column: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class CsvProgress:
    """How far an import is, in lines (the header not counted) and in bytes sent of the file's.

    `errors` are the first refused lines, at most 1,000; `rejected` counts them all. `position` is that of the newest
    event imported.
    """

    lines: int = 0
    accepted: int = 0
    rejected: int = 0
    position: int = 0
    bytes_sent: int = 0
    bytes_total: int = 0
    done: bool = False
    errors: tuple[LineError, ...] = field(default=())


def make_options(
    *,
    occurred_at_column: str,
    key_columns: Mapping[str, str],
    event_type: event_pb2.EventType,
    event_type_columns: ingest_service_pb2.EventTypeColumns,
    event_id_column: str,
    collection: str,
    column_types: Mapping[str, ColumnType],
    delimiter: str,
) -> ingest_service_pb2.CsvOptions:
    """The first message of an import; ValueError for a type that does not exist."""
    types = {column: field_type(name) for column, name in column_types.items()}
    return ingest_service_pb2.CsvOptions(
        collection=collection,
        column_types=types,
        event_id_column=event_id_column,
        occurred_at_column=occurred_at_column,
        key_columns=key_columns,
        event_type=event_type if event_type.name else None,
        event_type_columns=event_type_columns if event_type_columns.name else None,
        delimiter="" if delimiter == "," else delimiter,
    )


def field_type(name: str) -> collection_pb2.FieldType.ValueType:
    """The type of a field by its lower-case name."""
    try:
        return collection_pb2.FieldType.Value(f"FIELD_TYPE_{name.upper()}")
    except ValueError:
        known = ", ".join(each.removeprefix("FIELD_TYPE_").lower() for each in collection_pb2.FieldType.keys()[1:])
        raise ValueError(f"there is no column type {name}: it is one of {known}") from None


async def import_file(
    transport: Transport,
    stub: "IngestServiceAsyncStub",
    path: Path,
    options: ingest_service_pb2.CsvOptions,
    on_progress: Callable[[CsvProgress], None] | None,
    timeout: timedelta | None,
) -> CsvProgress:
    """Sends a file and returns the last progress. A broken import starts again: lines keep their ids, so none counts
    twice.
    """
    total = (await asyncio.to_thread(path.stat)).st_size

    async def attempt() -> CsvProgress:
        upload = Upload(path, options)
        left = None if ends is None else max(0.001, ends - loop.time())
        call = stub.ImportCsv(upload.requests(), metadata=transport.metadata(), timeout=left)
        progress = CsvProgress(bytes_total=total)
        async for response in call:
            progress = advance(progress, response, upload.bytes_sent)
            if on_progress is not None:
                on_progress(progress)
        return progress

    loop = asyncio.get_running_loop()
    ends = None if timeout is None else loop.time() + timeout.total_seconds()
    return await transport.retrying(attempt, ends=ends)


class Upload:
    """One pass over the file."""

    def __init__(self, path: Path, options: ingest_service_pb2.CsvOptions) -> None:
        self._path = path
        self._options = options
        self.bytes_sent = 0

    async def requests(self) -> AsyncIterator[ingest_service_pb2.ImportCsvRequest]:
        """The options, then the file in chunks, read in a thread."""
        yield ingest_service_pb2.ImportCsvRequest(options=self._options)
        with await asyncio.to_thread(self._path.open, "rb") as file:
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield ingest_service_pb2.ImportCsvRequest(chunk=chunk)
                self.bytes_sent += len(chunk)


def advance(before: CsvProgress, response: ingest_service_pb2.ImportCsvResponse, bytes_sent: int) -> CsvProgress:
    """The progress after one more answer."""
    room = MAX_ERRORS_KEPT - len(before.errors)
    return CsvProgress(
        lines=response.line_count,
        accepted=response.accepted_count,
        rejected=response.rejected_count,
        position=max(before.position, response.position),
        bytes_sent=bytes_sent,
        bytes_total=before.bytes_total,
        done=response.done,
        errors=before.errors
        + tuple(
            LineError(
                line=each.line,
                column=each.column,
                reason=error_reason_pb2.ErrorReason.Name(each.reason).removeprefix("ERROR_REASON_"),
                message=each.message,
            )
            for each in response.errors[:room]
        ),
    )
