"""What a profile holds beside attributes: properties, roll-ups and segments."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa

from services.features import wire
from services.features.catalog import Catalog
from services.features.definitions import Value, ValueType
from services.features.projection import Projection, Slot, Touched
from services.features.properties import PropertyDefinition, aggregations_of, compile_property, event_time_us
from services.features.references import ReferenceIndex
from services.features.rollup_sources import RolledUp, resolve
from services.features.rollups import OutOfRangeError, RollupDefinition, RollupFunction, combine, result_type
from services.features.values import STATUSES, Status
from services.kernel.aggregations import Function
from services.kernel.column import Column
from services.kernel.engine import Reading
from services.kernel.windows import MIN_US

MOVING = (Function.TIME_SINCE_FIRST, Function.TIME_SINCE_LAST)
LastEvent = Callable[[int | None], bytes]
MANY = 64
"""From so many profiles on they are read as a column."""
ROLLUPS_FIELD, SEGMENTS_FIELD = 8, 7
"""Of Profile."""
Memberships = Callable[[str, str], Sequence[str]]
"""From attribute key and key value to the names of the segments."""


class Part(Protocol):
    """Some fields of a profile that come from elsewhere than the engines of its own attribute key."""

    @property
    def moving(self) -> bool:
        """Whether values change with every instant, even when nothing happens."""
        ...

    def stamp(self, key_value: str) -> int:
        """A number that changes whenever what `write` gives may have."""
        ...

    def write(self, key_value: str) -> bytes:
        """The fields of Profile for a key, as of the projection's instant."""
        ...

    def concerned(self, touched: Touched) -> Collection[str]:
        """The keys that a step of the fold touched through others; called within the step."""
        ...

    def changed_since(self, position: int, as_of_us: int) -> Iterable[str]:
        """The keys of which something may have changed since a state; rather too many than too few."""
        ...


@dataclass(frozen=True, slots=True)
class PlacedProperty:
    """A property with where its value, its source and what else tells of it are computed; nowhere: not yet."""

    slots: tuple[Slot, ...]
    write: Callable[..., bytes]
    """From the readings at the slots."""
    backfilling: bytes


def place_property(
    definition: PropertyDefinition, projection: Projection | None, last_event: LastEvent
) -> PlacedProperty:
    """Finds a property in a projection, with what writes it as an entry of `Profile.properties`."""
    assert definition.type is not None, "validated before"
    writer = wire.PropertyWriter(definition.property_id, definition.type, last_event)
    statuses = {name.lower(): status for name, status in STATUSES.items()}

    def write(value: Reading, source: Reading, *since: Reading) -> bytes:
        by = source.value if isinstance(source.value, str) else ""
        written_us = event_time_us(value.last_event_us, *(cast("float | None", each.value) for each in since))
        return writer.write(value.value, statuses[value.status], written_us, by)

    found = [
        None if projection is None else projection.slot(definition.attribute_key, aggregation)
        for aggregation in aggregations_of(definition)
    ]
    slots = tuple(slot for slot in found if slot is not None)
    placed = slots if len(slots) == len(found) else ()
    return PlacedProperty(placed, write, writer.write(None, Status.BACKFILLING, None, ""))


class PlacedRollup:
    """A roll-up with where it reads."""

    def __init__(
        self,
        definition: RollupDefinition,
        index: ReferenceIndex | None,
        source: RolledUp | None,
        slot: Slot | None,
    ) -> None:
        assert definition.function is not None, "validated before"
        self._function: RollupFunction = definition.function
        self._counts_profiles = not definition.attribute
        self._index = index
        self._source = source
        self._slot = slot
        self._value_type = ValueType.INT64 if source is None else source.value_type
        self.type = result_type(self._function, self._value_type)
        """Of its values."""

    def answer(self, key_value: str) -> tuple[Value | None, Status, int | None]:
        """Its value for a profile, the status, and the time of the last event of any that is in it."""
        index, source, slot = self._index, self._source, self._slot
        if index is None or (slot is None and source is not None):
            return None, Status.BACKFILLING, None
        codes = index.referring(key_value)
        if not codes:
            return None, Status.NEVER_SEEN, None
        if self._counts_profiles:
            return len(codes), Status.PRESENT, None
        if source is None or slot is None:
            # What it names is no more.
            return None, Status.NULL, None
        found, last_us = _readings(index, slot, codes)
        values = source.values(found)
        try:
            result = combine(self._function, self._value_type, values)
        except OutOfRangeError:
            return None, Status.OUT_OF_RANGE, last_us
        return result, Status.NULL if result is None else Status.PRESENT, last_us


