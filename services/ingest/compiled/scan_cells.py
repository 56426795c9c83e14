"""Reads the cells of events: entries of maps, values, lists and timestamps, and the names they stand under. Compiled.

What these functions mean by STRANGE, DONE, FULL and ODD is told in `scan`.
"""

import numpy as np

from services.ingest.compiled.tables import Cell, Count, Kind, Row, Scope, Symbol, Tables
from services.ingest.compiled.wire import (
    BYTES,
    FIXED64,
    VARINT,
    Bytes,
    hash_text,
    length,
    mix,
    same,
    signed,
    skip,
    varint,
)
from services.kernel.jit import compiled, inlined

DONE, FULL, ODD = 0, 1, -1
"""What reading a part answers: read; a table is full, allocate more and start again; the event is STRANGE."""

_PRIME = np.uint64(0x9E3779B97F4A7C15)
_MICRO = 1_000_000


@inlined
def intern(
    data: Bytes, t: Tables, scope: int, extra: int, p: int, size: int, plain: np.uint64, secret: np.uint64
) -> int:
    """The number of a symbol, made when new; -1 when the table is full."""
    key = signed(mix(secret ^ (np.uint64(scope) * _PRIME) ^ (np.uint64(extra) << np.uint64(32))))
    mask = len(t.slots) - 1
    slot = key & mask
    while t.slots[slot] >= 0:
        s = t.slots[slot]
        if (
            t.symbols[s, Symbol.HASH] == key
            and t.symbols[s, Symbol.SCOPE] == scope
            and t.symbols[s, Symbol.EXTRA] == extra
            and t.symbols[s, Symbol.SIZE] == size
            and same(data, t.symbols[s, Symbol.OFFSET], p, size)
        ):
            return signed(s)
        slot = (slot + 1) & mask
    made = t.counts[Count.SYMBOLS]
    if made == len(t.symbols):
        return -1
    t.counts[Count.SYMBOLS] = made + 1
    t.slots[slot] = made
    t.symbols[made, Symbol.SCOPE] = scope
    t.symbols[made, Symbol.EXTRA] = extra
    t.symbols[made, Symbol.OFFSET] = p
    t.symbols[made, Symbol.SIZE] = size
    t.symbols[made, Symbol.PLAIN] = signed(plain)
    t.symbols[made, Symbol.HASH] = key
    t.symbols[made, Symbol.STAMP] = 0
    t.symbols[made, Symbol.LINK] = -1
    return signed(made)


@inlined
def scan_instant(data: Bytes, p: int, end: int) -> tuple[int, int, int]:
    """A Timestamp: (seconds, nanos, DONE or ODD)."""
    seconds = 0
    nanos = 0
    while p < end:
        tag, p = varint(data, p, end)
        if p < 0:
            return seconds, nanos, ODD
        if tag == np.uint64(8 | VARINT):
            value, p = varint(data, p, end)
            seconds = signed(value)
        elif tag == np.uint64(16 | VARINT):
            value, p = varint(data, p, end)
            nanos = int(np.int32(value & np.uint64(0xFFFFFFFF)))
        else:
            p = skip(data, p, end, tag)
        if p < 0:
            return seconds, nanos, ODD
    return seconds, nanos, DONE


@compiled
def scan_list(data: Bytes, p: int, end: int, t: Tables, seed: np.uint64) -> tuple[int, np.uint64, int]:
    """A StringList, its texts appended to `items`: (how many, their hash, DONE or FULL or ODD)."""
    count = 0
    plain = np.uint64(0)
    while p < end:
        tag, p = varint(data, p, end)
        if p < 0:
            return count, plain, ODD
        if tag == np.uint64(8 | BYTES):
            size, p = length(data, p, end)
            if p < 0:
                return count, plain, ODD
            item, _, is_text = hash_text(data, p, size, seed)
            if not is_text:
                return count, plain, ODD
            at = t.counts[Count.ITEMS]
            if at == len(t.items):
                return count, plain, FULL
            t.counts[Count.ITEMS] = at + 1
            t.items[at, 0] = p
            t.items[at, 1] = size
            plain = (plain ^ item) * _PRIME
            count += 1
            p += size
        else:
            p = skip(data, p, end, tag)
            if p < 0:
                return count, plain, ODD
    return count, plain, DONE


