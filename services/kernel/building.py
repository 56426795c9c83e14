"""Builds event batches from Python rows: for imports, tools and tests. The hot path never comes here."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from services.kernel.columns import ADD, FIXED_FIELDS, KIND_TYPES, key_column, sorted_columns
from services.kernel.hashing import content_fingerprint

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Scalar = str | int | float | bool | datetime | list[str]


@dataclass(frozen=True, slots=True)
class Entity:
    """Something that an event refers to."""

    vendor: str
    name: str
    major_version: int
    properties: Mapping[str, Scalar | None]


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event as a Python value."""

    event_id: str
    name: str
    occurred_at_us: int
    received_at_us: int
    keys: Mapping[str, str]
    vendor: str = ""
    version: str = ""
    properties: Mapping[str, Scalar | None] = field(default_factory=dict)
    data: Mapping[str, Scalar | None] = field(default_factory=dict)
    entities: tuple[Entity, ...] = ()
    operation: int = ADD
    revision: int = 0


def to_us(instant: datetime) -> int:
    """An aware instant as microseconds since the epoch."""
    return (instant - EPOCH) // timedelta(microseconds=1)


def from_us(instant_us: int) -> datetime:
    """Microseconds since the epoch as an aware instant."""
    return EPOCH + timedelta(microseconds=instant_us)


def build_batch(rows: Iterable[EventRow]) -> pa.RecordBatch:
    """One record batch of the log's schema from Python rows."""
    events = list(rows)
    columns: dict[str, list[object]] = {}

    def put(index: int, name: str, value: object) -> None:
        columns.setdefault(name, [None] * len(events))[index] = value

    for i, event in enumerate(events):
        for key, value in event.keys.items():
            put(i, key_column(key), value)
        for name, cell in _cells(event):
            put(i, name, cell)
    columns |= {
        "event_id": [event.event_id for event in events],
        "event_type": [f"{event.vendor}/{event.name}/{event.version}" for event in events],
        "occurred_at": [event.occurred_at_us for event in events],
        "received_at": [event.received_at_us for event in events],
        "operation": [event.operation for event in events],
        "revision": [event.revision for event in events],
        "fingerprint": [content_fingerprint(_content(event)) for event in events],
    }
    types = {f.name: f.type for f in FIXED_FIELDS}
    names = sorted_columns(columns)
    arrays = [pa.array(columns[name], types.get(name) or _type_of(name)) for name in names]
    return pa.RecordBatch.from_arrays(arrays, names=names)


def _type_of(column: str) -> pa.DataType:
    return KIND_TYPES["s"] if column.startswith("k.") else KIND_TYPES[column.rsplit(":", 1)[1]]


def _cells(event: EventRow) -> Iterable[tuple[str, object]]:
    """The property columns of an event with their values; nulls are left out."""
    yield from _kinded("a.", event.properties)
    yield from _kinded("d.", event.data)
    seen: Counter[str] = Counter()
    for entity in event.entities:
        coordinates = f"{entity.vendor}/{entity.name}/{entity.major_version}"
        yield from _kinded(f"e.{coordinates}[{seen[coordinates]}].", entity.properties)
        seen[coordinates] += 1


def _kinded(prefix: str, properties: Mapping[str, Scalar | None]) -> Iterable[tuple[str, object]]:
    for name, value in properties.items():
        if value is None:
            continue
        if isinstance(value, bool):
            yield f"{prefix}{name}:b", value
        elif isinstance(value, int):
            yield f"{prefix}{name}:i", value
        elif isinstance(value, float):
            yield f"{prefix}{name}:d", value
        elif isinstance(value, datetime):
            yield f"{prefix}{name}:t", to_us(value)
        elif isinstance(value, str):
            yield f"{prefix}{name}:s", value
        else:
            yield f"{prefix}{name}:l", list(value)


def _content(event: EventRow) -> list[str]:
    head = [f"type={event.vendor}/{event.name}/{event.version}", f"at={event.occurred_at_us}"]
    return head + [f"k.{k}={v}" for k, v in event.keys.items()] + [f"{n}={v!r}" for n, v in _cells(event)]
