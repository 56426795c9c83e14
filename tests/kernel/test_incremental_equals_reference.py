"""The incremental engine is worth exactly what the reference says: bit for bit, after any history, at any instant."""

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.aggregations import Aggregation, Function, TermType
from services.kernel.building import EventRow
from services.kernel.expressions import Everything
from services.kernel.windows import Rolling

from .evaluator import Evaluator, comparable
from .reference import DAY_US
from .strategies import DOUBLES, KEY, KEY_VALUES, RECEIVED_US, START_US, X, aggregations, edges, events, logs, times
from .walks import SPAN_US, random_definitions, random_log

WALKS = 100 if os.environ.get("INKLING_HYPOTHESIS_PROFILE") == "deep" else 12


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


@pytest.mark.parametrize("seed", range(WALKS))
def test_a_long_history_of_many_definitions_is_exact_all_the_way(seed: int) -> None:
    random = Random(seed)
    evaluator = Evaluator(random_definitions(random, 60))
    log = list(random_log(random, 600))
    instants = sorted(random.randrange(START_US, START_US + SPAN_US + 40 * DAY_US) for _ in range(20))
    while log or instants:
        if log and random.random() < 0.7:
            size = random.choice((1, 5, 20, 100))
            evaluator.apply(log[:size])
            log = log[size:]
        elif instants:
            evaluator.check(instants.pop(0))
            evaluator.check_columns()
        if random.random() < 0.1:
            evaluator.restart()


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
    evaluator.apply([EventRow("1", "e", START_US + 100, RECEIVED_US, {KEY: "ada"})])
    assert evaluator.read("ada", START_US + 100)[0].value is None
    assert evaluator.read("ada", START_US + 101)[0].value == 1
