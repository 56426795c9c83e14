"""From the tables of scanned requests to one Arrow record batch of the log's schema."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.ingest.compiled.fill import Column, Fixed, Memory, fill_cells, fill_events, lay_out, measure
from services.ingest.compiled.tables import KIND_LETTERS, Count, Kind, Row, Table
from services.ingest.decode import Scanned
from services.ingest.schemas import Column as NamedColumn
from services.ingest.schemas import Schemas
from services.kernel.columns import KIND_TYPES

_INT8, _INT32, _INT64, _UINT64, _STRING = pa.int8(), pa.int32(), pa.int64(), pa.uint64(), pa.string()

MAX_VALUES = 8_000_000
"""The most rows times columns of one batch: 64 MB. Wider requests are split by rows."""


@dataclass(frozen=True)
class Batch:
    """Admitted events as a record batch, and what the log wants to know of it."""

    record_batch: pa.RecordBatch
    min_occurred_us: int
    max_occurred_us: int

    @property
    def count(self) -> int:
        """How many events."""
        return int(self.record_batch.num_rows)

    def to_ipc(self) -> bytes:
        """An Arrow IPC stream, not compressed: Arrow's compression of each small buffer costs ten times the writing."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.record_batch.schema) as writer:
            writer.write_batch(self.record_batch)
        return bytes(sink.getvalue())


def pivot(scanned: Scanned, kept: NDArray[np.bool_], received_us: int, schemas: Schemas) -> list[Batch]:
    """The kept events in their order, as one batch, or more when there would be too many columns for the rows.

    Once only for each event: its texts become codes where they are.
    """
    rows = np.flatnonzero(kept)
    if not len(rows):
        return []
    t = scanned.tables
    target = np.full(len(kept), -1, np.int64)
    target[rows] = np.arange(len(rows))
    symbols = int(t.counts[Count.SYMBOLS])
    dense = np.full(8 * symbols, -1, np.int32)
    columns = np.empty((min(8 * symbols, int(t.counts[Count.CELLS])), len(Column)), np.int64)
    count = measure(t, target, dense, columns)
    if count * len(rows) > MAX_VALUES and len(rows) > 1:
        batches = []
        for half in np.array_split(rows, 2):
            mask = np.zeros(len(kept), np.bool_)
            mask[half] = True
            batches += pivot(scanned, mask, received_us, schemas)
        return batches
    return [_build(scanned, rows, target, dense, columns[:count], received_us, schemas)]