def _readings(index: ReferenceIndex, slot: Slot, codes: Collection[int]) -> tuple[list[Any], int | None]:
    """The kernel's values of the profiles of some codes of the index, and the time of the last event of any."""
    engine, place = slot
    own: Iterable[int | None] = codes
    if engine is not index.engine:
        own = (engine.key_codes.find(index.engine.key_of(code)) for code in codes)
    if len(codes) < MANY:
        readings = [engine.reading(place, code) for code in own]
        times = [each.last_event_us for each in readings if each.last_event_us is not None]
        return [each.value for each in readings], max(times, default=None)
    column = engine.column(place, np.array([-1 if code is None else code for code in own], np.int32))
    if pa.types.is_nested(column.values.type) or pa.types.is_decimal(column.values.type):
        return [column.reading(i).value for i in range(len(column))], _last_of(column)
    return column.values.to_pylist(), _last_of(column)


def _last_of(column: Column) -> int | None:
    last_us = int(column.last_event_us.max())
    return None if last_us == MIN_US else last_us


class RollupPart:
    """The roll-ups of a profile: entries of `Profile.rollups`."""

    def __init__(
        self,
        catalog: Catalog,
        definitions: Sequence[RollupDefinition],
        projection: Projection | None,
        last_event: LastEvent,
    ) -> None:
        self._moving = False
        self._indexes: list[ReferenceIndex] = []
        self._placed: list[tuple[PlacedRollup, wire.AttributeWriter]] = []
        for each in definitions:
            placed = self._place(catalog, each, projection)
            writer = wire.AttributeWriter(each.rollup_id, placed.type, last_event, ROLLUPS_FIELD)
            self._placed.append((placed, writer))

    def _place(self, catalog: Catalog, definition: RollupDefinition, projection: Projection | None) -> PlacedRollup:
        key, property_id = definition.referring
        reference = catalog.properties.find(key, property_id)
        source = resolve(catalog, definition)
        index = slot = None
        if projection is not None and reference is not None:
            aggregation = compile_property(reference.definition)
            index = projection.references.index(key, aggregation, projection.slot(key, aggregation))
        if index is not None and index not in self._indexes:
            self._indexes.append(index)
        if projection is not None and source is not None:
            slot = projection.slot(key, source.aggregation)
            if slot is not None:
                if index is not None:
                    index.add_source(slot.engine)
                self._moving |= source.aggregation.function in MOVING or slot.engine.complete_since_us is not None
        return PlacedRollup(definition, index, source, slot)

    @property
    def moving(self) -> bool:
        """See Part."""
        return self._moving

    def stamp(self, key_value: str) -> int:
        """See Part."""
        return sum(index.stamp(key_value) for index in self._indexes)

    def write(self, key_value: str) -> bytes:
        """See Part."""
        return b"".join([writer.write(*placed.answer(key_value)) for placed, writer in self._placed])

    def concerned(self, touched: Touched) -> Collection[str]:
        """See Part."""
        found: set[str] = set()
        return found.union(*(index.touched for index in self._indexes))

    def changed_since(self, position: int, as_of_us: int) -> Iterable[str]:
        """See Part."""
        found: set[str] = set()
        return found.union(*(index.changed_since(position, as_of_us) for index in self._indexes))


class SegmentPart:
    """The segments that a profile is in, as published now: `Profile.segments`."""

    def __init__(self, memberships: Memberships, attribute_key: str) -> None:
        self._memberships = memberships
        self._attribute_key = attribute_key

    @property
    def moving(self) -> bool:
        """Read anew each time: members are published beside the steps of the fold."""
        return True

    def stamp(self, key_value: str) -> int:
        """See Part; not asked for what moves."""
        return 0

    def write(self, key_value: str) -> bytes:
        """See Part."""
        names = self._memberships(self._attribute_key, key_value)
        return b"".join([wire.delimited(SEGMENTS_FIELD, name.encode()) for name in names])

    def concerned(self, touched: Touched) -> Collection[str]:
        """None: who is in another segment is told by `Projection.mention`, once that is published."""
        return ()

    def changed_since(self, position: int, as_of_us: int) -> Iterable[str]:
        """Unknown here: a segment's own stream (WatchSegment) resumes without a gap."""
        return ()
