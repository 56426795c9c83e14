"""Reads the bytes of ingest requests into tables in one pass, compiled.

The scanner understands exactly what ordinary encoders write. Whatever else may be legal protobuf (a map key given
twice, a message in two parts, a group) or is malformed marks its event STRANGE; `decode` lets the protobuf library
judge that event and scans what it makes of it. So an event that is not marked means here what it means to the library.
"""

import numpy as np

from services.ingest.compiled.scan_cells import DONE, FULL, ODD, intern, scan_entry, scan_instant
from services.ingest.compiled.tables import Count, Row, Scope, Segment, Symbol, Table, Tables, Type
from services.ingest.compiled.wire import BYTES, VARINT, Bytes, hash_text, is_utf8, length, mix, signed, skip, varint
from services.kernel.jit import compiled, inlined

_PRIME = np.uint64(0x9E3779B97F4A7C15)
_EVENTS = np.uint64(8 | BYTES)
"""The tag of the events of an IngestRequest,"""
_WAIT = np.uint64(16 | BYTES)
"""and that of its wait_for_insights."""


@compiled
def scan_type(data: Bytes, p: int, end: int, types: Table, made: int) -> int:
    """An EventType, as row `made` of the types: DONE or ODD."""
    types[made, :] = 0
    types[made, Type.STRANGE] = 1
    while p < end:
        tag, p = varint(data, p, end)
        if p < 0:
            return ODD
        field = signed(tag >> np.uint64(3))
        if signed(tag & np.uint64(7)) == BYTES and 1 <= field <= 3:
            size, p = length(data, p, end)
            if p < 0 or not is_utf8(data, p, p + size):
                return ODD
            types[made, 2 * field - 1] = p
            types[made, 2 * field] = size
            p += size
        else:
            p = skip(data, p, end, tag)
            if p < 0:
                return ODD
    plain = np.uint64(0)
    for field in range(1, 4):
        part, _, _ = hash_text(data, types[made, 2 * field - 1], types[made, 2 * field], _PRIME)
        plain = (plain ^ part) * _PRIME
    types[made, Type.PLAIN] = signed(plain)
    types[made, Type.STRANGE] = 0
    return DONE


@compiled
def find_type(data: Bytes, p: int, size: int, t: Tables, seed: np.uint64) -> tuple[int, int]:
    """The row of an EventType among the types, and DONE, FULL or ODD."""
    plain, secret, _ = hash_text(data, p, size, seed)
    symbol = intern(data, t, Scope.TYPE, 0, p, size, plain, secret)
    if symbol < 0:
        return -1, FULL
    found = t.symbols[symbol, Symbol.LINK]
    if found < 0:
        found = t.counts[Count.TYPES]
        if found == len(t.types):
            return -1, FULL
        t.counts[Count.TYPES] = found + 1
        t.symbols[symbol, Symbol.LINK] = found
        scan_type(data, p, p + size, t.types, found)
    return found, ODD if t.types[found, Type.STRANGE] else DONE


@compiled
def scan_entity(data: Bytes, p: int, end: int, t: Tables, seed: np.uint64, row: int) -> int:
    """An Entity: first its coordinates, which name the scope of its properties, then these."""
    start = p
    vendor, vendor_size, name, name_size, major = -1, 0, -1, 0, 0
    properties = 0
    while p < end:
        tag, p = varint(data, p, end)
        if p < 0:
            return ODD
        if tag == np.uint64(24 | VARINT):
            value, p = varint(data, p, end)
            if p < 0:
                return ODD
            major = int(np.int32(value & np.uint64(0xFFFFFFFF)))
            continue
        if tag != np.uint64(8 | BYTES) and tag != np.uint64(16 | BYTES) and tag != np.uint64(32 | BYTES):
            p = skip(data, p, end, tag)
            if p < 0:
                return ODD
            continue
        size, p = length(data, p, end)
        if p < 0:
            return ODD
        if tag == np.uint64(8 | BYTES):
            if vendor >= 0:
                return ODD
            vendor, vendor_size = p, size
        elif tag == np.uint64(16 | BYTES):
            if name >= 0:
                return ODD
            name, name_size = p, size
        else:
            properties += 1
        p += size
    t.events[row, Row.LARGEST_ENTITY] = max(t.events[row, Row.LARGEST_ENTITY], properties)
    scope, plain = entity_scope(data, t, seed, row, max(vendor, start), vendor_size, max(name, start), name_size, major)
    if scope < 0:
        return ODD if scope == -2 else FULL
    p = start
    while p < end:
        tag, p = varint(data, p, end)
        if tag != np.uint64(32 | BYTES):
            p = skip(data, p, end, tag)
            continue
        size, p = length(data, p, end)
        code = scan_entry(data, p, p + size, t, seed, row, Scope.OTHERS + scope, plain)
        if code != DONE:
            return code
        p += size
    return DONE


