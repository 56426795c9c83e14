"""The columns of an event batch: the one form that events have from the door to the answer.

A batch in the log is one Arrow record batch with fixed columns and then one column for each key and property seen in
it:

    event_id      string                     unique within the project
    event_type    dictionary<int32, string>  "vendor/name/version"; vendor and version may be empty
    occurred_at   int64                      event time, microseconds
    received_at   int64                      when ingest took it, microseconds
    operation     int8                       0 add, 1 replace, 2 delete
    revision      int32                      0 for a new event
    fingerprint   uint64                     hash of the content, to notice another content under the same id
    k.<key>                                              dictionary<int32, string>
    a.<name>:<t>                                         an atomic property
    d.<path>:<t>                                         a property of the event's own data
    e.<vendor>/<name>/<major>[<index>].<path>:<t>        a property of an entity

`<t>` is the kind: s dictionary<int32, string>, i int64, d float64, b bool, t int64 microseconds, l list<string>. A
property that comes with several kinds in one batch has several columns. Absent and null are the same.
"""

import zlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

ADD, REPLACE, DELETE = 0, 1, 2
SHARDS = 64
RESERVED_VENDOR = "inkling"
"""The vendor of the records that the suite itself writes into the log. A selector without a vendor passes them over."""

DICTIONARY = pa.dictionary(pa.int32(), pa.string())
KIND_TYPES: dict[str, pa.DataType] = {
    "s": DICTIONARY,
    "i": pa.int64(),
    "d": pa.float64(),
    "b": pa.bool_(),
    "t": pa.int64(),
    "l": pa.list_(pa.string()),
}
FIXED_FIELDS: tuple[pa.Field, ...] = (
    pa.field("event_id", pa.string(), nullable=False),
    pa.field("event_type", DICTIONARY, nullable=False),
    pa.field("occurred_at", pa.int64(), nullable=False),
    pa.field("received_at", pa.int64(), nullable=False),
    pa.field("operation", pa.int8(), nullable=False),
    pa.field("revision", pa.int32(), nullable=False),
    pa.field("fingerprint", pa.uint64(), nullable=False),
)


def key_column(attribute_key: str) -> str:
    """The name of the column of an attribute key."""
    return f"k.{attribute_key}"


class Strings(NamedTuple):
    """A string column as codes into its distinct values."""

    codes: NDArray[np.int32]
    """One for each row; -1 is null."""
    values: pa.Array
    """The distinct values, type string."""


