"""A forgotten key leaves nothing: no value, no text, nothing in a snapshot; the other keys are as they were."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kernel import snapshots
from services.kernel.aggregations import Aggregation, Function, TermType
from services.kernel.building import EventRow
from services.kernel.expressions import Everything

from . import reference
from .evaluator import Evaluator, comparable
from .strategies import HORIZON_US, KEY, KEY_VALUES, RECEIVED_US, START_US, X, aggregations, logs
from .walks import SPAN_US, random_definitions, random_log

GONE = KEY_VALUES[0]


def check_without_the_past_of_the_forgotten(
    evaluator: Evaluator, before: list[EventRow], after: list[EventRow], t_us: int
) -> None:
    """Every value is what the log says when the key's events of before had never been."""
    events = [e for e in reference.surviving(before, HORIZON_US) if e.keys.get(KEY) != GONE]
    events += reference.surviving(after, HORIZON_US)
    for key_value in KEY_VALUES:
        mine = [event for event in events if event.keys.get(KEY) == key_value]
        for definition, reading in zip(evaluator.definitions, evaluator.read(key_value, t_us), strict=True):
            assert comparable(reading) == comparable(reference.truth(mine, definition, t_us)), (definition, key_value)
    evaluator.check_columns()


def anew(record: EventRow) -> EventRow:
    """The same event under an id of its own."""
    return replace(record, event_id=f"new-{record.event_id}-{record.revision}", operation=reference.ADD, revision=0)


@given(
    definitions=st.lists(aggregations(), min_size=1, max_size=4), before=logs(), after=logs(max_size=8), data=st.data()
)
@settings(max_examples=40)
def test_a_key_that_comes_back_begins_a_new_life(
    definitions: list[Aggregation], before: list[EventRow], after: list[EventRow], data: st.DataObject
) -> None:
    evaluator = Evaluator(definitions)
    evaluator.apply(before)
    t_us = START_US + data.draw(st.integers(0, SPAN_US), "instant")
    evaluator.fold.advance_exactly(t_us)
    (engine,) = evaluator.fold.engines
    engine.forget_key(GONE)
    assert GONE not in set(engine.keys())
    check_without_the_past_of_the_forgotten(evaluator, before, [], t_us)
    after = [anew(record) for record in after]
    evaluator.apply(list({record.event_id: record for record in after}.values()))
    evaluator.restart()
    check_without_the_past_of_the_forgotten(
        evaluator, before, list({record.event_id: record for record in after}.values()), t_us
    )


@pytest.mark.parametrize("seed", range(4))
def test_forgetting_amid_a_long_history_of_many_definitions_is_exact(seed: int) -> None:
    random = Random(seed)
    evaluator = Evaluator(random_definitions(random, 40))
    before, after = list(random_log(random, 300)), []
    evaluator.apply(before)
    t_us = START_US + SPAN_US // 2
    evaluator.fold.advance_exactly(t_us)
    (engine,) = evaluator.fold.engines
    engine.forget_key(GONE)
    for record in {record.event_id: record for record in map(anew, random_log(random, 200))}.values():
        evaluator.apply([record])
        after.append(record)
    check_without_the_past_of_the_forgotten(evaluator, before, after, START_US + SPAN_US)


def test_no_byte_of_a_forgotten_key_is_left_in_a_snapshot() -> None:
    texts = [
        Aggregation(function, Everything(), X, TermType.STRING) for function in (Function.LAST, Function.UNIQUE_LIST)
    ]
    evaluator = Evaluator([*texts, Aggregation(Function.COUNTER, Everything())])
    evaluator.apply(
        [
            EventRow("id-of-mallory", "e", START_US, RECEIVED_US, {KEY: "mallory"}, properties={"x": "secret"}),
            EventRow("2", "e", START_US, RECEIVED_US, {KEY: "bob"}, properties={"x": "shared"}),
            EventRow("3", "e", START_US, RECEIVED_US, {KEY: "mallory"}, properties={"x": "shared"}),
        ]
    )
    evaluator.fold.advance_exactly(START_US + 1)
    (engine,) = evaluator.fold.engines
    assert engine.forget_key("mallory")
    assert not engine.forget_key("mallory")
    _, arrays = snapshots.freeze(evaluator.fold)
    held = b"".join(array.tobytes() for array in arrays.values())
    assert b"mallory" not in held
    assert b"secret" not in held
    assert [reading.value for reading in engine.read("bob")] == ["shared", ["shared"], 1]
