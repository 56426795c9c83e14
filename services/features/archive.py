"""Reads the archive: the log as Parquet files, each event once, in the order of the log.

A file holds the events of one hour of event time from one range of positions. The ranges do not overlap, so the files
of one range are read together and put into the order of their positions, and only one range is in memory at a time.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from services.kernel.aggregations import Aggregation
from services.kernel.columns import ADD, FIXED_FIELDS, EventBatch, key_column, merge, shard_of
from services.kernel.expressions import Property
from services.runtime.errors import FailedPrecondition

_FIXED = frozenset(field.name for field in FIXED_FIELDS)
_POSITION = "position"
_SMALL = 8_192
"""Records of a file whose texts are not worth a dictionary of their own."""


class ArchiveChangedError(Exception):
    """A file of the listing is not there any more: retention or an erasure took it. List again, then read again."""


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """One file of the archive. Times are microseconds."""

    key: str
    """Its name in the blob store."""
    first_position: int
    last_position: int
    """The range of the log that it was made from; its records are some of these."""
    min_occurred_us: int
    max_occurred_us: int
    event_count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ArchiveListing:
    """What a project's archive held at a moment."""

    project: str
    files: tuple[ArchivedFile, ...]
    position: int
    """All records of the log up to here are in the files."""
    complete_since_us: int | None
    """The event time from which on nothing was let go of; None when nothing ever was."""
    horizon_us: int
    """How long ids are remembered. The files are free of repetitions already: evaluate them with a horizon of 0."""


class Listings(Protocol):
    """Whoever knows what the archive holds."""

    async def listing(self, project: str, *, settle: bool = True) -> ArchiveListing:
        """What a project's archive holds; with `settle`, after everything in the log was archived.

        Raises Unavailable when it cannot be said now, FailedPrecondition where there is no archive.
        """
        ...


class NoArchive:
    """Where there is no archive."""

    async def listing(self, project: str, *, settle: bool = True) -> ArchiveListing:
        """See Listings."""
        raise FailedPrecondition(
            "ingest keeps no archive, from which the past is read: set INKLING_INGEST_ARCHIVE", reason="NO_ARCHIVE"
        )


class Wanted(NamedTuple):
    """Which records of a file are asked for."""

    key_column: str
    key_values: frozenset[str]
    value_set: pa.Array
    """The same."""
    addition: pa.Scalar
    """The operation of a record that is no correction: made once, as it costs more than to compare with it."""
    shards: tuple[int, int] | None
    before_us: int | None
    after_position: int
    up_to_position: int | None

    def all_of(self, file: ArchivedFile) -> bool:
        """Whether every record of a file is."""
        up_to = self.up_to_position
        whole = file.first_position > self.after_position and (up_to is None or file.last_position <= up_to)
        return whole and not self.by_key and (self.before_us is None or file.max_occurred_us < self.before_us)

    @property
    def by_key(self) -> bool:
        """Whether it depends on the key."""
        return bool(self.key_values) or self.shards is not None


