"""Turns the tables of scanned requests into the buffers of Arrow columns, compiled.

All buffers of a batch lie in one stretch of memory, measured and laid out first, then filled in one pass over the
cells. Texts become codes on the way: each distinct one of a column is copied once, in the order in which they come.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.ingest.compiled.tables import Cell, Count, Kind, Row, Scope, Symbol, Table, Tables, Type
from services.ingest.compiled.wire import Bytes, mix, same, signed
from services.kernel.jit import compiled, inlined

_PRIME = np.uint64(0x9E3779B97F4A7C15)
_ALIGNMENT = 64
DELETION = 3
"""OPERATION_DELETE of the proto: keys are all that is kept of such an event."""


class Column(IntEnum):
    """Columns of the table of columns. Places are offsets into the memory, in bytes."""

    CODE = 0
    """8 * symbol + Kind."""
    CELLS = 1
    """How many rows have a value."""
    SIZE = 2
    """Bytes of texts: an upper bound, as if all were distinct."""
    ITEMS = 3
    """Items of lists."""
    DISTINCT = 4
    """Distinct texts; of lists, items."""
    VALIDITY = 5
    """The place of the validity bits; -1 when every row has a value."""
    VALUES = 6
    """The place of the values, codes, or list offsets."""
    OFFSETS = 7
    """The place of the offsets of texts."""
    TEXTS = 8
    """The place of the texts."""


class Fixed(IntEnum):
    """Places of the columns that every batch has."""

    ID_OFFSETS = 0
    IDS = 1
    TYPE_CODES = 2
    OCCURRED = 3
    RECEIVED = 4
    OPERATION = 5
    REVISION = 6
    FINGERPRINT = 7
    TOTAL = 8
    """The size of all of the memory."""


class Memory(NamedTuple):
    """One stretch of zeroed memory, seen in several ways."""

    bytes: NDArray[np.uint8]
    int32: NDArray[np.int32]
    int64: NDArray[np.int64]


@inlined
def _is_kept(t: Tables, cell: int, target: Table) -> bool:
    row = t.cells[cell, Cell.ROW]
    if target[row] < 0:
        return False
    scope = t.symbols[t.cells[cell, Cell.COLUMN] >> 3, Symbol.SCOPE]
    return bool(t.events[row, Row.OPERATION] != DELETION or scope == Scope.KEY)


@compiled
def measure(t: Tables, target: Table, dense: NDArray[np.int32], columns: Table) -> int:
    """Finds the columns of the rows that are kept (those with a target), and what each needs: how many columns.

    `dense` maps column codes to columns and starts as -1.
    """
    count = 0
    for i in range(t.counts[Count.CELLS]):
        if not _is_kept(t, i, target):
            continue
        code = t.cells[i, Cell.COLUMN]
        c = signed(dense[code])
        if c < 0:
            c = count
            count += 1
            dense[code] = c
            columns[c, :] = 0
            columns[c, Column.CODE] = code
        columns[c, Column.CELLS] += 1
        if code & 7 == Kind.STRING:
            columns[c, Column.SIZE] += t.cells[i, Cell.SIZE]
        elif code & 7 == Kind.LIST:
            first = t.cells[i, Cell.VALUE]
            columns[c, Column.ITEMS] += t.cells[i, Cell.SIZE]
            for item in range(first, first + t.cells[i, Cell.SIZE]):
                columns[c, Column.SIZE] += t.items[item, 1]
    return count


@inlined
def _aligned(place: int) -> int:
    return (place + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT


@compiled
def lay_out(rows: int, id_bytes: int, columns: Table, count: int, fixed: Table) -> None:
    """Gives every buffer its place; the last of `fixed` is how much memory that takes."""
    place = 0
    fixed[Fixed.ID_OFFSETS] = place
    place = _aligned(place + 4 * (rows + 1))
    fixed[Fixed.IDS] = place
    place = _aligned(place + id_bytes)
    fixed[Fixed.TYPE_CODES] = place
    place = _aligned(place + 4 * rows)
    fixed[Fixed.OPERATION] = place
    place = _aligned(place + rows)
    fixed[Fixed.REVISION] = place
    place = _aligned(place + 4 * rows)
    for field in (Fixed.OCCURRED, Fixed.RECEIVED, Fixed.FINGERPRINT):
        fixed[field] = place
        place = _aligned(place + 8 * rows)
    for c in range(count):
        kind = columns[c, Column.CODE] & 7
        columns[c, Column.VALIDITY] = -1
        if columns[c, Column.CELLS] < rows:
            columns[c, Column.VALIDITY] = place
            place = _aligned(place + (rows + 7) // 8)
        columns[c, Column.VALUES] = place
        if kind == Kind.BOOLEAN:
            place = _aligned(place + (rows + 7) // 8)
        elif kind == Kind.STRING or kind == Kind.LIST:
            place = _aligned(place + 4 * (rows + 1))
            items = columns[c, Column.CELLS] if kind == Kind.STRING else columns[c, Column.ITEMS]
            columns[c, Column.OFFSETS] = place
            place = _aligned(place + 4 * (items + 1))
            columns[c, Column.TEXTS] = place
            place = _aligned(place + columns[c, Column.SIZE])
        else:
            place = _aligned(place + 8 * rows)
    fixed[Fixed.TOTAL] = place


@inlined
def _append_text(data: Bytes, memory: Memory, columns: Table, c: int, p: int, size: int) -> int:
    """Copies a text behind the others of its column: its code."""
    code = columns[c, Column.DISTINCT]
    columns[c, Column.DISTINCT] = code + 1
    offsets = columns[c, Column.OFFSETS] // 4
    start = signed(memory.int32[offsets + code])
    memory.int32[offsets + code + 1] = start + size
    start += columns[c, Column.TEXTS]
    for i in range(size):
        memory.bytes[start + i] = data[p + i]
    return signed(code)


@inlined
def _code_of(
    data: Bytes, t: Tables, memory: Memory, columns: Table, slots: NDArray[np.int32], cell: int, c: int
) -> int:
    """The code of a text within its column. `slots` holds cells; the code of a cell's text replaces its HASH."""
    size, p = t.cells[cell, Cell.SIZE], t.cells[cell, Cell.VALUE]
    column = t.cells[cell, Cell.COLUMN]
    mask = len(slots) - 1
    slot = signed(mix(np.uint64(t.cells[cell, Cell.HASH]) + np.uint64(column) * _PRIME)) & mask
    while slots[slot] >= 0:
        other = signed(slots[slot])
        if (
            t.cells[other, Cell.COLUMN] == column
            and t.cells[other, Cell.SIZE] == size
            and same(data, t.cells[other, Cell.VALUE], p, size)
        ):
            return signed(t.cells[other, Cell.HASH])
        slot = (slot + 1) & mask
    slots[slot] = cell
    code = _append_text(data, memory, columns, c, p, size)
    t.cells[cell, Cell.HASH] = code
    return code


