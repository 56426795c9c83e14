"""Where the values of fields come from: the engines, one profile or many at a time."""

from collections.abc import Hashable
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.features.dataset import ARROW_TYPES, typed
from services.features.definitions import Attribute, ValueType
from services.features.projection import Slot
from services.features.references import ReferenceIndex
from services.features.rollup_sources import RolledUp
from services.features.rollups import OutOfRangeError, RollupDefinition, combine, result_type
from services.features.segments.universe import Codes, Universe
from services.features.values import answer
from services.kernel.column import Column
from services.kernel.engine import Engine
from services.kernel.expressions import Instant


class Reader(Protocol):
    """Gives the values of one field. Instants are int64 microseconds."""

    @property
    def engines(self) -> tuple[Engine, ...]:
        """Whose touched keys may have other values."""
        ...

    @property
    def index(self) -> ReferenceIndex | None:
        """Who refers to the profiles, where values come from those."""
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
    """The values of an attribute, or of anything else that one aggregation of the profiles' own events gives."""

    index: ReferenceIndex | None = None

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


class RollupReader:
    """The values of a roll-up: computed over the profiles that refer to one."""

    engines: tuple[Engine, ...] = ()
    """Changes of others are told by the index."""

    def __init__(
        self,
        definition: RollupDefinition,
        index: ReferenceIndex,
        source: RolledUp | None,
        slot: Slot | None,
        universe: Universe,
    ) -> None:
        """Without a source the profiles that refer are counted."""
        self.index: ReferenceIndex | None = index
        self._index = index
        self._definition = definition
        self._source = source
        self._slot = slot
        self._universe = universe

    @property
    def place(self) -> Hashable:
        """See Reader."""
        # What it reads may be another version of an attribute, of another type or default, at the same place.
        source = self._source
        kind = None if source is None else (source.value_type, repr(source.default))
        return self._definition, self._index, kind, self._slot

    def one(self, number: int, now_us: int) -> Any:
        """See Reader."""
        codes = self._index.referring(self._universe.text(number))
        function, source, slot = self._definition.function, self._source, self._slot
        assert function is not None, "validated before"
        if not codes:
            return None
        if source is None or slot is None:
            return len(codes)
        values = []
        for code in codes:
            own = (
                code
                if slot.engine is self._index.engine
                else slot.engine.key_codes.find(self._index.engine.key_of(code))
            )
            value = source.value_of(slot.engine.reading(slot.place, own))
            if value is not None:
                values.append(value)
        try:
            result = combine(function, source.value_type, values)
        except OutOfRangeError:
            return None
        return result.us if isinstance(result, Instant) else result

    def many(self, numbers: Codes, now_us: int) -> pa.Array:
        """See Reader. There is no faster way: each value is a walk over those who refer."""
        assert self._definition.function is not None, "validated before"
        value_type = ValueType.INT64 if self._source is None else self._source.value_type
        kind = ARROW_TYPES[result_type(self._definition.function, value_type)]
        values = [self.one(number, now_us) for number in numbers.tolist()]
        return pa.array(values, pa.int64() if pa.types.is_timestamp(kind) else kind)
