"""The incremental engine is worth exactly what the reference says: bit for bit, after any history, at any instant."""

import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel import snapshots
from services.kernel.aggregations import Aggregation, Function, TermType
from services.kernel.building import EventRow, build_batch
from services.kernel.columns import EventBatch
from services.kernel.engine import Engine, Reading
from services.kernel.expressions import Everything
from services.kernel.fold import Fold
from services.kernel.windows import Rolling

from . import reference
from .reference import ADD, Truth
from .strategies import (
    DOUBLES,
    HORIZON_US,
    KEY,
    KEY_VALUES,
    RECEIVED_US,
    START_US,
    X,
    aggregations,
    edges,
    events,
    logs,
    times,
)

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

    def check(self, t_us: int) -> None:
        """Holds every key's values at an instant against the reference."""
        for key_value in (*KEY_VALUES, STRANGER):
            expected = reference.profile(self.log, KEY, key_value, self.definitions, t_us, HORIZON_US)
            found = self.read(key_value, t_us)
            for definition, truth, reading in zip(self.definitions, expected, found, strict=True):
                assert comparable(reading) == comparable(truth), (definition, key_value, t_us)


@given(definitions=st.lists(aggregations(), min_size=1, max_size=5), log=logs(), data=st.data())
def test_after_any_history_every_reading_is_that_of_the_reference(
    definitions: list[Aggregation], log: list[EventRow], data: st.DataObject
) -> None:
    evaluator = Evaluator(definitions)
    instants = sorted(data.draw(st.lists(st.sampled_from(edges(definitions, log)), min_size=1, max_size=8), "instants"))
    while log:
        size = data.draw(st.integers(1, len(log)), "batch size")
        evaluator.apply(log[:size])
        log = log[size:]
        for action in data.draw(st.lists(st.sampled_from(("read", "read", "restart")), max_size=3), "then"):
            if action == "restart":
                evaluator.restart()
            elif len(instants) > 1:
                evaluator.check(instants.pop(0))
    for t_us in instants:
        evaluator.check(t_us)


@pytest.mark.parametrize("function", Function)
@given(data=st.data(), log=st.lists(events(), min_size=1, max_size=10))
def test_every_edge_of_every_window_is_exact(function: Function, data: st.DataObject, log: list[EventRow]) -> None:
    definitions = [data.draw(aggregations((function,)), "definition")]
    evaluator = Evaluator(definitions)
    evaluator.apply(log)
    for t_us in edges(definitions, log):
        evaluator.check(t_us)


@given(
    definitions=st.lists(aggregations(), min_size=1, max_size=3),
    log=st.lists(events(), max_size=10, unique_by=lambda event: event.event_id),
    t_us=times(),
    data=st.data(),
)
def test_the_order_of_the_log_does_not_matter(
    definitions: list[Aggregation], log: list[EventRow], t_us: int, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(log))
    repeated = shuffled + data.draw(st.lists(st.sampled_from(shuffled), max_size=4) if shuffled else st.just([]))
    one, other = Evaluator(definitions), Evaluator(definitions)
    one.apply(log)
    for event in repeated:
        other.apply([event])
    for key_value in KEY_VALUES:
        mine, theirs = one.read(key_value, t_us), other.read(key_value, t_us)
        assert [comparable(reading) for reading in mine] == [comparable(reading) for reading in theirs]


def numbers(values: Sequence[float], at_us: int) -> list[EventRow]:
    """Events of ada, a microsecond apart, with these numbers."""
    return [
        EventRow(f"{at_us}-{i}", "e", at_us + i, RECEIVED_US, {KEY: "ada"}, properties={"x": x})
        for i, x in enumerate(values)
    ]


@given(
    values=st.lists(st.one_of(st.sampled_from(DOUBLES), st.floats(allow_nan=False, allow_infinity=False)), max_size=30)
)
def test_sums_are_exact_and_leave_nothing_behind(values: list[float]) -> None:
    period = 1_000
    total = Aggregation(Function.SUM, Everything(), X, TermType.NUMBER, Rolling(period))
    mean = replace(total, function=Function.MEAN)
    evaluator = Evaluator([total, mean])
    evaluator.apply(numbers(values, START_US))
    for edge in (1, 2, 5, 31, period, period + 3, period + 31):
        evaluator.check(START_US + edge)
    evaluator.apply(numbers([0.1, 0.2], START_US + 5 * period))
    evaluator.check(START_US + 5 * period + 2)
    assert evaluator.read("ada", START_US + 5 * period + 2)[0].value == 0.1 + 0.2


@given(log=st.lists(events(), min_size=1, max_size=12), definition=aggregations(), splits=st.lists(st.integers(0, 12)))
def test_how_the_log_is_cut_into_batches_does_not_matter(
    log: list[EventRow], definition: Aggregation, splits: list[int]
) -> None:
    whole, pieces = Evaluator([definition]), Evaluator([definition])
    whole.apply(log)
    cuts = sorted({0, len(log), *(cut for cut in splits if cut <= len(log))})
    for start, end in pairwise(cuts):
        pieces.apply(log[start:end])
    t_us = max(event.occurred_at_us for event in log) + 1
    assert list(map(comparable, whole.read("ada", t_us))) == list(map(comparable, pieces.read("ada", t_us)))


def test_an_event_of_the_future_counts_when_its_time_has_come() -> None:
    counter = Aggregation(Function.COUNTER, Everything())
    evaluator = Evaluator([counter])
    evaluator.apply([EventRow("1", "e", START_US + 100, RECEIVED_US, {KEY: "ada"}, operation=ADD)])
    assert evaluator.read("ada", START_US + 100)[0].value is None
    assert evaluator.read("ada", START_US + 101)[0].value == 1
