"""Which events of a request are taken: their form, their names, values and sizes, and their time.

The rules of one event, whatever the state of the project. They are checked for all events in one compiled pass; only
refused events are touched by Python, to say what is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from services.ingest.compiled.checks import MAX_PROPERTY_NAME, check_cells, check_events, check_names
from services.ingest.compiled.faults import EXPLANATIONS, Fault, Refusal
from services.ingest.compiled.tables import Count, Row, Table, Type
from services.ingest.decode import Part, Scanned
from services.kernel.columns import RESERVED_VENDOR


@dataclass(frozen=True)
class TimeRules:
    """The event times that a project takes now, in microseconds."""

    earliest_us: int
    latest_us: int


@dataclass(frozen=True)
class Verdicts:
    """What was found: a Fault for each row, the symbol at fault or -1, and the names of properties that lack."""

    faults: Table
    places: Table
    lacking: dict[int, str] = field(default_factory=dict)

    @property
    def admitted(self) -> NDArray[np.bool_]:
        """Which rows are taken."""
        admitted: NDArray[np.bool_] = self.faults == Fault.NONE
        return admitted

    def refuse(self, rows: NDArray[np.bool_], fault: Fault, place: int = -1) -> None:
        """Finds a fault with rows that have none so far, at the symbol `place`."""
        fresh = rows & (self.faults == Fault.NONE)
        self.faults[fresh] = fault
        self.places[fresh] = place

    def refuse_lacking(self, rows: NDArray[np.bool_], name: str) -> None:
        """Refuses rows that have no fault so far, because they lack a property."""
        fresh = np.flatnonzero(rows & (self.faults == Fault.NONE)).tolist()
        self.faults[fresh] = Fault.MISSING_FIELD
        self.lacking.update(dict.fromkeys(fresh, name))

    def explain(self, scanned: Scanned, row: int) -> Refusal:
        """Says what is wrong with a refused row."""
        reason, path, message = EXPLANATIONS[Fault(int(self.faults[row]))]
        place = int(self.places[row])
        if row in self.lacking:
            path = f"properties.{self.lacking[row]}"
        elif place >= 0 and not path:
            path = _field_of(scanned, place)
        return Refusal(reason, path, message)


def judge(scanned: Scanned, rules: TimeRules) -> Verdicts:
    """Checks every event by itself."""
    count = len(scanned.malformed_rows)
    verdicts = Verdicts(np.zeros(count, np.int64), np.full(count, -1, np.int64))
    verdicts.faults[scanned.malformed_rows] = Fault.MALFORMED
    t = scanned.tables
    check_events(scanned.data, t, rules.earliest_us, rules.latest_us, verdicts.faults)
    names = np.zeros(int(t.counts[Count.SYMBOLS]), np.int64)
    check_names(scanned.data, t, names)
    seen = np.full(8 * len(names), -1, np.int32)
    check_cells(scanned.data, t, names, seen, verdicts.faults, verdicts.places)
    return verdicts


def refuse_reserved(scanned: Scanned, parts: Sequence[Part], verdicts: Verdicts) -> None:
    """Finds a fault with events of the suite's own vendor that no service sent. It looks at each event type once."""
    types = scanned.tables.types[: scanned.tables.counts[Count.TYPES]]
    candidates = np.flatnonzero(types[:, Type.VENDOR_SIZE] == len(RESERVED_VENDOR)).tolist()
    reserved = [kind for kind in candidates if scanned.event_type(kind)[0] == RESERVED_VENDOR]
    if not reserved:
        return
    rows = np.isin(scanned.events[:, Row.TYPE], reserved)
    for segment, part in enumerate(parts):
        if part.by_service:
            rows[scanned.rows_of(segment)] = False
    verdicts.refuse(rows, Fault.RESERVED_VENDOR)


def _field_of(scanned: Scanned, symbol: int) -> str:
    path = scanned.path(symbol)
    head, _, tail = path.partition(".")
    return f"{ {'k': 'keys', 'a': 'properties', 'd': 'data', 'e': 'entities'}[head] }.{tail[:MAX_PROPERTY_NAME]}"
