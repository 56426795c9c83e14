"""A fold with one engine beside the reference, given the same log: every reading is compared bit for bit."""

import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from services.kernel import snapshots
from services.kernel.aggregations import Aggregation
from services.kernel.building import EventRow, build_batch
from services.kernel.columns import EventBatch
from services.kernel.engine import Engine, Reading
from services.kernel.fold import Fold

from . import reference
from .reference import Truth
from .strategies import HORIZON_US, KEY, KEY_VALUES, RECEIVED_US

STRANGER = "nobody"


def exactly(value: object) -> object:
    """A value as something that is equal only to the very same value: types and bits included."""
    if isinstance(value, float):
        return "double", struct.pack("<d", value)
    if isinstance(value, list):
        return "list", tuple(exactly(item) for item in value)
    if isinstance(value, dict):
        return "counts", frozenset((exactly(item), count) for item, count in value.items())
    return type(value).__name__, value


def comparable(reading: Reading | Truth) -> tuple[object, str, int | None]:
    """A reading in the form in which two of them are compared."""
    status = reading.status if isinstance(reading, Truth) else reading.status.name
    return exactly(reading.value), status, reading.last_event_us


@dataclass
class Evaluator:
    """A fold with one engine, and the log it has been given."""

    definitions: Sequence[Aggregation]
    fold: Fold = field(default_factory=lambda: Fold("manual", HORIZON_US))
    log: list[EventRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fold.advance_exactly(RECEIVED_US)
        self.fold.attach(Engine(KEY, tuple(self.definitions)))

    def apply(self, records: Sequence[EventRow]) -> None:
        """Applies records as one batch."""
        if records:
            first = len(self.log) + 1
            self.log += records
            self.fold.apply(first, len(self.log), EventBatch(build_batch(records)))

    def restart(self) -> None:
        """Goes on from a snapshot, as after a crash."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "snapshot"
            snapshots.write(self.fold, path)
            self.fold = snapshots.read(path)

    def read(self, key_value: str, t_us: int) -> list[Reading]:
        """The engine's answer at an instant."""
        self.fold.advance_exactly(t_us)
        assert self.fold.as_of_us == t_us
        (engine,) = self.fold.engines
        return list(engine.read(key_value))

    def check_columns(self) -> None:
        """Holds the columns of all keys against the readings one by one."""
        (engine,) = self.fold.engines
        codes = [engine.key_codes.find(key_value) for key_value in (*KEY_VALUES, STRANGER)]
        known = np.array([-1 if code is None else code for code in codes], np.int32)
        for place, definition in enumerate(self.definitions):
            column = engine.column(place, known)
            for i, code in enumerate(codes):
                assert comparable(column.reading(i)) == comparable(engine.reading(place, code)), definition

    def check(self, t_us: int) -> None:
        """Holds every key's values at an instant against the reference."""
        events = reference.surviving(self.log, HORIZON_US)
        for key_value in (*KEY_VALUES, STRANGER):
            mine = [event for event in events if event.keys.get(KEY) == key_value]
            for definition, reading in zip(self.definitions, self.read(key_value, t_us), strict=True):
                expected = reference.truth(mine, definition, t_us)
                assert comparable(reading) == comparable(expected), (definition, key_value, t_us)