@compiled
def fill_events(
    data: Bytes, t: Tables, target: Table, type_codes: Table, received_us: int, fixed: Table, memory: Memory
) -> None:
    """Writes the columns that every batch has. Rows come in the order of their targets."""
    end = 0
    for row in range(t.counts[Count.EVENTS]):
        at = target[row]
        if at < 0:
            continue
        p = t.events[row, Row.ID_OFFSET]
        start = fixed[Fixed.IDS] + end
        for i in range(t.events[row, Row.ID_SIZE]):
            memory.bytes[start + i] = data[p + i]
        end += t.events[row, Row.ID_SIZE]
        memory.int32[fixed[Fixed.ID_OFFSETS] // 4 + at + 1] = end
        kind = t.events[row, Row.TYPE]
        memory.int32[fixed[Fixed.TYPE_CODES] // 4 + at] = type_codes[kind]
        occurred = t.events[row, Row.SECONDS] * 1_000_000 + t.events[row, Row.NANOS] // 1_000
        operation = max(t.events[row, Row.OPERATION] - 1, 0)
        revision = t.events[row, Row.REVISION]
        memory.int64[fixed[Fixed.OCCURRED] // 8 + at] = occurred
        memory.int64[fixed[Fixed.RECEIVED] // 8 + at] = received_us
        memory.bytes[fixed[Fixed.OPERATION] + at] = operation
        memory.int32[fixed[Fixed.REVISION] // 4 + at] = revision
        content = mix(np.uint64(occurred) * _PRIME + np.uint64(operation))
        content = mix(content ^ (np.uint64(revision) * _PRIME))
        if kind >= 0:
            content ^= np.uint64(t.types[kind, Type.PLAIN])
        content += np.uint64(t.events[row, Row.FINGERPRINT])
        memory.int64[fixed[Fixed.FINGERPRINT] // 8 + at] = signed(mix(content))


@compiled
def fill_cells(
    data: Bytes,
    t: Tables,
    target: Table,
    dense: NDArray[np.int32],
    columns: Table,
    slots: NDArray[np.int32],
    memory: Memory,
) -> None:
    """Writes the columns of keys and properties. `slots` is a power of two of places, all -1, twice the texts."""
    for i in range(t.counts[Count.CELLS]):
        if not _is_kept(t, i, target):
            continue
        row = target[t.cells[i, Cell.ROW]]
        code = t.cells[i, Cell.COLUMN]
        c = signed(dense[code])
        values = columns[c, Column.VALUES]
        validity = columns[c, Column.VALIDITY]
        value = t.cells[i, Cell.VALUE]
        bit = np.uint8(1 << (row & 7))
        if validity >= 0:
            memory.bytes[validity + (row >> 3)] |= bit
        kind = code & 7
        if kind == Kind.STRING:
            memory.int32[values // 4 + row] = _code_of(data, t, memory, columns, slots, i, c)
        elif kind == Kind.BOOLEAN:
            if value != 0:
                memory.bytes[values + (row >> 3)] |= bit
        elif kind == Kind.LIST:
            memory.int32[values // 4 + row + 1] = t.cells[i, Cell.SIZE]
            for item in range(value, value + t.cells[i, Cell.SIZE]):
                _append_text(data, memory, columns, c, t.items[item, 0], t.items[item, 1])
        else:
            memory.int64[values // 8 + row] = value
