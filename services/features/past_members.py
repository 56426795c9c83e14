"""Who referred to a profile at instants of the past: what roll-ups are made of then.

Whoever ever wrote the profile's key value into the reference may have referred to it. So the whole archive is gone
through once for those writes (two columns of it), and then the reference and what is rolled up are recomputed for all
of these at each instant: the cost grows with the writers times the instants.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, cast

import pyarrow as pa
import pyarrow.compute as pc

from services.features.archive import ArchiveListing, read_events
from services.features.past_pairs import Pair
from services.features.references import ReferenceIndex, SlotLike
from services.kernel.aggregations import Aggregation
from services.kernel.asof import Column
from services.kernel.columns import EventBatch, key_column
from services.runtime.errors import InvalidArgument, Violation

if TYPE_CHECKING:
    from pathlib import Path

    from services.features.past import PastEngine

MAX_PAIRS = 1_000_000
"""Profiles that may have referred, times instants."""


class PastIndex:
    """In place of a `ReferenceIndex`: codes are the numbers of pairs of who may refer and an instant."""

    def __init__(self, attribute_key: str, aggregation: Aggregation, slot: SlotLike) -> None:
        self.attribute_key = attribute_key
        self.aggregation = aggregation
        self.engine = cast("PastEngine", slot.engine)
        self.place = slot.place
        self.touched: set[str] = set()
        self.pairs: Sequence[Pair] = ()
        """What the codes stand for."""
        self._codes: dict[tuple[int, str], list[int]] = {}

    def add_source(self, engine: object) -> None:
        """Nothing changes in the past."""

    def referring(self, target: str) -> Collection[int]:
        """Those who refer to a value at the instant that is read now."""
        return self._codes.get((self.engine.past.instant_us, target), ())

    def take_in(self, pairs: Sequence[Pair]) -> None:
        """The engine's columns are those of these pairs."""
        codes: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
        values = self.engine.columns[self.place].values.to_pylist() if pairs else []
        for code, (pair, value) in enumerate(zip(pairs, values, strict=True)):
            if value:
                codes[pair.instant_us, value].append(code)
        self.pairs, self._codes = pairs, dict(codes)


class PastReferences:
    """In place of `References`."""

    def __init__(self) -> None:
        self._indexes: dict[tuple[str, Aggregation], PastIndex] = {}

    def index(self, attribute_key: str, aggregation: Aggregation, slot: SlotLike) -> ReferenceIndex:
        """See References; there is always one."""
        key = attribute_key, aggregation
        if key not in self._indexes:
            self._indexes[key] = PastIndex(attribute_key, aggregation, slot)
        return cast("ReferenceIndex", self._indexes[key])

    def of(self, attribute_key: str) -> list[PastIndex]:
        """Those of the profiles of an attribute key."""
        return [index for index in self._indexes.values() if index.attribute_key == attribute_key]


def writers(
    root: "Path", listing: ArchiveListing, indexes: Iterable[PastIndex], targets: Collection[str], until: int
) -> set[str]:
    """Who ever wrote one of the values into one of the references, by the records up to a position. Blocks."""
    found: set[str] = set()
    wanted = pa.array(sorted(targets), pa.string())
    for index in indexes:
        assert index.aggregation.term is not None, "a reference is a value"
        key, place = key_column(index.attribute_key), index.aggregation.term.column
        for batch in read_events(root, listing, columns=(key, place), up_to_position=until):
            found |= _writers(batch, key, f"{place}:s", wanted)
    return found


def _writers(batch: EventBatch, key: str, place: str, wanted: pa.Array) -> set[str]:
    keys, values = batch.column(key), batch.column(place)
    if keys is None or values is None:
        return set()
    written = keys.filter(pc.is_in(values.cast(pa.string()), value_set=wanted))
    return set(written.cast(pa.string()).to_pylist()) - {None}


def pairs_of(keys: Collection[str], instants: Collection[int]) -> list[Pair]:
    """Every key at every instant; raises InvalidArgument when these are too many."""
    if len(keys) * len(instants) > MAX_PAIRS:
        text = f"mean {len(keys):,} profiles at {len(instants):,} instants: at most {MAX_PAIRS:,} are read"
        violation = Violation("as_of_times", text, "OUT_OF_RANGE")
        raise InvalidArgument(f"the roll-ups {text}", reason="OUT_OF_RANGE", violations=(violation,))
    return [Pair(key, instant) for key in sorted(keys) for instant in instants]


def chosen(column: Column, codes: Sequence[int]) -> Column:
    """Some entries of a column."""
    rows = pa.array(codes, pa.int64())
    places = rows.to_numpy()
    fractions = column.covered_fractions
    return Column(
        column.values.take(rows),
        column.statuses[places],
        column.last_event_us[places],
        None if fractions is None else fractions[places],
    )
