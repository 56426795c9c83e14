"""Letting events go from memory changes no value, now or later."""

from hypothesis import assume, given
from hypothesis import strategies as st

from services.kernel.aggregations import Aggregation, Function
from services.kernel.building import EventRow
from services.kernel.columns import ADD
from services.kernel.expressions import Everything
from services.kernel.windows import Rolling

from .evaluator import Evaluator
from .strategies import KEY, aggregations, edges, events, logs


@given(
    definitions=st.lists(aggregations(), min_size=1, max_size=4),
    log=logs(min_size=6),
    late=st.lists(events(), max_size=6),
    data=st.data(),
)
def test_values_stay_what_they_are_when_events_are_let_go(
    definitions: list[Aggregation], log: list[EventRow], late: list[EventRow], data: st.DataObject
) -> None:
    # Corrections of events that were let go are the documented exception.
    log, late = ([record for record in records if record.operation == ADD] for records in (log, late))
    assume(log)
    evaluator = Evaluator(definitions)
    evaluator.apply(log)
    instants = sorted(data.draw(st.lists(st.sampled_from(edges(definitions, log)), min_size=1, max_size=5), "instants"))
    for t_us in instants:
        evaluator.check(t_us)
        evaluator.fold.trim(data.draw(st.sampled_from([t_us, t_us + 1, max(edges(definitions, log))]), "before"))
        evaluator.check(t_us)
    evaluator.apply(late)
    evaluator.restart()
    evaluator.check(instants[-1])


def test_what_no_window_needs_is_let_go() -> None:
    evaluator = Evaluator([Aggregation(Function.COUNTER, Everything(), window=Rolling(1_000))])
    start = evaluator.fold.as_of_us
    rows = [EventRow(str(i), "view", start + i, start, {KEY: "ada"}) for i in range(100)]
    evaluator.apply(rows)
    evaluator.fold.advance_exactly(start + 1_060)
    (engine,) = evaluator.fold.engines
    assert evaluator.fold.trim(start + 10_000) == 60
    # The row of the last event is kept by itself: its time is told with every reading.
    assert engine.rows == 40
    assert engine.read("ada")[0].value == 40


def test_events_that_wait_for_their_time_are_kept() -> None:
    evaluator = Evaluator([Aggregation(Function.COUNTER, Everything())])
    start = evaluator.fold.as_of_us
    rows = [EventRow(str(i), "view", start + i - 9, start, {KEY: "ada"}) for i in range(12)]
    evaluator.apply(rows)
    assert evaluator.fold.trim(start + 10_000) == 8
    evaluator.fold.advance_exactly(start + 10)
    (engine,) = evaluator.fold.engines
    assert engine.read("ada")[0].value == 12