def read_events(
    blobs_root: Path,
    listing: ArchiveListing,
    *,
    columns: Collection[str] | None = None,
    attribute_key: str = "",
    key_values: Collection[str] = (),
    shards: tuple[int, int] | None = None,
    before_us: int | None = None,
    after_position: int = 0,
    up_to_position: int | None = None,
    max_rows: int = 262_144,
) -> Iterator[EventBatch]:
    """The records of a listing in the order of the log, in batches of at most `max_rows`. Blocks: for threads.

    `columns` names those wanted beside the fixed ones, with their kind (`a.amount:d`) or without (`a.amount`, all
    kinds); None is all. `key_values` and `shards` (first and last, both included) keep the records of some values of
    `attribute_key`; `before_us` those that occurred before an instant; of the positions the first is outside, the last
    inside.

    Corrections always come, because the version that they take back may be among what is asked for; those of other
    keys come without the key, so that they only take back. Raises ArchiveChangedError.
    """
    if (key_values or shards is not None) and not attribute_key:
        raise ValueError("key values and shards are those of an attribute key")
    name = key_column(attribute_key) if attribute_key else ""
    value_set = pa.array(sorted(set(key_values)), pa.string())
    addition = pa.scalar(ADD, pa.int8())
    bounds = (before_us, after_position, up_to_position)
    wanted = Wanted(name, frozenset(key_values), value_set, addition, shards, *bounds)
    prune = None if columns is None else frozenset(columns) | ({wanted.key_column} - {""})
    until = listing.position if up_to_position is None else up_to_position
    files = (file for file in listing.files if file.first_position <= until and file.last_position > after_position)
    ordered = sorted(files, key=lambda file: (file.last_position, file.first_position))
    for _, group in groupby(ordered, key=lambda file: (file.last_position, file.first_position)):
        yield from _read_range(blobs_root, list(group), prune, wanted, max_rows)


def columns_of(aggregations: Iterable[Aggregation]) -> frozenset[str]:
    """The columns that aggregations look at, without kinds: for `read_events`."""
    found: set[str] = set()
    for aggregation in aggregations:
        _collect(aggregation.filter, found)
        _collect(aggregation.term, found)
    return frozenset(found)


def _collect(part: object, found: set[str]) -> None:
    """Adds the columns of every property in a tree of expressions."""
    if isinstance(part, Property):
        found.add(part.column)
    elif isinstance(part, tuple):
        for each in part:
            _collect(each, found)
    elif is_dataclass(part):
        for field in fields(part):
            _collect(getattr(part, field.name), found)


def _read_range(
    root: Path, files: list[ArchivedFile], prune: frozenset[str] | None, wanted: Wanted, max_rows: int
) -> Iterator[EventBatch]:
    # Many small files: their texts are encoded once for all.
    plain = all(file.event_count <= _SMALL for file in files)
    tables = [table for file in files if (table := _read_file(root / file.key, file, prune, wanted, plain)) is not None]
    if not tables:
        return
    if plain:
        tables = [_encoded(pa.concat_tables(tables, promote_options="default"))]
    events = merge([EventBatch(batch) for table in tables for batch in table.combine_chunks().to_batches()])
    positions = events.record_batch.column(_POSITION).to_numpy()
    if len(files) > 1:
        events = events.take(np.argsort(positions, kind="stable"))
    events = EventBatch(events.record_batch.drop_columns([_POSITION]))
    for start in range(0, events.num_rows, max_rows):
        yield events.slice(start, max_rows)


def _read_file(
    path: Path, file: ArchivedFile, prune: frozenset[str] | None, wanted: Wanted, plain: bool
) -> pa.Table | None:
    """The records of one file that are asked for, or None when there are none; `plain` leaves texts unencoded."""
    late = wanted.before_us is not None and file.min_occurred_us >= wanted.before_us
    try:
        with pa.memory_map(str(path)) as source:
            opened = pq.ParquetFile(source)
            metadata, schema = opened.metadata, opened.schema_arrow
            if late and not _has_corrections(metadata):
                return None
            names = [name for name in schema.names if _is_wanted(name, prune)]
            if not plain:
                texts = [name for name in names if _is_text(name, schema.field(name).type)]
                opened = pq.ParquetFile(source, metadata=metadata, read_dictionary=texts)
            if wanted.all_of(file):
                return opened.read(columns=names, use_threads=False)
            return _read_some(opened, names, wanted, file)
    except FileNotFoundError as error:
        raise ArchiveChangedError(f"{path.name} is gone") from error


def _is_text(name: str, kind: pa.DataType) -> bool:
    """Whether a column is a dictionary in the log."""
    return pa.types.is_string(kind) and name not in _FIXED - {"event_type"}


