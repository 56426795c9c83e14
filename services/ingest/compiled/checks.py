"""Checks the tables of scanned requests: a Fault for each event, compiled."""

import numpy as np
from numpy.typing import NDArray

from services.ingest.compiled.faults import Fault
from services.ingest.compiled.fill import DELETION
from services.ingest.compiled.tables import Cell, Count, Kind, Row, Scope, Symbol, Table, Tables, Type
from services.ingest.compiled.wire import Bytes, characters, has_control, signed
from services.kernel.jit import compiled, inlined

MAX_EVENT_BYTES = 1024 * 1024
MAX_ID = 128
MAX_NAME = 128
MAX_KEYS = 8
MAX_KEY_NAME = 64
MAX_KEY_VALUE = 256
MAX_PROPERTIES = 256
MAX_PROPERTY_NAME = 256
MAX_ENTITIES = 32
MAX_TEXT_BYTES = 32 * 1024
MAX_LIST = 1_000
MAX_COLUMNS = 10_000
END_OF_TIME_S = 9_214_646_400
"""The start of the year 2262, in seconds."""


@inlined
def _is_name(data: Bytes, p: int, size: int, limit: int) -> bool:
    """Not too long, without a slash or a control character."""
    if size > limit and (size > 4 * limit or characters(data, p, size) > limit):
        return False
    for i in range(p, p + size):
        if data[i] == 0x2F:
            return False
    return not has_control(data, p, size)


@compiled
def _type_fault(data: Bytes, types: Table, kind: int) -> int:
    if kind < 0 or types[kind, Type.NAME_SIZE] == 0:
        return Fault.NO_TYPE
    for part in (Type.VENDOR, Type.NAME, Type.VERSION):
        if not _is_name(data, types[kind, part], types[kind, part + 1], MAX_NAME):
            return Fault.BAD_TYPE
    return Fault.NONE


@compiled
def _event_fault(data: Bytes, t: Tables, row: int, earliest_us: int, latest_us: int) -> int:
    e = t.events
    if e[row, Row.SIZE] > MAX_EVENT_BYTES:
        return Fault.TOO_LARGE
    p, size = e[row, Row.ID_OFFSET], e[row, Row.ID_SIZE]
    if size == 0:
        return Fault.NO_ID
    if size > MAX_ID and (size > 4 * MAX_ID or characters(data, p, size) > MAX_ID):
        return Fault.LONG_ID
    if has_control(data, p, size):
        return Fault.CONTROL_IN_ID
    operation, revision = e[row, Row.OPERATION], e[row, Row.REVISION]
    if operation < 0 or operation > DELETION:
        return Fault.BAD_OPERATION
    if revision < 0 or (operation == 2 and revision == 0) or (operation < 2 and revision != 0):
        return Fault.BAD_REVISION
    if operation != DELETION:
        fault = _type_fault(data, t.types, e[row, Row.TYPE])
        if fault != Fault.NONE:
            return fault
        if e[row, Row.PROPERTIES] > MAX_PROPERTIES:
            return Fault.MANY_PROPERTIES
        if e[row, Row.DATA] > MAX_PROPERTIES:
            return Fault.MANY_DATA
        if e[row, Row.ENTITIES] > MAX_ENTITIES:
            return Fault.MANY_ENTITIES
        if e[row, Row.LARGEST_ENTITY] > MAX_PROPERTIES:
            return Fault.MANY_IN_ENTITY
    if e[row, Row.KEYS] == 0:
        return Fault.NO_KEY
    if e[row, Row.KEYS] > MAX_KEYS:
        return Fault.MANY_KEYS
    if e[row, Row.TIMED] == 0:
        return Fault.NO_TIME
    seconds, nanos = e[row, Row.SECONDS], e[row, Row.NANOS]
    if seconds < 0 or seconds >= END_OF_TIME_S or nanos < 0 or nanos >= 1_000_000_000:
        return Fault.BAD_TIME
    occurred_us = seconds * 1_000_000 + nanos // 1_000
    if occurred_us > latest_us:
        return Fault.TOO_EARLY
    if occurred_us < earliest_us:
        return Fault.TOO_LATE
    return Fault.NONE


@compiled
def check_events(data: Bytes, t: Tables, earliest_us: int, latest_us: int, faults: Table) -> None:
    for row in range(t.counts[Count.EVENTS]):
        if faults[row] == Fault.NONE:
            faults[row] = _event_fault(data, t, row, earliest_us, latest_us)


@inlined
def _is_key_name(data: Bytes, p: int, size: int) -> bool:
    if size == 0 or size > MAX_KEY_NAME or data[p] < 0x61 or data[p] > 0x7A:
        return False
    for i in range(p, p + size):
        byte = data[i]
        if not (0x61 <= byte <= 0x7A or 0x30 <= byte <= 0x39 or byte == 0x5F):
            return False
    return True


