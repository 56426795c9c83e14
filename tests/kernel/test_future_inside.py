"""INFER's way with time: events later than now count at once, and windows only have a start."""

from hypothesis import given, settings
from hypothesis import strategies as st

from services.kernel.aggregations import Aggregation, Function, TermType
from services.kernel.building import EventRow
from services.kernel.engine import Engine
from services.kernel.fold import Fold

from . import reference
from .evaluator import Evaluator
from .strategies import HORIZON_US, KEY, KEY_VALUES, RECEIVED_US, X, aggregations, edges, events, logs

COUNTS_AND_SUMS = aggregations((Function.COUNTER, Function.SUM)).filter(lambda each: each.ttl_us is None)


def expected(log: list[EventRow], definition: Aggregation, key_value: str, t_us: int) -> object:
    """The count or the sum over all events since the window's start, or None."""
    inside = [
        event
        for event in reference.surviving(log, HORIZON_US)
        if event.keys.get(KEY) == key_value
        and reference.matches(event, definition.filter)
        and reference.inside(event, definition, t_us)
    ]
    if definition.function is Function.COUNTER:
        return len(inside) or None
    terms = [term for event in inside if (term := reference.term_of(event, definition)) is not None]
    return reference.exact_sum(terms) if terms else None


@given(definitions=st.lists(COUNTS_AND_SUMS, min_size=1, max_size=4), log=logs(), data=st.data())
@settings(max_examples=60)
def test_events_of_the_future_count_until_the_start_of_the_window_passes_them(
    definitions: list[Aggregation], log: list[EventRow], data: st.DataObject
) -> None:
    evaluator = Evaluator(definitions, Fold("manual", HORIZON_US))
    (engine,) = evaluator.fold.engines
    evaluator.fold.detach(engine)
    evaluator.fold.attach(Engine(KEY, tuple(definitions), future_inside=True))
    instants = sorted(data.draw(st.lists(st.sampled_from(edges(definitions, log)), min_size=1, max_size=6), "instants"))
    cut = data.draw(st.integers(0, len(log)), "first batch")
    evaluator.apply(log[:cut])
    for i, t_us in enumerate(instants):
        if i == len(instants) // 2:
            evaluator.apply(log[cut:])
            evaluator.restart()
        seen = log if i >= len(instants) // 2 else log[:cut]
        for key_value in KEY_VALUES:
            found = [reading.value for reading in evaluator.read(key_value, max(t_us, RECEIVED_US))]
            wanted = [expected(seen, each, key_value, max(t_us, RECEIVED_US)) for each in definitions]
            assert list(map(repr, found)) == list(map(repr, wanted)), (key_value, t_us)


@given(definition=aggregations(), log=st.lists(events(), min_size=1, max_size=8))
@settings(max_examples=60)
def test_between_now_and_the_next_change_of_a_key_nothing_changes(definition: Aggregation, log: list[EventRow]) -> None:
    moving = definition.function in (Function.TIME_SINCE_FIRST, Function.TIME_SINCE_LAST)
    evaluator = Evaluator([definition])
    evaluator.apply(log)
    (engine,) = evaluator.fold.engines
    for t_us in (each for each in edges([definition], log) if each >= RECEIVED_US):
        before = {key: repr(engine.read(key)) for key in KEY_VALUES}
        codes = {key: code for key in KEY_VALUES if (code := engine.key_codes.find(key)) is not None}
        due = {key: engine.next_change_of(code) for key, code in codes.items()}
        evaluator.fold.advance_exactly(t_us)
        for key in KEY_VALUES:
            changed = repr(engine.read(key)) != before[key]
            assert not changed or moving or (due[key] or t_us + 1) <= t_us


def test_the_next_change_of_one_aggregation_looks_at_its_own_events() -> None:
    small = Aggregation(Function.COUNTER, reference.Compare(X, "<", (10,)), window=reference.Rolling(reference.DAY_US))
    great = Aggregation(
        Function.SUM, reference.Compare(X, ">", (10,)), X, TermType.INTEGER, reference.Rolling(reference.DAY_US)
    )
    evaluator = Evaluator([small, great])
    at_us = RECEIVED_US - 3_000
    evaluator.apply(
        [
            EventRow("1", "e", at_us, RECEIVED_US, {KEY: "ada"}, properties={"x": 1}),
            EventRow("2", "e", at_us + 7, RECEIVED_US, {KEY: "ada"}, properties={"x": 11}),
        ]
    )
    (engine,) = evaluator.fold.engines
    code = engine.key_codes.find("ada")
    assert code is not None
    leaves = at_us + reference.DAY_US + 1
    assert [engine.next_change_of(code, i) for i in (0, 1, None)] == [leaves, leaves + 7, leaves]
