"""From what the kernel read to the value that an attribute declares: width, default, status."""

from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from services.features.definitions import Attribute, CategoryCounts, Value, ValueType
from services.features.durations import format_instant
from services.features.validation_types import INT_BOUNDS, to_double
from services.kernel.aggregations import Function
from services.kernel.expressions import Instant


class Status(IntEnum):
    """How a value came about: the numbers are those of `ValueStatus` on the wire."""

    PRESENT = 1
    EMPTY_WINDOW = 2
    NEVER_SEEN = 3
    NULL = 4
    EXPIRED = 5
    BACKFILLING = 6
    LEFT_TRUNCATED = 7
    TRUNCATED = 8
    WRONG_KEY = 9
    OUT_OF_RANGE = 10


class Answer(NamedTuple):
    """The value of one attribute for one key."""

    value: Value | None
    status: Status
    last_event_us: int | None = None
    covered_fraction: float = 0.0


Converter = Callable[[Any], Value | None]
"""From a value of the kernel, never None, to the declared type; None when it does not fit."""

STATUSES: Mapping[str, Status] = {status.name: status for status in Status}
"""By the names that the kernel uses too."""


def answer(attribute: Attribute, reading: Any) -> Answer:
    """The attribute's value from one reading of the kernel. The attribute must be valid."""
    status = STATUSES[reading.status.name]
    fraction = reading.covered_fraction if status is Status.LEFT_TRUNCATED else 0.0
    if reading.value is None:
        return Answer(attribute.default_value, status, reading.last_event_us, fraction)
    value = converter(attribute)(reading.value)
    if value is None:
        return Answer(None, Status.OUT_OF_RANGE, reading.last_event_us)
    return Answer(value, status, reading.last_event_us, fraction)


def converter(attribute: Attribute) -> Converter:
    """How the kernel's values become those of a valid attribute."""
    value_type, function = attribute.type, attribute.aggregation
    assert value_type is not None, "validated before"
    if value_type in INT_BOUNDS:
        low, high = INT_BOUNDS[value_type]
        if function in (Function.TIME_SINCE_FIRST, Function.TIME_SINCE_LAST):
            return lambda seconds: whole if low <= (whole := int(seconds // 1)) <= high else None
        return lambda number: number if low <= number <= high else None
    if value_type in (ValueType.FLOAT, ValueType.DOUBLE):
        return lambda number: to_double(number, value_type)
    if value_type is ValueType.TIMESTAMP:
        return Instant
    if value_type in (ValueType.STRING_LIST, ValueType.INT64_LIST, ValueType.DOUBLE_LIST):
        return tuple
    if value_type is ValueType.CATEGORY_COUNTS:
        instants = attribute.property_type is ValueType.TIMESTAMP
        return lambda counts: _category_counts(counts, instants)
    return _same


def _same(value: Value) -> Value:
    return value


def _category_counts(counts: Mapping[Any, int], instants: bool) -> CategoryCounts:
    return CategoryCounts(
        tuple((format_instant(key) if instants else category_text(key), counts[key]) for key in sorted(counts))
    )


def category_text(category: str | bool | int | float) -> str:
    """A category as text: numbers in their shortest form, booleans as true and false."""
    if isinstance(category, str):
        return category
    if isinstance(category, bool):
        return "true" if category else "false"
    if isinstance(category, float) and category.is_integer() and abs(category) < 1e16:
        return str(int(category))
    return repr(category)
