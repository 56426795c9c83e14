"""The fold: its clock, its positions, and what it says has changed or will change."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.aggregations import Aggregation, Function
from services.kernel.building import EventRow, build_batch
from services.kernel.columns import EventBatch
from services.kernel.engine import Engine
from services.kernel.expressions import Everything
from services.kernel.fold import Fold

from .evaluator import Evaluator, comparable
from .reference import ADD, DAY_US
from .strategies import HORIZON_US, KEY, KEY_VALUES, START_US, aggregations, edges, logs
from .walks import SPAN_US, random_definitions, random_log

COUNTER = Aggregation(Function.COUNTER, Everything())
UNTIMED = tuple(f for f in Function if f not in (Function.TIME_SINCE_FIRST, Function.TIME_SINCE_LAST))


def event(event_id: str, occurred_us: int, received_us: int) -> EventRow:
    """An event of ada."""
    return EventRow(event_id, "e", occurred_us, received_us, {KEY: "ada"})


def batch(*rows: EventRow) -> EventBatch:
    """Some events as a batch."""
    return EventBatch(build_batch(rows))


def counting(clock: str = "wall") -> tuple[Fold, Engine]:
    """A fold that counts events."""
    fold, engine = Fold("log" if clock == "log" else "wall", HORIZON_US), Engine(KEY, (COUNTER,))
    fold.attach(engine)
    return fold, engine


def test_with_a_wall_clock_what_was_just_applied_is_visible_at_once() -> None:
    fold, engine = counting()
    fold.apply(1, 2, batch(event("a", 90, 100), event("b", 100, 100)))
    assert fold.as_of_us == 101
    assert engine.read("ada")[0].value == 2


def test_with_a_wall_clock_now_is_the_later_of_the_clock_and_the_newest_receipt() -> None:
    fold, engine = counting()
    fold.apply(1, 1, batch(event("ahead", 150, 100)))
    fold.advance(90)
    assert fold.as_of_us == 101
    fold.advance(149)
    assert engine.read("ada")[0].value is None
    fold.advance(150)
    assert fold.as_of_us == 151
    assert engine.read("ada")[0].value == 1


def test_with_the_clock_of_the_log_now_is_the_newest_event_time() -> None:
    fold, engine = counting("log")
    fold.apply(1, 2, batch(event("b", 70, 500), event("a", 50, 500)))
    fold.advance(10_000)
    assert fold.as_of_us == 71
    assert engine.read("ada")[0].value == 2


def test_positions_that_were_applied_are_passed_over() -> None:
    fold, engine = counting()
    rows = [event(str(i), i, 100) for i in range(1, 5)]
    fold.apply(1, 2, batch(*rows[:2]))
    fold.apply(1, 2, batch(*rows[:2]))
    fold.apply(2, 4, batch(*rows[1:]))
    assert fold.position == 4
    assert fold.events == 4
    assert engine.read("ada")[0].value == 4


def test_a_batch_that_a_filter_emptied_moves_the_position() -> None:
    fold, _ = counting()
    fold.apply(1, 9, None)
    assert fold.position == 9


def test_a_filtered_batch_may_not_overlap_the_position() -> None:
    fold, _ = counting()
    fold.apply(1, 5, None)
    with pytest.raises(ValueError, match="overlaps"):
        fold.apply(4, 8, batch(event("a", 1, 1)))


def test_equal_definitions_of_one_engine_answer_alike() -> None:
    engine = Engine(KEY, (COUNTER, COUNTER))
    fold = Fold("wall", HORIZON_US)
    fold.attach(engine)
    fold.apply(1, 1, batch(event("a", 1, 1)))
    assert engine.index_of(COUNTER) == 0
    assert [reading.value for reading in engine.read("ada")] == [1, 1]


def readings(evaluator: Evaluator) -> dict[str, list[object]]:
    """Every key's readings at the fold's instant, comparable."""
    (engine,) = evaluator.fold.engines
    return {key_value: list(map(comparable, engine.read(key_value))) for key_value in KEY_VALUES}


def touched(evaluator: Evaluator) -> set[str]:
    """The keys that the fold says have changed."""
    return {engine.key_of(code) for engine, codes in evaluator.fold.touched().items() for code in codes.tolist()}


def definitions() -> st.SearchStrategy[list[Aggregation]]:
    """Definitions whose values do not change with every microsecond."""
    return st.lists(aggregations(UNTIMED), min_size=1, max_size=3)


@given(wanted=definitions(), log=logs(), data=st.data())
def test_every_key_whose_readings_changed_is_touched(
    wanted: list[Aggregation], log: list[EventRow], data: st.DataObject
) -> None:
    evaluator = Evaluator(wanted)
    instants = data.draw(st.lists(st.sampled_from(edges(wanted, log)), max_size=6).map(sorted))
    steps: Sequence[int | EventRow] = data.draw(st.permutations([*instants, *log]))
    touched(evaluator)
    for step in steps:
        before = readings(evaluator)
        if isinstance(step, EventRow):
            evaluator.apply([step])
        else:
            evaluator.fold.advance_exactly(step)
        after = readings(evaluator)
        assert {key_value for key_value in KEY_VALUES if before[key_value] != after[key_value]} <= touched(evaluator)


@given(wanted=definitions(), log=logs(max_size=8))
def test_nothing_changes_before_the_next_change_and_every_change_is_announced(
    wanted: list[Aggregation], log: list[EventRow]
) -> None:
    evaluator = Evaluator(wanted)
    evaluator.apply(log)
    evaluator.fold.advance_exactly(START_US - DAY_US)
    last_us = max(edges(wanted, log)) + 2 * DAY_US
    changes = 0
    while (change_us := evaluator.fold.next_change_us()) is not None and change_us <= last_us:
        assert change_us > evaluator.fold.as_of_us
        before = readings(evaluator)
        evaluator.fold.advance_exactly(change_us - 1)
        assert readings(evaluator) == before
        evaluator.fold.advance_exactly(change_us)
        changes += 1
        assert changes < 10_000, "announces changes without end"
    before = readings(evaluator)
    evaluator.fold.advance_exactly(last_us)
    assert readings(evaluator) == before


@pytest.mark.parametrize("seed", range(6))
def test_trimming_what_nothing_needs_changes_no_value(seed: int) -> None:
    random = Random(seed)
    wanted = [definition for definition in random_definitions(random, 40) if definition.ttl_us is None]
    evaluator = Evaluator(wanted)
    log = [row for row in random_log(random, 400) if row.operation == ADD]
    before_us = START_US - 3 * DAY_US
    for start in range(0, len(log), 50):
        # Retention refuses what is older than what was trimmed.
        evaluator.apply([row for row in log[start : start + 50] if row.occurred_at_us >= before_us])
        t_us = START_US + (start + 50) * SPAN_US // len(log)
        evaluator.check(t_us)
        before_us = max(before_us, t_us - random.randrange(0, 40) * DAY_US)
        dropped = sum(engine.trim(before_us) for engine in evaluator.fold.engines)
        evaluator.check(t_us)
        if dropped and random.random() < 0.5:
            evaluator.restart()
    evaluator.check(START_US + SPAN_US + 40 * DAY_US)
