"""One condition, two evaluators: what they answer."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from services.features.definitions import ValueType
from services.features.segments.checking import check
from services.features.segments.evaluate_many import NEVER_US, ManyProfiles
from services.features.segments.evaluate_one import COMPARE, OneProfile
from services.features.segments.language import ConditionParser
from services.features.segments.schema import Elapsed, Field, Kind, Schema
from services.features.validation_types import INT_BOUNDS, to_double
from tests.features.segments.conditions import (
    DAY_US,
    FIELDS,
    NOW_US,
    SCHEMA,
    TEXT_CONDITIONS,
    columns,
    profiles,
)

PARSER = ConditionParser()


@settings(max_examples=200, deadline=None)
@given(TEXT_CONDITIONS, st.data())
def test_both_evaluators_give_the_same_answers_and_the_same_next_changes(text: str, data: st.DataObject) -> None:
    condition = check(PARSER, text, SCHEMA)
    rows = data.draw(profiles(condition.fields))
    one, many = OneProfile(condition), ManyProfiles(condition)
    arrays = columns(condition.fields, rows)
    assert many.holds(arrays, len(rows), NOW_US).tolist() == [one.holds(row, NOW_US) for row in rows]
    nexts = [one.next_change_us(row, NOW_US) for row in rows]
    found = many.next_change_us(arrays, len(rows), NOW_US).tolist()
    assert found == [NEVER_US if each is None else each for each in nexts]


@settings(max_examples=100, deadline=None)
@given(TEXT_CONDITIONS, st.data())
def test_between_two_changes_time_changes_nothing(text: str, data: st.DataObject) -> None:
    condition = check(PARSER, text, SCHEMA)
    one = OneProfile(condition)
    for row in data.draw(profiles(condition.fields)):
        change = one.next_change_us(row, NOW_US)
        last = NOW_US + 400 * DAY_US if change is None else change - 1
        before = one.holds(row, NOW_US)
        for instant in (NOW_US + 1, (NOW_US + last) // 2, last):
            assert instant <= NOW_US or instant > last or one.holds(row, instant) == before


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("plan = 'pro'", {"plan": "pro"}, True),
        ("plan = 'pro'", {"plan": None}, False),
        ("plan != 'pro'", {"plan": None}, False),
        ("not plan = 'pro'", {"plan": None}, True),
        ("not plan != 'pro'", {"plan": None}, True),
        ("plan not in ('pro')", {"plan": None}, False),
        ("not plan in ('pro')", {"plan": None}, True),
        ("plan not like 'p%'", {"plan": None}, False),
        ("web.views not between 1 and 2", {"views": None}, False),
        ("web.views not between 1 and 2", {"views": 3}, True),
        ("pages not contains 'x'", {"pages": None}, False),
        ("pages not contains 'x'", {"pages": ("y",)}, True),
        ("'x' in pages", {"pages": ("y", "x")}, True),
        ("'GB' in by_country", {"by_country": None}, False),
        ("web.views > 2.5", {"views": 3}, True),
        ("web.views >= 2.5", {"views": 2}, False),
        ("web.views < 2.5", {"views": 2}, True),
        ("web.views <= 2.5", {"views": 3}, False),
        ("web.views = 2.5", {"views": 2}, False),
        ("web.views != 2.5", {"views": 2}, True),
        ("web.views != 2.5", {"views": None}, False),
        ("web.views < 9007199254740993", {"views": 2**53}, True),
        ("churned or web.views = 1", {"churned": None, "views": 1}, True),
        ("plan = 'a' or plan = 'b' and web.views = 1", {"plan": "a", "views": 0}, True),
        ("last_seen > now - 7 days", {"last_seen": NOW_US - 7 * DAY_US + 1}, True),
        ("last_seen > now - 7 days", {"last_seen": NOW_US - 7 * DAY_US}, False),
        ("last_seen >= '2023-11-14'", {"last_seen": 1_699_920_000_000_000}, True),
        ("1 in tags", {"tags": "[true, 2]"}, False),
        ("true in tags", {"tags": "[true, 2]"}, True),
        ("1.0 in tags", {"tags": "[1]"}, True),
        ("plan IS Null", {"plan": None}, True),
        ("idle < 10", {"idle": NOW_US - 9_999_999}, True),
        ("idle < 10", {"idle": NOW_US - 10_000_000}, False),
        ("idle <= 10", {"idle": NOW_US - 10_999_999}, True),
        ("idle < 10", {"idle": None}, False),
        ("idle_exactly = 5", {"idle_exactly": None}, True),
        ("idle_exactly is null", {"idle_exactly": None}, False),
    ],
)
def test_conditions_mean_what_the_semantics_say(text: str, values: dict[str, Any], expected: bool) -> None:
    condition = check(PARSER, text, SCHEMA)
    row = tuple(values[field.name] for field in condition.fields)
    assert OneProfile(condition).holds(row, NOW_US) is expected
    assert ManyProfiles(condition).holds(columns(condition.fields, [row]), 1, NOW_US).tolist() == [expected]


LITERALS = st.sampled_from([-1, 0, 1, 2.5, 3600, 86399.99, 0.1, 1e7, 2**31 - 1, 2**31, 1e300])


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([ValueType.INT32, ValueType.INT64, ValueType.FLOAT, ValueType.DOUBLE]),
    st.sampled_from(sorted(COMPARE)),
    LITERALS,
    st.integers(-2, 2),
    st.none() | st.sampled_from([0.0, 2.0, 5000.0]),
)
def test_seconds_since_compare_as_their_rounded_values_do(
    value_type: ValueType, comparator: Any, literal: float, step: int, default: float | None
) -> None:
    kind = Kind.INTEGER if value_type in INT_BOUNDS else Kind.NUMBER
    schema = Schema("user_id", [Field("web", "idle", kind, Elapsed(value_type, default))])
    condition = check(PARSER, f"idle {comparator} {literal!r}", schema)
    null = check(PARSER, "idle is null", schema)
    # Around the span at which the comparison turns.
    for span in {max(0, min(2**55, round(literal * 1e6)) + step), 123_456_789, 0, 2**31 * 1_000_000 + step}:
        value: float | None
        if value_type in INT_BOUNDS:
            value = int(span / 1e6 // 1)
            value = value if value <= INT_BOUNDS[value_type][1] else None
        else:
            value = to_double(span / 1e6, value_type)
        expected = value is not None and COMPARE[comparator](value, literal)
        assert OneProfile(condition).holds((NOW_US - span,), NOW_US) == expected
        assert OneProfile(null).holds((NOW_US - span,), NOW_US) == (value is None)
    without = default is not None and COMPARE[comparator](default, literal)
    assert OneProfile(condition).holds((None,), NOW_US) == without
    assert OneProfile(null).holds((None,), NOW_US) == (default is None)


def test_every_kind_of_field_is_in_the_generated_conditions() -> None:
    assert {field.kind for field in FIELDS} == set(Kind)
