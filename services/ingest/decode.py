"""Request bytes to tables: scanned in one compiled pass, with the protobuf library as the judge of anything unusual."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from inkling.ingest.v1.event_pb2 import Event
from inkling.ingest.v1.ingest_service_pb2 import IngestRequest, IngestStreamRequest
from services.ingest.compiled.scan import scan
from services.ingest.compiled.scan_cells import FULL
from services.ingest.compiled.tables import Count, Row, Scope, Segment, Symbol, Table, Tables, Type, allocate

MAX_EVENTS = 10_000
MAX_BYTES = 8 * 1024 * 1024


class Part(NamedTuple):
    """The bytes of one request: an IngestRequest, or an IngestStreamRequest when streamed."""

    data: bytes
    streamed: bool = False
    by_service: bool = False
    """Sent by a service of the suite, which may use its vendor."""

    @property
    def message(self) -> type[IngestRequest | IngestStreamRequest]:
        """What the bytes are."""
        return IngestStreamRequest if self.streamed else IngestRequest

    @property
    def events_field(self) -> int:
        """The number of the field that holds the events."""
        return self.message.EVENTS_FIELD_NUMBER


@dataclass(frozen=True)
class Scanned:
    """One or more requests as tables. Rows are events, in the order of the requests and within them."""

    data: NDArray[np.uint8]
    tables: Tables
    malformed_segments: frozenset[int]
    """Requests whose bytes are not a message; they have no rows."""
    malformed_rows: NDArray[np.bool_]
    """Events whose bytes are not a message."""
    originals: dict[int, bytes] = field(default_factory=dict)
    """The bytes of rows that had to be judged, as they were sent."""
    waits_us: dict[int, int] = field(default_factory=dict)
    """How long requests ask to wait for insights, by request; most do not."""

    @property
    def events(self) -> Table:
        """The table of events, without its spare room."""
        return self.tables.events[: self.tables.counts[Count.EVENTS]]

    @property
    def cells(self) -> Table:
        """The table of cells, without its spare room."""
        return self.tables.cells[: self.tables.counts[Count.CELLS]]

    @property
    def symbols(self) -> Table:
        """The table of symbols, without its spare room."""
        return self.tables.symbols[: self.tables.counts[Count.SYMBOLS]]

    def rows_of(self, segment: int) -> slice:
        """The rows of one request."""
        starts = self.tables.segments[:, Segment.FIRST_ROW]
        last = segment + 1 == len(starts)
        return slice(int(starts[segment]), len(self.malformed_rows) if last else int(starts[segment + 1]))

    def event_bytes(self, row: int) -> bytes:
        """One event as it was sent."""
        start, size = self.events[row, [Row.OFFSET, Row.SIZE]].tolist()
        return self.originals.get(row) or self.data[start : start + size].tobytes()

    def event_id(self, row: int) -> str:
        """The id of an event; empty without one."""
        return self._text(*self.events[row, [Row.ID_OFFSET, Row.ID_SIZE]].tolist())

    def event_type(self, kind: int) -> tuple[str, str, str]:
        """Vendor, name and version of a row of `types`; -1 is no type."""
        if kind < 0:
            return "", "", ""
        parts = self.tables.types[kind, Type.VENDOR : Type.VERSION_SIZE + 1].tolist()
        return self._text(*parts[0:2]), self._text(*parts[2:4]), self._text(*parts[4:6])

    def name(self, symbol: int) -> str:
        """The name that a symbol stands for, without its scope."""
        return self._text(*self.tables.symbols[symbol, [Symbol.OFFSET, Symbol.SIZE]].tolist())

    def path(self, symbol: int) -> str:
        """A key or property with its scope: the name of its column without the kind."""
        scope = int(self.tables.symbols[symbol, Symbol.SCOPE])
        if scope < Scope.TYPE:
            return f"{'kad'[scope]}.{self.name(symbol)}"
        entity, index = divmod(int(self.tables.symbols[scope - Scope.OTHERS, Symbol.EXTRA]), 1 << 32)
        coordinates, major = divmod(int(self.tables.symbols[entity, Symbol.EXTRA]), 1 << 32)
        vendor = int(self.tables.symbols[coordinates, Symbol.EXTRA])
        return f"e.{self.name(vendor)}/{self.name(coordinates)}/{major}[{index}].{self.name(symbol)}"

    def _text(self, offset: int, size: int) -> str:
        return self.data[offset : offset + size].tobytes().decode()


class Decoder:
    """Scans requests.

    `seed` is a secret of the process (any 64 bits): it keeps senders from choosing names and values that collide in
    hash tables. Results do not depend on it.
    """

    def __init__(self, seed: int) -> None:
        self._seed = np.uint64(seed & 0xFFFFFFFFFFFFFFFF | 1)

    def scan(self, parts: Sequence[Part]) -> Scanned:
        """Scans requests together; a malformed one leaves the others as they are."""
        scanned = self._scan(parts)
        is_strange = scanned.tables.segments[:, Segment.STRANGE] != 0
        waits = _waits(scanned)
        is_strange[[segment for segment, wait_us in waits.items() if wait_us is None]] = True
        strange = np.flatnonzero(is_strange).tolist()
        malformed: frozenset[int] = frozenset()
        if strange:
            judged = {segment: _canonical(parts[segment].data, parts[segment].message) for segment in strange}
            malformed = frozenset(segment for segment, canonical in judged.items() if canonical is None)
            parts = [
                part._replace(data=judged[segment] or b"") if segment in judged else part
                for segment, part in enumerate(parts)
            ]
            scanned = self._scan(parts)
            waits = _waits(scanned)
        waits_us = {segment: wait_us for segment, wait_us in waits.items() if wait_us is not None}
        rows = np.flatnonzero(scanned.events[:, Row.STRANGE]).tolist()
        if not rows:
            return Scanned(scanned.data, scanned.tables, malformed, scanned.malformed_rows, waits_us=waits_us)
        originals = {row: scanned.event_bytes(row) for row in rows}
        canonicals = {row: _canonical(original, Event) for row, original in originals.items()}
        again = self._scan(_with_replaced(scanned, parts, canonicals))
        is_malformed = again.events[:, Row.STRANGE] != 0
        is_malformed[[row for row in rows if canonicals[row] is None]] = True
        return Scanned(again.data, again.tables, malformed, is_malformed, originals, waits_us)

    def _scan(self, parts: Sequence[Part]) -> Scanned:
        raw = parts[0].data if len(parts) == 1 else b"".join(part.data for part in parts)
        ends = np.cumsum([len(part.data) for part in parts])
        segments = np.zeros((len(parts), len(Segment)), np.int64)
        segments[:, Segment.END] = ends
        segments[1:, Segment.START] = ends[:-1]
        segments[:, Segment.EVENTS_FIELD] = [part.events_field for part in parts]
        data = np.frombuffer(raw, np.uint8)
        room = {"events": 16 + len(raw) // 64, "cells": 64 + len(raw) // 24, "items": 64, "symbols": 512, "types": 64}
        while True:
            tables = allocate(segments, **room)
            if scan(data, tables, MAX_EVENTS, self._seed) != FULL:
                return Scanned(data, tables, frozenset(), np.zeros(int(tables.counts[Count.EVENTS]), np.bool_))
            used = dict(zip(("events", "cells", "items", "symbols", "types"), tables.counts.tolist(), strict=True))
            room = {name: size * 4 if used[name] == size else size for name, size in room.items()}


def _waits(scanned: Scanned) -> dict[int, int | None]:
    """How long requests ask to wait, in microseconds, by request; None where the bytes are no duration."""
    segments = scanned.tables.segments
    waits: dict[int, int | None] = {}
    for segment in np.flatnonzero(segments[:, Segment.WAIT_OFFSET]).tolist():
        start, size = segments[segment, [Segment.WAIT_OFFSET, Segment.WAIT_SIZE]].tolist()
        try:
            wait = Duration.FromString(scanned.data[start : start + size].tobytes())
        except DecodeError:
            waits[segment] = None
        else:
            waits[segment] = wait.seconds * 1_000_000 + wait.nanos // 1_000
    return waits


def _canonical(data: bytes, message: type[Message]) -> bytes | None:
    """What the protobuf library makes of a message, written again in the ordinary way; None when malformed."""
    parsed = message()
    try:
        parsed.ParseFromString(data)
    except DecodeError:
        return None
    parsed.DiscardUnknownFields()
    return parsed.SerializeToString()


def _with_replaced(scanned: Scanned, parts: Sequence[Part], canonicals: dict[int, bytes | None]) -> list[Part]:
    """The requests with some events written anew (malformed ones: empty), so that every row keeps its number."""
    replaced = []
    for segment, part in enumerate(parts):
        rows = range(*scanned.rows_of(segment).indices(len(scanned.malformed_rows)))
        events = ((canonicals[row] or b"") if row in canonicals else scanned.event_bytes(row) for row in rows)
        replaced.append(part._replace(data=b"".join(framed(event, part.events_field) for event in events)))
    return replaced


def framed(event: bytes, events_field: int) -> bytes:
    """An event as a field of a request."""
    size, head = len(event), bytearray([8 * events_field | 2])
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    return bytes(head) + event
