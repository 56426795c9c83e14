"""What an export holds beside attributes and properties: roll-ups, from the copied engines, and segments."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from services.features.catalog import Catalog
from services.features.dataset import ARROW_TYPES
from services.features.definitions import ValueType
from services.features.profile_parts import PlacedRollup
from services.features.projection import Slot
from services.features.properties import compile_property
from services.features.references import ReferenceIndex
from services.features.rollup_sources import RolledUp, resolve
from services.features.rollups import RollupDefinition, result_type
from services.kernel.aggregations import Aggregation
from services.kernel.engine import Engine
from services.kernel.expressions import Instant

Roster = tuple[str, pa.Array]
"""The name of a segment, and the key values of its members."""
SEGMENTS_TYPE = pa.list_(pa.string())


@dataclass(frozen=True, slots=True)
class ExportedRollup:
    """A roll-up that is exported: what it is made of."""

    definition: RollupDefinition
    attribute_key: str
    """Of the profiles that refer."""
    reference: Aggregation | None
    """None: it is no more."""
    source: RolledUp | None

    @classmethod
    def of(cls, catalog: Catalog, definition: RollupDefinition) -> "ExportedRollup":
        """What a declared one reads now."""
        key, property_id = definition.referring
        stored = catalog.properties.find(key, property_id)
        reference = None if stored is None else compile_property(stored.definition)
        return cls(definition, key, reference, resolve(catalog, definition))

    @property
    def type(self) -> ValueType:
        """Of its values."""
        assert self.definition.function is not None, "validated before"
        return result_type(self.definition.function, ValueType.INT64 if self.source is None else self.source.value_type)

    @property
    def needed(self) -> list[tuple[str, Aggregation]]:
        """What must be computed for it."""
        found = [self.reference, None if self.source is None else self.source.aggregation]
        return [(self.attribute_key, each) for each in found if each is not None]


class RollupColumns:
    """The roll-ups of an export over copied engines."""

    def __init__(self, rollups: Sequence[ExportedRollup], engines: Sequence[Engine]) -> None:
        self._engines = engines
        self._indexes: dict[tuple[str, Aggregation], ReferenceIndex] = {}
        self._placed = [self._place(each) for each in rollups]

    def _place(self, rollup: ExportedRollup) -> PlacedRollup:
        slot = None if rollup.source is None else self._slot(rollup.attribute_key, rollup.source.aggregation)
        return PlacedRollup(rollup.definition, self._index(rollup), rollup.source, slot)

    def _index(self, rollup: ExportedRollup) -> ReferenceIndex | None:
        if rollup.reference is None:
            return None
        key = rollup.attribute_key, rollup.reference
        slot = self._slot(*key)
        if slot is None:
            return None
        if key not in self._indexes:
            self._indexes[key] = ReferenceIndex(slot.engine, slot.place)
        return self._indexes[key]

    def _slot(self, attribute_key: str, aggregation: Aggregation) -> Slot | None:
        for engine in self._engines:
            place = engine.index_of(aggregation) if engine.attribute_key == attribute_key else None
            if place is not None:
                return Slot(engine, place)
        return None

    def targets(self) -> list[pa.Array]:
        """The profiles that others refer to."""
        return [pa.array(index.targets(), pa.large_string()) for index in self._indexes.values()]

    def values(self, number: int, keys: pa.Array) -> tuple[pa.Array, NDArray[np.int8]]:
        """The values of one roll-up, and their statuses."""
        placed = self._placed[number]
        answers = [placed.answer(key) for key in keys.to_pylist()]
        values = [answer[0].us if isinstance(answer[0], Instant) else answer[0] for answer in answers]
        statuses = np.array([answer[1] for answer in answers], np.int8)
        return pa.array(values, ARROW_TYPES[placed.type]), statuses


def segments_column(keys: pa.Array, rosters: Sequence[Roster]) -> pa.Array:
    """For each key the names of the segments that it is in."""
    names = pa.array([name for name, _ in rosters], pa.string())
    found = np.zeros((len(keys), len(rosters)), np.bool_)
    for i, (_, members) in enumerate(rosters):
        found[:, i] = pc.is_in(keys, value_set=members.cast(pa.string())).to_numpy(zero_copy_only=False)
    offsets = np.append(0, np.cumsum(found.sum(axis=1))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), names.take(pa.array(np.nonzero(found)[1])))
