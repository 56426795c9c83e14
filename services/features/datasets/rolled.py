"""Roll-ups as features: of each row over whoever referred to its key at its instant, as serving answered then.

Whoever ever wrote the key into the reference may have referred to it; the reference and what is rolled up are computed
for each of these at each row of the key. So the cost is that of the rows times those who may have referred.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from services.features.dataset import ARROW_TYPES
from services.features.definitions import ValueType
from services.features.export_parts import ExportedRollup
from services.features.past_members import chosen
from services.features.profile_parts import PlacedRollup
from services.features.projection import Slot
from services.features.references import ReferenceIndex
from services.kernel.aggregations import Aggregation
from services.kernel.asof import AsOf, Column
from services.kernel.columns import key_column
from services.kernel.engine import Engine, Reading
from services.kernel.expressions import Instant

if TYPE_CHECKING:
    from services.features.datasets.job import ArchiveSource, Job

_PAIRS = 1 << 20
"""Who may have referred, times rows, computed at once."""


@dataclass(frozen=True, slots=True)
class RolledColumn:
    """One roll-up, and the column that it becomes."""

    feature_id: str
    """rollups.{name}"""
    column: str
    rollup: ExportedRollup

    @property
    def type(self) -> ValueType:
        """Of its values."""
        return self.rollup.type


class _Members:
    """In place of engine and index: the pairs of one row are its codes."""

    def __init__(self, columns: Sequence[Column], aggregations: Sequence[Aggregation]) -> None:
        self.columns = columns
        self.aggregations = list(aggregations)
        self.engine = self
        self.codes: Collection[int] = ()

    def referring(self, target: str) -> Collection[int]:
        """Those who refer to the key of the row that is read now."""
        return self.codes

    def reading(self, place: int, code: int) -> Reading:
        """What an engine reads."""
        return self.columns[place].reading(code)

    def column(self, place: int, codes: NDArray[np.int32]) -> Column:
        """What an engine reads of many."""
        return chosen(self.columns[place], codes.tolist())

    def place_of(self, rollup: ExportedRollup) -> PlacedRollup:
        """A roll-up over these."""
        slot = None
        if rollup.source is not None:
            slot = Slot(cast("Engine", self), self.aggregations.index(rollup.source.aggregation))
        return PlacedRollup(rollup.definition, cast("ReferenceIndex", self), rollup.source, slot)


class RolledUpRows:
    """The roll-ups of the rows of a part."""

    def __init__(self, job: "Job", keys: Iterable[str]) -> None:
        self._columns = job.rollups
        self._engines: dict[tuple[str, Aggregation], tuple[AsOf, dict[str, list[str]]]] = {}
        source = cast("ArchiveSource", job.source)
        targets = pa.array(sorted(set(keys)), pa.string())
        for each in job.rollups:
            reference = each.rollup.reference
            if reference is None or (each.rollup.attribute_key, reference) in self._engines:
                continue
            of_key = [one.rollup for one in job.rollups if one.rollup.reference == reference]
            needed = list(dict.fromkeys(aggregation for one in of_key for _, aggregation in one.needed))
            writers = _writers(source, each.rollup.attribute_key, reference, targets)
            engine = AsOf(each.rollup.attribute_key, needed, 0, job.complete_since_us)
            everybody = {user for users in writers.values() for user in users}
            if everybody:
                for batch in source.of_keys(each.rollup.attribute_key, needed, everybody):
                    engine.add(batch)
            self._engines[each.rollup.attribute_key, reference] = engine, writers

    def columns(self, keys: Sequence[str | None], instants_us: NDArray[np.int64]) -> list[pa.Array]:
        """The values of all roll-ups for some rows."""
        return [self._column(each, keys, instants_us) for each in self._columns]

    def _column(self, each: RolledColumn, keys: Sequence[str | None], instants_us: NDArray[np.int64]) -> pa.Array:
        kind = ARROW_TYPES[each.type]
        if each.rollup.reference is None:
            return pa.nulls(len(keys), kind)
        engine, writers = self._engines[each.rollup.attribute_key, each.rollup.reference]
        values: list[object] = []
        start = 0
        while start < len(keys):
            end, count = start, 0
            while end < len(keys) and (end == start or count + len(writers.get(keys[end] or "", ())) <= _PAIRS):
                count += len(writers.get(keys[end] or "", ()))
                end += 1
            values += _answers(each.rollup, engine, writers, keys[start:end], instants_us[start:end])
            start = end
        return pa.array([value.us if isinstance(value, Instant) else value for value in values], kind)


def _answers(
    rollup: ExportedRollup,
    engine: AsOf,
    writers: dict[str, list[str]],
    keys: Sequence[str | None],
    instants_us: NDArray[np.int64],
) -> list[object]:
    asked = [writers.get(key or "", []) for key in keys]
    users = [user for each in asked for user in each]
    if not users:
        return [None] * len(keys)
    columns = engine.answer(users, np.repeat(instants_us, [len(each) for each in asked]))
    members = _Members(columns, engine.aggregations)
    placed = members.place_of(rollup)
    assert rollup.reference is not None, "looked at before"
    referred = columns[members.aggregations.index(rollup.reference)].values.to_pylist()
    answers: list[object] = []
    first = 0
    for key, each in zip(keys, asked, strict=True):
        members.codes = [code for code in range(first, first + len(each)) if referred[code] == key]
        answers.append(placed.answer(key or "")[0])
        first += len(each)
    return answers


def _writers(
    source: "ArchiveSource", attribute_key: str, reference: Aggregation, targets: pa.Array
) -> dict[str, list[str]]:
    """For each key whoever ever wrote it into the reference."""
    assert reference.term is not None, "a reference is a value"
    found: defaultdict[str, set[str]] = defaultdict(set)
    for batch in source.of_keys(attribute_key, [reference], ()):
        users, values = batch.column(key_column(attribute_key)), batch.column(f"{reference.term.column}:s")
        if users is None or values is None:
            continue
        values = values.cast(pa.string())
        named = pc.is_in(values, value_set=targets)
        pairs = zip(values.filter(named).to_pylist(), users.cast(pa.string()).filter(named).to_pylist(), strict=True)
        for value, user in pairs:
            if user is not None:
                found[value].add(user)
    return {value: sorted(users) for value, users in found.items()}