class EventBatch:
    """A record batch of events with its columns as NumPy views, taken when first asked for."""

    def __init__(self, record_batch: pa.RecordBatch) -> None:
        self.record_batch = record_batch
        self._positions = {name: i for i, name in enumerate(record_batch.schema.names)}

    @classmethod
    def from_ipc(cls, data: bytes | memoryview | pa.Buffer) -> "EventBatch":
        """Reads an Arrow IPC stream of one batch; several are merged. Raises pa.ArrowInvalid on anything else."""
        # Threads cost more than they bring on columns of some kilobytes.
        options = pa.ipc.IpcReadOptions(use_threads=False)
        with pa.ipc.open_stream(data, options=options) as reader:
            batches = list(reader)
            if len(batches) == 1:
                return cls(batches[0])
            return cls(_one_batch(pa.Table.from_batches(batches, schema=reader.schema)))

    @property
    def num_rows(self) -> int:
        """How many events."""
        return int(self.record_batch.num_rows)

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return list(self._positions)

    def column(self, name: str) -> pa.Array | None:
        """A column by name, or None: no row of the batch has a value."""
        position = self._positions.get(name)
        return None if position is None else self.record_batch.column(position)

    def _fixed(self, name: str) -> NDArray[np.int64]:
        array: NDArray[np.int64] = self.record_batch.column(self._positions[name]).to_numpy(zero_copy_only=False)
        return array

    @cached_property
    def occurred_at(self) -> NDArray[np.int64]:
        """Event times."""
        return self._fixed("occurred_at")

    @cached_property
    def received_at(self) -> NDArray[np.int64]:
        """When ingest took each event."""
        return self._fixed("received_at")

    @cached_property
    def operation(self) -> NDArray[np.int8]:
        """ADD, REPLACE or DELETE."""
        return self._fixed("operation").astype(np.int8, copy=False)

    @cached_property
    def revision(self) -> NDArray[np.int32]:
        """Revisions, 0 for new events."""
        return self._fixed("revision").astype(np.int32, copy=False)

    @cached_property
    def fingerprint(self) -> NDArray[np.uint64]:
        """Content hashes."""
        return self._fixed("fingerprint").astype(np.uint64, copy=False)

    @cached_property
    def event_ids(self) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """The ids as UTF-8: offsets (rows + 1) into bytes."""
        array = self.record_batch.column(self._positions["event_id"])
        _, offsets, data = array.buffers()
        starts = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
        content = np.frombuffer(data, np.uint8) if data is not None and data.size else np.empty(0, np.uint8)
        return starts, content

    def strings(self, name: str) -> Strings | None:
        """A string column as codes and distinct values, or None when it is absent."""
        array = self.column(name)
        if array is None:
            return None
        if not pa.types.is_dictionary(array.type):
            array = array.dictionary_encode()
        indices = array.indices
        codes = indices.fill_null(-1) if indices.null_count else indices
        return Strings(codes.to_numpy(zero_copy_only=False).astype(np.int32, copy=False), array.dictionary)

    def numbers(self, name: str) -> tuple[NDArray[np.generic], NDArray[np.bool_]] | None:
        """A column that is not of strings as values and presence, or None when it is absent; nulls read as 0."""
        array = self.column(name)
        if array is None:
            return None
        if not array.null_count:
            return array.to_numpy(zero_copy_only=False), np.ones(len(array), np.bool_)
        present = array.is_valid().to_numpy(zero_copy_only=False)
        filled = array.fill_null(False) if pa.types.is_boolean(array.type) else array.fill_null(0)
        return filled.to_numpy(zero_copy_only=False), present

    def present(self, name: str) -> NDArray[np.bool_] | None:
        """Which rows have a value in a column of any type, or None when it is absent."""
        array = self.column(name)
        if array is None:
            return None
        result: NDArray[np.bool_] = array.is_valid().to_numpy(zero_copy_only=False)
        return result

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "EventBatch":
        """The batch of some of the rows, by index or mask."""
        if rows.dtype == np.bool_:
            return EventBatch(self.record_batch.filter(pa.array(rows)))
        return EventBatch(self.record_batch.take(pa.array(rows)))

    def slice(self, start: int, length: int | None = None) -> "EventBatch":
        """The batch of a run of rows, without a copy."""
        return EventBatch(self.record_batch.slice(start, length))


def to_ipc(record_batch: pa.RecordBatch, compression: str | None = "lz4") -> bytes:
    """Writes a batch as an Arrow IPC stream, compressed by "lz4" or "zstd", or not."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression, use_threads=False)
    with pa.ipc.new_stream(sink, record_batch.schema, options=options) as writer:
        writer.write_batch(record_batch)
    return bytes(sink.getvalue())


def merge(batches: Sequence[EventBatch]) -> EventBatch:
    """Puts batches together in order; columns that some do not have are null there."""
    if len(batches) == 1:
        return batches[0]
    tables = [pa.Table.from_batches([batch.record_batch]) for batch in batches]
    return EventBatch(_one_batch(pa.concat_tables(tables, promote_options="default")))


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    """A table as one batch, its dictionaries unified."""
    unified = table.unify_dictionaries().combine_chunks()
    batches = unified.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def shard_of(value: str) -> int:
    """The virtual shard of a key value, from 0 to SHARDS - 1."""
    return zlib.crc32(value.encode()) % SHARDS


def shard_codes(batch: EventBatch, attribute_key: str) -> NDArray[np.int8]:
    """The virtual shard of each row by one attribute key; -1 for rows without the key."""
    strings = batch.strings(key_column(attribute_key))
    if strings is None:
        return np.full(batch.num_rows, -1, np.int8)
    by_value = np.fromiter((shard_of(value) for value in strings.values.to_pylist()), np.int8, len(strings.values))
    return np.append(by_value, np.int8(-1))[strings.codes]


def sorted_columns(names: Iterable[str]) -> list[str]:
    """Column names in the order of the log: fixed ones first, then keys, atomic, own data, entities, each by name."""
    fixed = [field.name for field in FIXED_FIELDS]
    rank = {"k": 0, "a": 1, "d": 2, "e": 3}
    return fixed + sorted(set(names) - set(fixed), key=lambda name: (rank[name[0]], name))
