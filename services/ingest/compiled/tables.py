"""What a request looks like once scanned: tables of integers that point into its bytes.

Every table is a matrix of int64, one row for each thing; the enumerations below name its columns. Nothing is copied out
of the request: texts are (offset, size) pairs into its bytes.
"""

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Table = NDArray[Any]
"""A matrix of int64. (Any: to the type checker an element of NDArray[np.int64] is not an int.)"""


class Segment(IntEnum):
    """Columns of `segments`: the calls whose bytes were put together."""

    START = 0
    END = 1
    FIRST_ROW = 2
    """Its first event; the next segment's first row is where they end."""
    STRANGE = 3
    """1 when the framing of its events must be judged by the protobuf library."""
    EVENTS_FIELD = 4
    """The number of the field that holds its events."""
    WAIT_OFFSET = 5
    """Where the bytes of wait_for_insights are; 0 without it."""
    WAIT_SIZE = 6


class Row(IntEnum):
    """Columns of `events`."""

    OFFSET = 0
    SIZE = 1
    SEGMENT = 2
    STRANGE = 3
    """1 when it must be judged by the protobuf library: what was read of it so far is incomplete."""
    ID_OFFSET = 4
    ID_SIZE = 5
    TYPE = 6
    """A row of `types`; -1 without one."""
    TIMED = 7
    """1 when it has an occurred_at."""
    SECONDS = 8
    NANOS = 9
    OPERATION = 10
    REVISION = 11
    KEYS = 12
    """How many keys; the next three count the rest."""
    PROPERTIES = 13
    DATA = 14
    ENTITIES = 15
    LARGEST_ENTITY = 16
    """The most properties of one entity."""
    FINGERPRINT = 17
    """The sum of the hashes of its keys and properties."""


class Cell(IntEnum):
    """Columns of `cells`: one for each key and property that has a value."""

    ROW = 0
    COLUMN = 1
    """8 * symbol + Kind."""
    VALUE = 2
    """The offset of a text, the first item of a list, an integer, the bits of a double, 0 or 1, microseconds."""
    SIZE = 3
    """The size of a text in bytes, the number of items of a list."""
    HASH = 4
    """Of a text, by the secret seed."""


class Symbol(IntEnum):
    """Columns of `symbols`: the distinct names in a request, each within its scope."""

    SCOPE = 0
    """A Scope, or Scope.OTHERS + the symbol of the entity that has the property."""
    EXTRA = 1
    """The major version and index of an entity; else 0."""
    OFFSET = 2
    SIZE = 3
    PLAIN = 4
    """A hash that is the same in every process."""
    HASH = 5
    STAMP = 6
    """1 + the last row that has it."""
    LINK = 7
    """Of types: the row of `types`. Of entities: how many the row of the stamp has so far."""


class Type(IntEnum):
    """Columns of `types`: the distinct event types of a request."""

    STRANGE = 0
    VENDOR = 1
    VENDOR_SIZE = 2
    NAME = 3
    NAME_SIZE = 4
    VERSION = 5
    VERSION_SIZE = 6
    PLAIN = 7
    """A hash that is the same in every process."""


class Scope(IntEnum):
    """What a symbol names."""

    KEY = 0
    PROPERTY = 1
    DATA = 2
    TYPE = 3
    """The bytes of a whole EventType."""
    ENTITY_VENDOR = 4
    ENTITY_COORDINATES = 5
    """EXTRA is the symbol of the vendor, the text the name."""
    ENTITY = 6
    """EXTRA is the symbol of the coordinates and the major version; LINK counts within an event."""
    ENTITY_AT = 7
    """EXTRA is the symbol of the entity and its index in the event."""
    OTHERS = 8


class Kind(IntEnum):
    """The kinds of values, in the order of the proto's oneof."""

    STRING = 0
    NUMBER = 1
    INTEGER = 2
    BOOLEAN = 3
    INSTANT = 4
    LIST = 5
    FORBIDDEN = 6
    """A kind that events may not have."""
    BAD_INSTANT = 7
    """A Timestamp outside of the years 1 to 9999."""


KIND_LETTERS = "sdibtl"


class Count(IntEnum):
    """Places of `counts`: how many rows of each table are used."""

    EVENTS = 0
    CELLS = 1
    ITEMS = 2
    SYMBOLS = 3
    TYPES = 4


class Tables(NamedTuple):
    """The tables of one or more requests, with room to grow into."""

    counts: Table
    segments: Table
    events: Table
    cells: Table
    items: Table
    """(offset, size) of the texts of lists."""
    symbols: Table
    slots: NDArray[np.int32]
    """A hash table over symbols: a power of two of slots, -1 for free."""
    types: Table


def allocate(segments: Table, events: int, cells: int, items: int, symbols: int, types: int) -> Tables:
    """Empty tables with room for so many rows; `symbols` is a power of two."""
    return Tables(
        counts=np.zeros(len(Count), np.int64),
        segments=segments,
        events=np.empty((events, len(Row)), np.int64),
        cells=np.empty((cells, len(Cell)), np.int64),
        items=np.empty((items, 2), np.int64),
        symbols=np.empty((symbols, len(Symbol)), np.int64),
        slots=np.full(2 * symbols, -1, np.int32),
        types=np.empty((types, len(Type)), np.int64),
    )
