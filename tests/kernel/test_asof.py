"""The as-of engine is worth exactly what the incremental engine and the reference say, for many pairs at once."""

from collections.abc import Sequence
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.aggregations import Aggregation, Function, TermType
from services.kernel.asof import AsOf
from services.kernel.asof.bounds import lower_bounds_us
from services.kernel.building import EventRow, build_batch
from services.kernel.columns import EventBatch
from services.kernel.engine import Engine, Reading
from services.kernel.expressions import Everything
from services.kernel.fold import Fold
from services.kernel.windows import MIN_US, Rolling, Window

from . import reference
from .evaluator import STRANGER, Evaluator, comparable
from .reference import DAY_US
from .strategies import (
    DOUBLES,
    HORIZON_US,
    KEY,
    KEY_VALUES,
    PERIODS,
    RECEIVED_US,
    START_US,
    TIMES_US,
    X,
    aggregations,
    edges,
    events,
    logs,
    windows,
)
from .walks import SPAN_US, random_definitions, random_log

ALL_KEYS = (*KEY_VALUES, STRANGER)
Pair = tuple[str, int]


def as_of(definitions: Sequence[Aggregation], log: Sequence[EventRow], batch_size: int = 1_000) -> AsOf:
    """An as-of engine that was given a log."""
    engine = AsOf(KEY, definitions, HORIZON_US)
    for start in range(0, len(log), batch_size):
        engine.add(EventBatch(build_batch(log[start : start + batch_size])))
    return engine


def readings(engine: AsOf, pairs: Sequence[Pair]) -> list[list[Reading]]:
    """The readings of each pair."""
    columns = engine.answer([key for key, _ in pairs], np.array([t_us for _, t_us in pairs], np.int64))
    return [[column.reading(i) for column in columns] for i in range(len(pairs))]


def check(definitions: Sequence[Aggregation], log: Sequence[EventRow], pairs: Sequence[Pair], engine: AsOf) -> None:
    """Holds the as-of engine against the reference, and against an incremental engine that goes through time."""
    counted = reference.surviving(log, HORIZON_US)
    incremental = Evaluator(definitions)
    incremental.apply(log)
    found = readings(engine, pairs)
    for place in sorted(range(len(pairs)), key=lambda i: pairs[i][1]):
        key_value, t_us = pairs[place]
        mine = [event for event in counted if event.keys.get(KEY) == key_value]
        followed = incremental.read(key_value, t_us)
        for definition, reading, other in zip(definitions, found[place], followed, strict=True):
            expected = comparable(reference.truth(mine, definition, t_us))
            assert comparable(reading) == expected, (definition, key_value, t_us)
            assert comparable(other) == expected, (definition, key_value, t_us)
            if isinstance(reading.value, dict):
                assert list(reading.value) == list(other.value)  # type: ignore[call-overload]


@given(
    definitions=st.lists(aggregations(), min_size=1, max_size=5),
    log=logs(),
    batch_size=st.integers(1, 24),
    data=st.data(),
)
def test_every_pair_reads_what_the_reference_and_the_incremental_engine_read(
    definitions: list[Aggregation], log: list[EventRow], batch_size: int, data: st.DataObject
) -> None:
    pair = st.tuples(st.sampled_from(ALL_KEYS), st.sampled_from(edges(definitions, log)))
    pairs = data.draw(st.lists(pair, max_size=20), "pairs")
    check(definitions, log, pairs, as_of(definitions, log, batch_size))


@pytest.mark.parametrize("function", Function)
@given(data=st.data(), log=st.lists(events(), min_size=1, max_size=10))
def test_all_edges_of_all_windows_are_exact_at_once(
    function: Function, data: st.DataObject, log: list[EventRow]
) -> None:
    definitions = [data.draw(aggregations((function,)), "definition")]
    pairs = [(key, t_us) for t_us in edges(definitions, log) for key in ALL_KEYS]
    check(definitions, log, pairs, as_of(definitions, log))


@pytest.mark.parametrize("seed", range(6))
def test_a_long_history_of_many_definitions_is_exact_everywhere(seed: int) -> None:
    random = Random(seed)
    definitions = random_definitions(random, 80)
    log = list(random_log(random, 600))
    pairs = [(random.choice(ALL_KEYS), START_US + random.randrange(SPAN_US + 40 * DAY_US)) for _ in range(60)]
    check(definitions, log, pairs, as_of(definitions, log, 100))