@inlined
def add_cell(
    t: Tables, row: int, symbol: int, kind: int, value: int, size: int, plain: np.uint64, secret: np.uint64
) -> int:
    """Appends a cell and counts it into the event's fingerprint: DONE or FULL."""
    at = t.counts[Count.CELLS]
    if at == len(t.cells):
        return FULL
    t.counts[Count.CELLS] = at + 1
    t.cells[at, Cell.ROW] = row
    t.cells[at, Cell.COLUMN] = 8 * symbol + kind
    t.cells[at, Cell.VALUE] = value
    t.cells[at, Cell.SIZE] = size
    t.cells[at, Cell.HASH] = signed(secret)
    name = np.uint64(t.symbols[symbol, Symbol.PLAIN])
    t.events[row, Row.FINGERPRINT] += signed(mix((name + np.uint64(kind)) * _PRIME ^ plain))
    return DONE


@inlined
def scan_value(data: Bytes, p: int, end: int, t: Tables, seed: np.uint64, row: int, symbol: int) -> int:
    """A Value, appended as a cell unless it is null."""
    known = False
    kind, value, size = 0, 0, 0
    plain, secret = np.uint64(0), np.uint64(0)
    while p < end:
        tag, p = varint(data, p, end)
        if p < 0:
            return ODD
        field = signed(tag >> np.uint64(3))
        wire = signed(tag & np.uint64(7))
        if wire == BYTES and (field == 1 or 5 <= field <= 11):
            size, p = length(data, p, end)
            if p < 0 or known:
                return ODD
            known = True
            if field == 1:
                kind, value = Kind.STRING, signed(p)
                plain, secret, is_text = hash_text(data, p, size, seed)
                if not is_text:
                    return ODD
            elif field == 5:
                seconds, nanos, code = scan_instant(data, p, p + size)
                if code != DONE:
                    return code
                if -62135596800 <= seconds < 253402300800 and 0 <= nanos < 1_000_000_000:
                    kind, value = Kind.INSTANT, signed(seconds * _MICRO + nanos // 1000)
                else:
                    kind = Kind.BAD_INSTANT
            elif field == 6:
                kind, value = Kind.LIST, signed(t.counts[Count.ITEMS])
                count, plain, code = scan_list(data, p, p + size, t, seed)
                if code != DONE:
                    return code
                p += size
                size = signed(count)
                continue
            else:
                kind = Kind.FORBIDDEN
            p += size
        elif field == 2 and wire == FIXED64:
            if end - p < 8 or known:
                return ODD
            known = True
            bits = np.uint64(0)
            for i in range(8):
                bits |= np.uint64(data[p + i]) << np.uint64(8 * i)
            kind, value = Kind.NUMBER, signed(bits)
            p += 8
        elif wire == VARINT and (field == 3 or field == 4):
            bits, p = varint(data, p, end)
            if p < 0 or known:
                return ODD
            known = True
            if field == 3:
                kind, value = Kind.INTEGER, signed(bits)
            else:
                kind, value = Kind.BOOLEAN, signed(bits != np.uint64(0))
        else:
            p = skip(data, p, end, tag)
            if p < 0:
                return ODD
    if not known:
        return DONE
    if kind != Kind.STRING and kind != Kind.LIST:
        plain = mix(np.uint64(value))
    return add_cell(t, row, symbol, kind, value, size, plain, secret)


@inlined
def scan_entry(
    data: Bytes, p: int, end: int, t: Tables, seed: np.uint64, row: int, scope: int, scope_plain: np.uint64
) -> int:
    """An entry of a map, appended as a cell: of keys when the scope is KEY, else of properties."""
    start, key, key_size, value, value_size = p, -1, 0, -1, 0
    while p < end:
        tag, p = varint(data, p, end)
        if p < 0:
            return ODD
        if tag == np.uint64(8 | BYTES):
            key_size, p = length(data, p, end)
            if p < 0 or key >= 0:
                return ODD
            key = p
            p += key_size
        elif tag == np.uint64(16 | BYTES):
            value_size, p = length(data, p, end)
            if p < 0 or value >= 0:
                return ODD
            value = signed(p)
            p += value_size
        else:
            # The library leaves out entries with unknown fields.
            return ODD
    key = max(key, start)
    plain, secret, is_text = hash_text(data, key, key_size, seed)
    if not is_text:
        return ODD
    symbol = intern(data, t, scope, 0, key, key_size, plain ^ scope_plain, secret)
    if symbol < 0:
        return FULL
    if t.symbols[symbol, Symbol.STAMP] == row + 1:
        return ODD
    t.symbols[symbol, Symbol.STAMP] = row + 1
    if scope != Scope.KEY:
        return scan_value(data, value, value + value_size, t, seed, row, symbol) if value >= 0 else DONE
    value = max(value, key)
    plain, secret, is_text = hash_text(data, value, value_size, seed)
    if not is_text:
        return ODD
    return add_cell(t, row, symbol, Kind.STRING, value, value_size, plain, secret)
