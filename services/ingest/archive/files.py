"""The files of the archive: one for each hour of event time that a range of the log touches, as Parquet.

    archive/{project}/date=YYYY-MM-DD/hour=HH/{first}-{last}.parquet

`first` and `last` are the range of positions that was archived together, in 19 digits; the events in the file are
those of the range that occurred in the hour, in log order. The columns are those of the log (`services.kernel.columns`)
and before them `position`; those without a value in the file are left out. Text is stored as plain strings, for which
Parquet has dictionaries of its own: the log's would carry every text of the range into every file.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from services.ingest.log.base import LogBatch
from services.kernel.columns import FIXED_FIELDS, EventBatch, sorted_columns
from services.kernel.dedup import Deduplicator

HOUR_US = 3_600_000_000
_ROW_GROUP_ROWS = 131_072
_PLAIN = frozenset(field.name for field in FIXED_FIELDS if pa.types.is_string(field.type))


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """What the index knows of one file."""

    project: str
    hour_us: int
    """The start of its hour of event time."""
    first_position: int
    last_position: int
    """The range of the log that it was made from; the events in it are some of these."""
    min_occurred_us: int
    max_occurred_us: int
    event_count: int
    size_bytes: int

    @property
    def key(self) -> str:
        """Its name in the blob store."""
        hour = datetime.fromtimestamp(self.hour_us // 1_000_000, UTC)
        name = f"{self.first_position:019d}-{self.last_position:019d}.parquet"
        return f"archive/{self.project}/date={hour:%Y-%m-%d}/hour={hour:%H}/{name}"


class Written(NamedTuple):
    """A file and its bytes."""

    file: ArchiveFile
    content: bytes


def write_files(
    project: str, first: int, last: int, batches: Iterable[LogBatch], seen: Deduplicator
) -> Iterator[Written]:
    """The files of the range [first, last] of the log, given its batches; `seen` learns their ids.

    The result depends on the log and `seen` alone: doing it again gives the same names and the same bytes.
    """
    table = _first_sightings(batches, seen)
    if not table.num_rows:
        return
    occurred = table.column("occurred_at").to_numpy()
    hours = occurred // HOUR_US
    order = np.argsort(hours, kind="stable")
    table = table.take(pa.array(order))
    distinct, starts = np.unique(hours[order], return_index=True)
    ends = np.append(starts[1:], len(order))
    for hour, start, end in zip(distinct.tolist(), starts.tolist(), ends.tolist(), strict=True):
        times = occurred[order[start:end]]
        span = (int(times.min()), int(times.max()))
        content = _to_parquet(table.slice(start, end - start), project, first, last, span)
        yield Written(
            ArchiveFile(project, hour * HOUR_US, first, last, *span, end - start, len(content)),
            content,
        )


def remember(batches: Iterable[LogBatch], seen: Deduplicator) -> None:
    """Teaches `seen` the ids of batches that are archived already."""
    for batch in batches:
        seen.admit(EventBatch.from_ipc(batch.data))


def read_file(source: Path | bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The events of a file, in the log's column types; `columns` limits which."""
    place = pa.BufferReader(source) if isinstance(source, bytes) else source
    with pq.ParquetFile(place) as file:
        texts = [f.name for f in file.schema_arrow if pa.types.is_string(f.type) and f.name not in _PLAIN]
    place = pa.BufferReader(source) if isinstance(source, bytes) else source
    with pq.ParquetFile(place, read_dictionary=texts) as file:
        return file.read(columns=None if columns is None else list(columns))


def _first_sightings(batches: Iterable[LogBatch], seen: Deduplicator) -> pa.Table:
    """The records of some batches that have an effect, with their positions, as one table."""
    tables = []
    for batch in batches:
        events = EventBatch.from_ipc(batch.data)
        if events.num_rows != batch.count:
            raise ValueError(
                f"{batch.count} events in the log at {batch.first_position}, {events.num_rows} in its batch"
            )
        positions = pa.array(np.arange(batch.first_position, batch.last_position + 1))
        table = pa.Table.from_batches([events.record_batch]).add_column(0, "position", positions)
        effective = seen.admit(events)
        tables.append(table if effective.all() else table.filter(pa.array(effective)))
    if not tables:
        return pa.table({"position": pa.array([], pa.int64())})
    merged = pa.concat_tables(tables, promote_options="default").unify_dictionaries().combine_chunks()
    names = sorted_columns(name for name in merged.column_names if name != "position")
    return merged.select(["position", *names])


def written_anew(file: ArchiveFile, table: pa.Table) -> bytes:
    """The bytes of a file that holds only some of its events any more, with their positions."""
    occurred = table.column("occurred_at").to_numpy()
    span = (int(occurred.min()), int(occurred.max()))
    return _to_parquet(table, file.project, file.first_position, file.last_position, span)


def merged(file: ArchiveFile, tables: Sequence[pa.Table]) -> Written:
    """One file of the events of several, which are given in the order of the log and are of the file's hour."""
    table = pa.concat_tables(tables, promote_options="default").unify_dictionaries().combine_chunks()
    names = sorted_columns(name for name in table.column_names if name != "position")
    table = table.select(["position", *names])
    occurred = table.column("occurred_at").to_numpy()
    span = (int(occurred.min()), int(occurred.max()))
    content = _to_parquet(table, file.project, file.first_position, file.last_position, span)
    measured = replace(
        file,
        min_occurred_us=span[0],
        max_occurred_us=span[1],
        event_count=table.num_rows,
        size_bytes=len(content),
    )
    return Written(measured, content)


def _to_parquet(table: pa.Table, project: str, first: int, last: int, span: tuple[int, int]) -> bytes:
    required = {"position", *(field.name for field in FIXED_FIELDS)}
    columns: dict[str, pa.ChunkedArray] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in required or column.null_count < len(column):
            columns[name] = column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
    fields = [pa.field(name, column.type, nullable=name not in required) for name, column in columns.items()]
    facts = {
        "inkling.project": project,
        "inkling.first_position": str(first),
        "inkling.last_position": str(last),
        "inkling.min_occurred_us": str(span[0]),
        "inkling.max_occurred_us": str(span[1]),
    }
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table(list(columns.values()), schema=pa.schema(fields, metadata=facts)),
        sink,
        row_group_size=_ROW_GROUP_ROWS,
        compression="zstd",
        write_page_index=True,
    )
    return bytes(sink.getvalue())
