"""From readings to declared types: widths, defaults, statuses."""

import math

import pytest

from services.features.definitions import Attribute, CategoryCounts, EventSelector, ValueType
from services.features.profiles import reading_writer, value_writer
from services.features.values import Answer, Status, answer
from services.features.wire import last_event_field
from services.kernel.aggregations import Function
from services.kernel.engine import Reading
from services.kernel.engine import Status as KernelStatus
from services.kernel.expressions import Instant


def attribute(value_type: ValueType, function: Function = Function.LAST, **fields: object) -> Attribute:
    """An attribute of a type."""
    return Attribute("a", value_type, (EventSelector(name="e"),), function, **fields)  # type: ignore[arg-type]


def present(value: object) -> Reading:
    """A reading with a value."""
    return Reading(value, KernelStatus.PRESENT, 5)  # type: ignore[arg-type]


CASES: list[tuple[Attribute, object, object]] = [
    (attribute(ValueType.INT32), 2**31 - 1, 2**31 - 1),
    (attribute(ValueType.INT32), 2**31, None),
    (attribute(ValueType.INT64, Function.SUM), -(2**63), -(2**63)),
    (attribute(ValueType.INT64, Function.SUM), 2**63, None),
    (attribute(ValueType.FLOAT), 0.1, 0.10000000149011612),
    (attribute(ValueType.FLOAT), 1e39, None),
    (attribute(ValueType.DOUBLE, Function.SUM), math.inf, None),
    (attribute(ValueType.DOUBLE), 0.1, 0.1),
    (attribute(ValueType.BOOL), True, True),
    (attribute(ValueType.STRING), "", ""),
    (attribute(ValueType.TIMESTAMP), 7, Instant(7)),
    (attribute(ValueType.STRING_LIST, Function.UNIQUE_LIST), ["b", "a"], ("b", "a")),
    (attribute(ValueType.INT32, Function.TIME_SINCE_LAST), 61.9, 61),
    (attribute(ValueType.DOUBLE, Function.TIME_SINCE_LAST), 61.9, 61.9),
    (
        attribute(ValueType.CATEGORY_COUNTS, Function.CATEGORY_COUNT),
        {"b": 1, "a": 2},
        CategoryCounts((("a", 2), ("b", 1))),
    ),
    (
        attribute(ValueType.CATEGORY_COUNTS, Function.CATEGORY_COUNT, property_type=ValueType.DOUBLE),
        {10.0: 1, 2.5: 3},
        CategoryCounts((("2.5", 3), ("10", 1))),
    ),
    (
        attribute(ValueType.CATEGORY_COUNTS, Function.CATEGORY_COUNT, property_type=ValueType.BOOL),
        {True: 1, False: 3},
        CategoryCounts((("false", 3), ("true", 1))),
    ),
]


@pytest.mark.parametrize(("declared", "value", "expected"), CASES)
def test_values_take_their_declared_type_or_are_out_of_range(
    declared: Attribute, value: object, expected: object
) -> None:
    found = answer(declared, present(value))
    status = Status.OUT_OF_RANGE if expected is None else Status.PRESENT
    assert found == Answer(expected, status, 5)  # type: ignore[arg-type]
    written = value_writer(declared).write(*found)
    assert reading_writer(declared, last_event_field)(present(value)) == written


@pytest.mark.parametrize(
    "status", [KernelStatus.NEVER_SEEN, KernelStatus.EMPTY_WINDOW, KernelStatus.NULL, KernelStatus.EXPIRED]
)
def test_a_default_stands_in_for_a_missing_value_and_the_status_still_says_why(status: KernelStatus) -> None:
    reading = Reading(None, status, None)
    assert answer(attribute(ValueType.INT32, default_value=0), reading) == Answer(0, Status[status.name])
    assert answer(attribute(ValueType.INT32), reading) == Answer(None, Status[status.name])


def test_only_a_truncated_window_says_how_much_of_it_is_covered() -> None:
    declared = attribute(ValueType.INT32)
    assert answer(declared, Reading(1, KernelStatus.PRESENT, 5)).covered_fraction == 0
    assert answer(declared, Reading(1, KernelStatus.LEFT_TRUNCATED, 5, 0.25)).covered_fraction == 0.25