@compiled
def entity_scope(
    data: Bytes,
    t: Tables,
    seed: np.uint64,
    row: int,
    vendor: int,
    vendor_size: int,
    name: int,
    name_size: int,
    major: int,
) -> tuple[int, np.uint64]:
    """The symbol of an entity at its place in the event and its hash; -1: a table is full, -2: not UTF-8."""
    vendor_plain, secret, is_text = hash_text(data, vendor, vendor_size, seed)
    name_plain, name_secret, name_is_text = hash_text(data, name, name_size, seed)
    if not (is_text and name_is_text):
        return -2, vendor_plain
    first = intern(data, t, Scope.ENTITY_VENDOR, 0, vendor, vendor_size, vendor_plain, secret)
    if first < 0:
        return -1, vendor_plain
    plain = mix(vendor_plain * _PRIME + name_plain)
    second = intern(data, t, Scope.ENTITY_COORDINATES, first, name, name_size, plain, name_secret)
    if second < 0:
        return -1, plain
    plain = mix(plain * _PRIME + np.uint64(major))
    entity = intern(data, t, Scope.ENTITY, (second << 32) | (major & 0xFFFFFFFF), vendor, 0, plain, seed)
    if entity < 0:
        return -1, plain
    if t.symbols[entity, Symbol.STAMP] != row + 1:
        t.symbols[entity, Symbol.STAMP] = row + 1
        t.symbols[entity, Symbol.LINK] = 0
    index = t.symbols[entity, Symbol.LINK]
    t.symbols[entity, Symbol.LINK] = index + 1
    plain = mix(plain * _PRIME + np.uint64(index))
    return intern(data, t, Scope.ENTITY_AT, (entity << 32) | index, vendor, 0, plain, seed), plain


@inlined
def scan_event(data: Bytes, p: int, end: int, t: Tables, seed: np.uint64, row: int) -> int:
    """One Event, as the given row: DONE, FULL or ODD."""
    timed = False
    while p < end:
        tag, p = varint(data, p, end)
        if p < 0:
            return ODD
        field = signed(tag >> np.uint64(3))
        wire = signed(tag & np.uint64(7))
        if wire == BYTES and 1 <= field <= 7:
            size, p = length(data, p, end)
            if p < 0:
                return ODD
            code = DONE
            if 4 <= field <= 6:
                t.events[row, Row.KEYS + field - 4] += 1
                code = scan_entry(data, p, p + size, t, seed, row, field - 4, np.uint64(field))
            elif field == 1:
                t.events[row, Row.ID_OFFSET] = p
                t.events[row, Row.ID_SIZE] = size
                code = DONE if is_utf8(data, p, p + size) else ODD
            elif field == 2:
                if t.events[row, Row.TYPE] >= 0:
                    return ODD
                found, code = find_type(data, p, size, t, seed)
                t.events[row, Row.TYPE] = found
            elif field == 3:
                if timed:
                    return ODD
                timed = True
                seconds, nanos, code = scan_instant(data, p, p + size)
                t.events[row, Row.TIMED] = 1
                t.events[row, Row.SECONDS] = seconds
                t.events[row, Row.NANOS] = nanos
            else:
                t.events[row, Row.ENTITIES] += 1
                code = scan_entity(data, p, p + size, t, seed, row)
            if code != DONE:
                return code
            p += size
        elif wire == VARINT and (field == 8 or field == 9):
            value, p = varint(data, p, end)
            if p < 0:
                return ODD
            number = int(np.int32(value & np.uint64(0xFFFFFFFF)))
            t.events[row, Row.OPERATION if field == 8 else Row.REVISION] = number
        else:
            p = skip(data, p, end, tag)
            if p < 0:
                return ODD
    return DONE


@compiled
def scan(data: Bytes, t: Tables, limit: int, seed: np.uint64) -> int:
    """Reads every segment: DONE, or FULL when a table is too small.

    At most `limit` + 1 events of a segment are read.
    """
    for s in range(len(t.segments)):
        p, end = t.segments[s, Segment.START], t.segments[s, Segment.END]
        t.segments[s, Segment.FIRST_ROW] = t.counts[Count.EVENTS]
        t.segments[s, Segment.STRANGE] = 0
        t.segments[s, Segment.WAIT_OFFSET] = 0
        events_tag = np.uint64(8 * t.segments[s, Segment.EVENTS_FIELD] | BYTES)
        twice = False
        while p >= 0 and p < end and t.counts[Count.EVENTS] - t.segments[s, Segment.FIRST_ROW] <= limit:
            tag, p = varint(data, p, end)
            if p < 0:
                break
            if tag != events_tag:
                before = p
                p = skip(data, p, end, tag)
                if p >= 0 and tag == _WAIT and events_tag == _EVENTS:
                    # Twice given, the two are merged: by the protobuf library.
                    twice = t.segments[s, Segment.WAIT_OFFSET] > 0
                    size, before = length(data, before, end)
                    t.segments[s, Segment.WAIT_OFFSET] = before
                    t.segments[s, Segment.WAIT_SIZE] = size
                continue
            size, p = length(data, p, end)
            if p < 0:
                break
            row = t.counts[Count.EVENTS]
            if row == len(t.events):
                return FULL
            t.counts[Count.EVENTS] = row + 1
            t.events[row, :] = 0
            t.events[row, Row.OFFSET] = p
            t.events[row, Row.SIZE] = size
            t.events[row, Row.SEGMENT] = s
            t.events[row, Row.TYPE] = -1
            code = scan_event(data, p, p + size, t, seed, row)
            if code == FULL:
                return FULL
            t.events[row, Row.STRANGE] = code
            p += size
        t.segments[s, Segment.STRANGE] = p < 0 or twice
    return DONE