@inlined
def _is_property_name(data: Bytes, p: int, size: int) -> bool:
    limit = MAX_PROPERTY_NAME
    if size == 0 or (size > limit and (size > 4 * limit or characters(data, p, size) > limit)):
        return False
    for i in range(p, p + size):
        if data[i] == 0x3A:
            return False
    return not has_control(data, p, size)


@inlined
def _is_entity_name(data: Bytes, p: int, size: int) -> bool:
    for i in range(p, p + size):
        if data[i] == 0x3A or data[i] == 0x5B or data[i] == 0x5D:
            return False
    return _is_name(data, p, size, MAX_NAME)


@compiled
def check_names(data: Bytes, t: Tables, faults: Table) -> None:
    """A fault for each symbol; what an entity's coordinates lack goes to its properties too (they come later)."""
    for s in range(t.counts[Count.SYMBOLS]):
        scope, extra = t.symbols[s, Symbol.SCOPE], t.symbols[s, Symbol.EXTRA]
        p, size = t.symbols[s, Symbol.OFFSET], t.symbols[s, Symbol.SIZE]
        fault = signed(Fault.NONE)
        if scope == Scope.KEY:
            if not _is_key_name(data, p, size):
                fault = signed(Fault.KEY_NAME)
        elif scope == Scope.ENTITY_VENDOR:
            if not _is_entity_name(data, p, size):
                fault = signed(Fault.ENTITY_NAME)
        elif scope == Scope.ENTITY_COORDINATES:
            if size == 0 or not _is_entity_name(data, p, size):
                fault = signed(Fault.ENTITY_NAME)
            fault = max(fault, faults[extra])
        elif scope == Scope.ENTITY:
            major = int(np.int32(extra & 0xFFFFFFFF))
            if major < 1:
                fault = signed(Fault.ENTITY_VERSION)
            fault = max(fault, faults[extra >> 32])
        elif scope == Scope.ENTITY_AT:
            fault = faults[extra >> 32]
        elif scope != Scope.TYPE:
            if not _is_property_name(data, p, size):
                fault = signed(Fault.PROPERTY_NAME)
            if scope >= Scope.OTHERS:
                fault = max(fault, faults[scope - Scope.OTHERS])
        faults[s] = fault


@compiled
def _cell_fault(data: Bytes, t: Tables, cell: int, is_key: bool) -> int:
    kind = t.cells[cell, Cell.COLUMN] & 7
    value, size = t.cells[cell, Cell.VALUE], t.cells[cell, Cell.SIZE]
    if is_key:
        long = size > MAX_KEY_VALUE and (size > 4 * MAX_KEY_VALUE or characters(data, value, size) > MAX_KEY_VALUE)
        return Fault.KEY_VALUE if size == 0 or long or has_control(data, value, size) else Fault.NONE
    if kind == Kind.STRING:
        return Fault.LONG_TEXT if size > MAX_TEXT_BYTES else Fault.NONE
    if kind == Kind.NUMBER:
        exponent = (np.uint64(value) >> np.uint64(52)) & np.uint64(0x7FF)
        return Fault.NOT_FINITE if exponent == np.uint64(0x7FF) else Fault.NONE
    if kind == Kind.FORBIDDEN:
        return Fault.FORBIDDEN_KIND
    if kind == Kind.BAD_INSTANT:
        return Fault.BAD_INSTANT
    if kind == Kind.LIST:
        if size > MAX_LIST:
            return Fault.LONG_LIST
        for item in range(value, value + size):
            if t.items[item, 1] > MAX_TEXT_BYTES:
                return Fault.LONG_TEXT
    return Fault.NONE


@compiled
def check_cells(data: Bytes, t: Tables, names: Table, seen: NDArray[np.int32], faults: Table, places: Table) -> None:
    """Checks names and values; `seen` holds the request that has a column, to count the columns of each."""
    columns = 0
    segment = -1
    for i in range(t.counts[Count.CELLS]):
        row = t.cells[i, Cell.ROW]
        if faults[row] != Fault.NONE:
            continue
        symbol = t.cells[i, Cell.COLUMN] >> 3
        is_key = t.symbols[symbol, Symbol.SCOPE] == Scope.KEY
        if t.events[row, Row.OPERATION] == DELETION and not is_key:
            continue
        if t.events[row, Row.SEGMENT] != segment:
            segment = t.events[row, Row.SEGMENT]
            columns = 0
        column = t.cells[i, Cell.COLUMN]
        if seen[column] != segment:
            seen[column] = segment
            columns += 1
        fault = names[symbol]
        if fault == Fault.NONE:
            fault = _cell_fault(data, t, i, is_key)
        if fault == Fault.NONE and columns > MAX_COLUMNS:
            fault = Fault.MANY_COLUMNS
        if fault != Fault.NONE:
            faults[row] = fault
            places[row] = symbol
