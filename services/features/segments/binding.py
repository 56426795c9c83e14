"""A condition bound to where its values are now, and ready to be evaluated."""

from collections.abc import Hashable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.features.projection import Projection
from services.features.references import ReferenceIndex
from services.features.segments.checking import check
from services.features.segments.evaluate_many import ManyProfiles
from services.features.segments.evaluate_one import OneProfile
from services.features.segments.fields import ProfileFields
from services.features.segments.language import ConditionParser
from services.features.segments.membership import Timers
from services.features.segments.readers import Reader
from services.features.segments.tree import Condition, moving
from services.features.segments.universe import Codes, Universe
from services.kernel.engine import Engine

FEW = 24
"""So many profiles are faster one by one than as columns."""
CHUNK = 50_000
"""Profiles evaluated without a pause: what others wait for at most."""


class SharedReadings:
    """The values of some profiles at one instant, each column read once."""

    def __init__(self) -> None:
        self._columns: dict[Hashable, pa.Array] = {}

    def read(self, reader: Reader, numbers: Codes, now_us: int) -> pa.Array:
        """The values of a reader, which is asked for them when nobody was whose values come from the same place."""
        found = self._columns.get(reader.place)
        if found is None:
            found = self._columns[reader.place] = reader.many(numbers, now_us)
        return found


class Bound:
    """A condition over a universe of profiles."""

    def __init__(self, condition: Condition, readers: list[Reader], universe: Universe) -> None:
        self.condition = condition
        self.universe = universe
        self.engines: frozenset[Engine] = frozenset(engine for reader in readers for engine in reader.engines)
        """Whose touched keys concern it."""
        self.indexes: frozenset[ReferenceIndex] = frozenset(
            reader.index for reader in readers if reader.index is not None
        )
        """Whose touched profiles concern it."""
        self.moving = bool(moving(condition.tree))
        """Whether time alone changes answers, though no value changes."""
        self.readers = readers
        self._one = OneProfile(condition)
        self._many = ManyProfiles(condition)

    def same(self, other: "Bound") -> bool:
        """Whether the other always gives the same answers, from the same places."""
        places = [reader.place for reader in self.readers], [reader.place for reader in other.readers]
        return self.condition == other.condition and self.universe is other.universe and places[0] == places[1]

    def holds(
        self, numbers: Codes, now_us: int, timers: Timers | None = None, shared: "SharedReadings | None" = None
    ) -> NDArray[np.bool_]:
        """Which of these profiles meet the condition at an instant; sets their timers.

        `shared` is what others read of the same profiles, at the same instant.
        """
        if len(numbers) <= FEW:
            return np.array([self._holds_one(number, now_us, timers) for number in numbers.tolist()], np.bool_)
        many = SharedReadings() if shared is None else shared
        columns = [many.read(reader, numbers, now_us) for reader in self.readers]
        if timers is not None and self.moving:
            timers.set(numbers, self._many.next_change_us(columns, len(numbers), now_us))
        return self._many.holds(columns, len(numbers), now_us)

    def _holds_one(self, number: int, now_us: int, timers: Timers | None) -> bool:
        values = [reader.one(number, now_us) for reader in self.readers]
        if timers is not None and self.moving:
            timers.set_one(number, self._one.next_change_us(values, now_us))
        return self._one.holds(values, now_us)


def bind(
    parser: ConditionParser, fields: ProfileFields, text: str, universe: Universe, projection: Projection
) -> Bound | None:
    """A condition over the fields as they are now; None while one of them is still being filled.

    Raises ConditionError with all mistakes.
    """
    condition = check(parser, text, fields.schema(universe.attribute_key))
    readers = []
    for field in condition.fields:
        reader = fields.reader(field, universe, projection)
        if reader is None:
            return None
        readers.append(reader)
        if reader.index is not None:
            # Whom others refer to is a profile, also when nothing is known of it by itself.
            universe.take_in(pa.array(reader.index.targets(), pa.string()))
    return Bound(condition, readers, universe)


def chunks(numbers: Codes) -> Iterator[Codes]:
    """Slices that are evaluated without a pause."""
    for start in range(0, len(numbers), CHUNK):
        yield numbers[start : start + CHUNK]


def instant_of(projection: Projection) -> int:
    """Now, as the project's clock has it: the last instant whose events count. 0 before the clock of a log began."""
    return max(projection.fold.as_of_us - 1, 0)
