"""Where the values of fields come from: the engines, one profile or many at a time."""

from collections.abc import Hashable
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.features.catalog import Catalog
from services.features.compile import compile_attribute
from services.features.dataset import typed
from services.features.definitions import Attribute, AttributeGroup, GroupState
from services.features.projection import Projection, Slot
from services.features.segments.schema import KINDS, Elapsed, Field, Schema
from services.features.segments.universe import Codes, Universe
from services.features.values import answer
from services.kernel.aggregations import Function
from services.kernel.column import Column
from services.kernel.engine import Engine
from services.kernel.expressions import Instant

_SINCE = (Function.TIME_SINCE_FIRST, Function.TIME_SINCE_LAST)


class Reader(Protocol):
    """Gives the values of one field. Instants are int64 microseconds."""

    @property
    def engines(self) -> tuple[Engine, ...]:
        """Whose touched keys may have other values."""
        ...

    @property
    def place(self) -> Hashable:
        """Where the values come from: readers of equal places give the same values."""
        ...

    def one(self, number: int, now_us: int) -> Any:
        """The value of one profile, by its number in the universe; None is null."""
        ...

    def many(self, numbers: Codes, now_us: int) -> pa.Array:
        """The values of many."""
        ...


class AttributeReader:
    """The values of an attribute."""

    def __init__(self, attribute: Attribute, slot: Slot, universe: Universe, *, elapsed: bool) -> None:
        self.engines = (slot.engine,)
        self._attribute = attribute
        self._slot = slot
        self._universe = universe
        self._elapsed = elapsed

    @property
    def place(self) -> Hashable:
        """See Reader."""
        return self._attribute, self._slot

    def one(self, number: int, now_us: int) -> Any:
        """See Reader."""
        engine, place = self._slot
        reading = engine.reading(place, self._universe.code(engine, number))
        if self._elapsed:
            assert reading.value is None or isinstance(reading.value, int | float), "seconds"
            return None if reading.value is None else now_us - round(reading.value * 1e6)
        value = answer(self._attribute, reading).value
        return value.us if isinstance(value, Instant) else value

    def many(self, numbers: Codes, now_us: int) -> pa.Array:
        """See Reader."""
        engine, place = self._slot
        column = engine.column(place, self._universe.codes(engine, numbers))
        if self._elapsed:
            return origins(column, now_us)
        array = typed(self._attribute, column)
        return array.cast(pa.int64()) if pa.types.is_timestamp(array.type) else array


def origins(column: Column, now_us: int) -> pa.Array:
    """The instants that the seconds of a column count from; the same as Python's rounding, half to even."""
    values = column.values
    missing = values.is_null().to_numpy(zero_copy_only=False)
    seconds = values.fill_null(0.0).to_numpy(zero_copy_only=False)
    spans: NDArray[np.int64] = np.rint(seconds * 1e6).astype(np.int64)
    return pa.array(now_us - spans, mask=missing)


def elapsed_of(attribute: Attribute) -> Elapsed | None:
    """What an attribute that counts the seconds since an event is, else None."""
    if attribute.aggregation not in _SINCE:
        return None
    assert attribute.type is not None, "validated before"
    default = attribute.default_value
    return Elapsed(attribute.type, default if isinstance(default, int | float) else None)


class ProfileFields:
    """The fields that the profiles of a project have now, and their readers."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    @property
    def revision(self) -> int:
        """Rises when fields may have changed."""
        return self._catalog.revision

    def attribute_keys(self) -> list[str]:
        """The attribute keys that anything is known of."""
        return sorted({stored.group.attribute_key for stored in self._catalog.published})

    def schema(self, attribute_key: str) -> Schema:
        """What conditions on the profiles of an attribute key can speak of: the latest published groups' attributes."""
        fields = []
        for group in self._groups(attribute_key):
            for attribute in group.attributes:
                assert attribute.type is not None, "validated before"
                elapsed = elapsed_of(attribute)
                fields.append(Field(group.group_id, attribute.name, KINDS[attribute.type], elapsed))
        return Schema(attribute_key, fields)

    def reader(self, field: Field, universe: Universe, projection: Projection) -> Reader | None:
        """Reads a field of the schema; None while it is still being filled."""
        stored = self._catalog.latest_published(field.namespace)
        if stored is None or stored.state is not GroupState.SERVING:
            return None
        attribute = next((each for each in stored.group.attributes if each.name == field.name), None)
        if attribute is None:
            return None
        slot = projection.slot(universe.attribute_key, compile_attribute(attribute))
        return None if slot is None else AttributeReader(attribute, slot, universe, elapsed=field.elapsed is not None)

    def _groups(self, attribute_key: str) -> list[AttributeGroup]:
        latest: dict[str, AttributeGroup] = {}
        for stored in self._catalog.published:
            newest = self._catalog.latest_published(stored.group.group_id)
            if newest is not None and newest.group.attribute_key == attribute_key:
                latest[stored.group.group_id] = newest.group
        return [latest[group_id] for group_id in sorted(latest)]