def _encoded(table: pa.Table) -> pa.Table:
    """A table with its texts as in the log."""
    columns = [
        column.dictionary_encode() if _is_text(name, column.type) else column
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    return pa.table(columns, table.column_names)


def _is_wanted(name: str, prune: frozenset[str] | None) -> bool:
    return prune is None or name in _FIXED or name == _POSITION or name in prune or name.rpartition(":")[0] in prune


def _has_corrections(metadata: pq.FileMetaData) -> bool:
    """Whether any record replaces or deletes, as far as the statistics tell."""
    place = metadata.schema.names.index("operation")
    for i in range(metadata.num_row_groups):
        statistics = metadata.row_group(i).column(place).statistics
        if statistics is None or not statistics.has_min_max or statistics.max != 0:
            return True
    return False


def _read_some(opened: pq.ParquetFile, names: list[str], wanted: Wanted, file: ArchivedFile) -> pa.Table | None:
    """Reads what decides first, and the other columns only when a record is left."""
    deciding = [_POSITION, "occurred_at", "operation"]
    if wanted.key_column in names:
        deciding.append(wanted.key_column)
    # Keys of some shards are in nearly every file: then reading it once costs less than twice.
    whole = wanted.shards is not None and not wanted.key_values
    table = opened.read(columns=names if whole else deciding, use_threads=False)
    correction = pc.not_equal(table.column("operation"), wanted.addition)
    kept = correction
    mine = None
    if wanted.by_key:
        mine = _of_keys(table, wanted)
        kept = mine if mine is not None and not _any(correction) else correction if mine is None else pc.or_(mine, kept)
    else:
        kept = pc.is_valid(table.column(_POSITION))
    if wanted.before_us is not None:
        kept = pc.and_(kept, pc.or_(pc.less(table.column("occurred_at"), wanted.before_us), correction))
    if file.first_position <= wanted.after_position:
        kept = pc.and_(kept, pc.greater(table.column(_POSITION), wanted.after_position))
    if wanted.up_to_position is not None and file.last_position > wanted.up_to_position:
        kept = pc.and_(kept, pc.less_equal(table.column(_POSITION), wanted.up_to_position))
    if not _any(kept):
        return None
    result = (table if whole else opened.read(columns=names, use_threads=False)).filter(kept)
    if mine is not None:
        result = _without_other_keys(result, mine.filter(kept), wanted.key_column)
    return result


def _of_keys(table: pa.Table, wanted: Wanted) -> pa.ChunkedArray | None:
    """Which records have a key that is asked for; None when none can."""
    if wanted.key_column not in table.column_names:
        return None
    column = table.column(wanted.key_column)
    if pa.types.is_string(column.type):
        if wanted.shards is None:
            return pc.is_in(column, value_set=wanted.value_set)
        column = column.dictionary_encode()
    chunks = []
    for chunk in column.chunks:
        values = chunk.dictionary
        chosen = np.ones(len(values) + 1, np.bool_)
        chosen[-1] = False
        if wanted.key_values:
            chosen[:-1] &= pc.is_in(values, value_set=wanted.value_set).to_numpy(False)
        if wanted.shards is not None:
            first, last = wanted.shards
            shards = np.fromiter((shard_of(value) for value in values.to_pylist()), np.int64, len(values))
            chosen[:-1] &= (shards >= first) & (shards <= last)
        codes = chunk.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)
        chunks.append(pa.array(chosen[codes]))
    return pa.chunked_array(chunks, pa.bool_())


def _without_other_keys(table: pa.Table, mine: pa.ChunkedArray, name: str) -> pa.Table:
    if bool(pc.all(mine).as_py()):
        return table
    place = table.column_names.index(name)
    column = table.column(name)
    masked = pc.if_else(mine, column.cast(pa.string()), pa.scalar(None, pa.string()))
    return table.set_column(place, name, masked if pa.types.is_string(column.type) else masked.dictionary_encode())


def _any(mask: pa.ChunkedArray) -> bool:
    return bool(pc.any(mask).as_py())