def _build(
    scanned: Scanned,
    rows: NDArray[np.intp],
    target: Table,
    dense: NDArray[np.int32],
    columns: Table,
    received_us: int,
    schemas: Schemas,
) -> Batch:
    data, t = scanned.data, scanned.tables
    n = len(rows)
    fixed = np.zeros(len(Fixed), np.int64)
    lay_out(n, int(t.events[rows, Row.ID_SIZE].sum()), columns, len(columns), fixed)
    block = np.zeros(int(fixed[Fixed.TOTAL]), np.uint8)
    memory = Memory(block, block.view(np.int32), block.view(np.int64))
    types, type_codes = _types(scanned, t.events[rows, Row.TYPE])
    fill_events(data, t, target, type_codes, received_us, fixed, memory)
    texts = int(columns[columns[:, Column.CODE] & 7 == Kind.STRING, Column.CELLS].sum())
    slots = np.full(1 << max(4, (2 * texts).bit_length()), -1, np.int32)
    fill_cells(data, t, target, dense, columns, slots, memory)
    places = fixed.tolist()
    occurred = memory.int64[places[Fixed.OCCURRED] // 8 :][:n]
    arrays = _Arrays(memory, n)
    named = sorted(zip(schemas.columns(scanned, columns[:, Column.CODE]), columns.tolist(), strict=True), key=_by_name)
    record_batch = pa.RecordBatch.from_arrays(
        arrays.fixed(places, types) + [arrays.column(column) for _, column in named],
        schema=schemas.schema([column for column, _ in named]),
    )
    return Batch(record_batch, int(occurred.min()), int(occurred.max()))


def _by_name(named: tuple[NamedColumn, list[int]]) -> tuple[int, str]:
    return named[0][:2]


def _types(scanned: Scanned, used: Table) -> tuple[list[str], Table]:
    """The distinct event types as texts, and the code of each row of the table of types (the last: no type)."""
    codes: dict[str, int] = {}
    by_row = np.zeros(int(scanned.tables.counts[Count.TYPES]) + 1, np.int64)
    for row in (np.flatnonzero(np.bincount(used + 1)) - 1).tolist():
        by_row[row] = codes.setdefault("/".join(scanned.event_type(row)), len(codes))
    return list(codes), by_row


def _type(code: int) -> pa.DataType:
    return KIND_TYPES[KIND_LETTERS[code & 7]]


class _Arrays:
    """Makes Arrow arrays out of one block of memory, without copies."""

    def __init__(self, memory: Memory, rows: int) -> None:
        self._memory = memory
        self._buffer = pa.py_buffer(memory.bytes)
        self._rows = rows

    def fixed(self, places: list[int], types: list[str]) -> list[pa.Array]:
        """The columns of FIXED_FIELDS, in order. `types` are the distinct event types."""
        ids = self._texts(places[Fixed.ID_OFFSETS], places[Fixed.IDS], self._rows)
        codes = self._plain(_INT32, places[Fixed.TYPE_CODES], 4)
        return [
            ids,
            pa.DictionaryArray.from_arrays(codes, pa.array(types, pa.string()), safe=False),
            self._plain(_INT64, places[Fixed.OCCURRED], 8),
            self._plain(_INT64, places[Fixed.RECEIVED], 8),
            self._plain(_INT8, places[Fixed.OPERATION], 1),
            self._plain(_INT32, places[Fixed.REVISION], 4),
            self._plain(_UINT64, places[Fixed.FINGERPRINT], 8),
        ]

    def column(self, column: list[int]) -> pa.Array:
        """A column of keys or properties, from its row of the table of columns."""
        kind, n, place = column[Column.CODE] & 7, self._rows, column[Column.VALIDITY]
        validity = None if place < 0 else self._buffer.slice(place, (n + 7) // 8)
        nulls, values = n - column[Column.CELLS], column[Column.VALUES]
        if kind == Kind.BOOLEAN:
            bits = self._buffer.slice(values, (n + 7) // 8)
            return pa.Array.from_buffers(pa.bool_(), n, [validity, bits], nulls)
        if kind != Kind.STRING and kind != Kind.LIST:
            return pa.Array.from_buffers(_type(kind), n, [validity, self._buffer.slice(values, 8 * n)], nulls)
        texts = self._texts(column[Column.OFFSETS], column[Column.TEXTS], column[Column.DISTINCT])
        if kind == Kind.STRING:
            codes = pa.Array.from_buffers(_INT32, n, [validity, self._buffer.slice(values, 4 * n)], nulls)
            return pa.DictionaryArray.from_arrays(codes, texts, safe=False)
        offsets = self._memory.int32[values // 4 :][: n + 1]
        np.cumsum(offsets, out=offsets)
        starts = self._buffer.slice(values, 4 * (n + 1))
        return pa.Array.from_buffers(_type(kind), n, [validity, starts], nulls, children=[texts])

    def _plain(self, arrow_type: pa.DataType, place: int, width: int) -> pa.Array:
        buffer = self._buffer.slice(place, width * self._rows)
        return pa.Array.from_buffers(arrow_type, self._rows, [None, buffer], 0)

    def _texts(self, offsets: int, texts: int, count: int) -> pa.Array:
        size = int(self._memory.int32[offsets // 4 + count])
        buffers = [None, self._buffer.slice(offsets, 4 * (count + 1)), self._buffer.slice(texts, size)]
        return pa.Array.from_buffers(_STRING, count, buffers, 0)