@given(window=windows(), instants=st.lists(st.sampled_from(TIMES_US) | st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_bounds_of_many_instants_are_those_of_each(window: Window, instants: list[int]) -> None:
    found = lower_bounds_us(window, np.array(instants, np.int64)).tolist()
    assert found == [max(window.lower_bound_us(max(t_us, MIN_US + 1)), MIN_US) for t_us in instants]


@given(
    numbers=st.lists(
        st.one_of(st.sampled_from(DOUBLES), st.floats(allow_nan=False, allow_infinity=False)), max_size=30
    ),
    period=st.integers(1, 40),
)
def test_sums_and_means_over_a_moving_window_are_exact(numbers: list[float], period: int) -> None:
    definitions = [
        Aggregation(function, Everything(), X, term_type, Rolling(period))
        for function in (Function.SUM, Function.MEAN)
        for term_type in (TermType.NUMBER, TermType.INTEGER)
    ]
    log = [
        EventRow(f"{i}", "e", START_US + i, RECEIVED_US, {KEY: "ada"}, properties={"x": x})
        for i, x in enumerate(numbers)
    ]
    check(definitions, log, [("ada", START_US + i) for i in range(75)], as_of(definitions, log))


def test_a_sum_beyond_the_integers_of_64_bits_does_not_wrap() -> None:
    total = Aggregation(Function.SUM, Everything(), X, TermType.INTEGER)
    log = [EventRow(str(i), "e", START_US, RECEIVED_US, {KEY: "ada"}, properties={"x": 2**63 - 1}) for i in range(3)]
    (column,) = as_of([total], log).answer(["ada", STRANGER], np.array([START_US + 1] * 2))
    assert pa.types.is_decimal(column.values.type)
    assert [column.reading(i).value for i in range(2)] == [3 * (2**63 - 1), None]


def test_many_events_of_one_instant_are_in_the_order_of_their_ids() -> None:
    last = Aggregation(Function.UNIQUE_LIST, Everything(), X, TermType.INTEGER)
    log = [
        EventRow(f"{i * 37 % 100:03}", "e", START_US, RECEIVED_US, {KEY: "ada"}, properties={"x": i * 37 % 100})
        for i in range(100)
    ]
    ((reading,),) = readings(as_of([last], log), [("ada", START_US + 1)])
    assert reading.value == list(range(100))


def test_events_may_come_after_an_answer() -> None:
    counter = Aggregation(Function.COUNTER, Everything())
    engine = as_of([counter], [EventRow("1", "e", START_US, RECEIVED_US, {KEY: "ada"})])
    pairs = [("ada", START_US + 9), ("bob", START_US + 9)]
    assert [reading.value for (reading,) in readings(engine, pairs)] == [1, None]
    engine.add(EventBatch(build_batch([EventRow("0", "e", START_US + 1, RECEIVED_US, {KEY: "bob"})])))
    assert [reading.value for (reading,) in readings(engine, pairs)] == [1, 1]


def test_keys_come_as_texts_as_arrow_or_as_codes() -> None:
    counter = Aggregation(Function.COUNTER, Everything())
    engine = as_of([counter], [EventRow("1", "e", START_US, RECEIVED_US, {KEY: key}) for key in KEY_VALUES[:1]])
    texts, instants = ["ada", STRANGER, "ada"], np.array([START_US + 1] * 3)
    forms = (texts, pa.array(texts), pa.array(texts).dictionary_encode(), pa.chunked_array([texts[:1], texts[1:]]))
    for keys in (*forms, engine.codes(texts)):
        assert engine.answer(keys, instants)[0].values.to_pylist() == [1, None, 1]
    assert engine.answer(pa.array(["ada", None, "ada"]), instants)[0].values.to_pylist() == [1, None, 1]
    with pytest.raises(ValueError, match="2 keys and 3 instants"):
        engine.answer(texts[:2], instants)


@given(
    definitions=st.lists(aggregations(), min_size=1, max_size=3),
    log=logs(),
    since_us=st.sampled_from(TIMES_US),
    age_us=st.sampled_from(PERIODS),
)
def test_windows_that_begin_before_the_log_are_marked_alike(
    definitions: list[Aggregation], log: list[EventRow], since_us: int, age_us: int
) -> None:
    t_us = since_us + age_us
    fold, batch = Fold("manual", HORIZON_US), EventBatch(build_batch(log))
    fold.attach(Engine(KEY, definitions, since_us))
    fold.apply(1, len(log), batch)
    fold.advance_exactly(t_us)
    engine = AsOf(KEY, definitions, HORIZON_US, complete_since_us=since_us)
    engine.add(batch)
    for key, found in zip(ALL_KEYS, readings(engine, [(key, t_us) for key in ALL_KEYS]), strict=True):
        expected = fold.engines[0].read(key)
        assert [comparable(reading) for reading in found] == [comparable(reading) for reading in expected]
        assert [r.covered_fraction for r in found] == [r.covered_fraction for r in expected]
