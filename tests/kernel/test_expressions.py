"""Conditions on whole batches mean what the reference says of each event."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.kernel.building import EventRow, build_batch
from services.kernel.columns import EventBatch
from services.kernel.expressions import Compare, Expression, Operator, Property

from . import reference
from .strategies import CONSTANTS, SCALARS, X, compares, events, filters


def matching(condition: Expression, log: list[EventRow]) -> list[bool]:
    """The engine's answer for each event."""
    answer: list[bool] = condition.evaluate(EventBatch(build_batch(log))).tolist()
    return answer


def with_text(text: str) -> EventRow:
    """An event whose x is a text."""
    return EventRow("1", "e", 0, 0, {"user": "ada"}, properties={"x": text})


@given(condition=filters(), log=st.lists(events(), min_size=1, max_size=12))
def test_a_condition_holds_for_the_same_events_as_in_the_reference(condition: Expression, log: list[EventRow]) -> None:
    assert matching(condition, log) == [reference.matches(event, condition) for event in log]


@pytest.mark.parametrize("operator", ["=", "!=", "<", ">", "<=", ">=", "in", "like"])
def test_every_operator_with_every_constant_means_the_same_for_every_value(operator: Operator) -> None:
    log = [EventRow(str(i), "e", 0, 0, {"user": "ada"}, properties={"x": x}) for i, x in enumerate(SCALARS)]
    for constant in CONSTANTS:
        condition = Compare(X, operator, (constant,))
        assert matching(condition, log) == [reference.matches(event, condition) for event in log], constant


@given(condition=compares(), log=st.lists(events(), min_size=2, max_size=8))
def test_a_condition_does_not_depend_on_the_other_events_of_the_batch(condition: Compare, log: list[EventRow]) -> None:
    assert matching(condition, log) == [matching(condition, [event])[0] for event in log]


@given(text=st.text("ab%_\\\n", max_size=8), pattern=st.text("ab%_\\", max_size=8))
@example(text="\\", pattern="\\")
@example(text="a", pattern="a\\")
@example(text="", pattern="%%")
def test_like_agrees_with_its_slow_twin(text: str, pattern: str) -> None:
    assert matching(Compare(X, "like", (pattern,)), [with_text(text)]) == [reference.like(text, pattern)]


def test_like_takes_no_more_than_a_moment_whatever_the_pattern() -> None:
    begin = time.process_time()
    assert matching(Compare(X, "like", ("%a" * 20 + "%b",)), [with_text("a" * 5_000)]) == [False]
    assert time.process_time() - begin < 2


def test_nulls_are_seen_only_by_the_null_tests() -> None:
    log = [EventRow("1", "e", 0, 0, {"user": "ada"}, properties={"x": x}) for x in (None, 1, "1", ["1"])]
    log.append(EventRow("2", "e", 0, 0, {"user": "ada"}))
    assert matching(Compare(X, "is_null"), log) == [True, False, False, False, True]
    assert matching(Compare(X, "is_not_null"), log) == [False, True, True, True, False]
    assert matching(Compare(X, "!=", (1,)), log)[0] is False
    assert matching(Compare(X, "!=", (1,)), log)[-1] is False


def test_a_property_that_no_event_has_is_null_everywhere() -> None:
    log = [EventRow("1", "e", 0, 0, {"user": "ada"})]
    nowhere = Property("entity", "a.b", "v", "n", 1, 3)
    assert matching(Compare(nowhere, "is_null"), log) == [True]
    assert matching(Compare(nowhere, "!=", ("x",)), log) == [False]


def test_numbers_compare_exactly_beyond_the_doubles_precision() -> None:
    log = [EventRow(str(x), "e", 0, 0, {"user": "ada"}, properties={"x": x}) for x in (2**53, 2**53 + 1, 2.0**53)]
    assert matching(Compare(X, "=", (2.0**53,)), log) == [True, False, True]
    assert matching(Compare(X, "=", (2**53 + 1,)), log) == [False, True, False]
    assert matching(Compare(X, ">", (2.0**53,)), log) == [False, True, False]
    assert matching(Compare(X, "!=", (2**53 + 1,)), log) == [True, False, True]
    assert matching(Compare(X, "!=", (2**64,)), log) == [True, True, True]
