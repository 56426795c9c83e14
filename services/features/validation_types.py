"""Which types fit which aggregations, and which values fit which types."""

import math
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from services.features.definitions import Attribute, CategoryCounts, Problem, Value, ValueType
from services.kernel.aggregations import Function
from services.kernel.expressions import Instant

INTEGERS = (ValueType.INT32, ValueType.INT64)
NUMBERS = (*INTEGERS, ValueType.FLOAT, ValueType.DOUBLE)
SCALARS = (ValueType.STRING, *NUMBERS, ValueType.BOOL, ValueType.TIMESTAMP)
LISTS = (ValueType.STRING_LIST, ValueType.INT64_LIST, ValueType.DOUBLE_LIST)

TYPES_OF: Mapping[Function, tuple[ValueType, ...]] = {
    Function.COUNTER: INTEGERS,
    Function.SUM: NUMBERS,
    Function.MIN: (*NUMBERS, ValueType.TIMESTAMP),
    Function.MAX: (*NUMBERS, ValueType.TIMESTAMP),
    Function.MEAN: (ValueType.FLOAT, ValueType.DOUBLE),
    Function.FIRST: SCALARS,
    Function.LAST: SCALARS,
    Function.UNIQUE_LIST: LISTS,
    Function.COUNT_DISTINCT: INTEGERS,
    Function.APPROX_COUNT_DISTINCT: INTEGERS,
    Function.MOST_FREQUENT: SCALARS,
    Function.LEAST_FREQUENT: SCALARS,
    Function.CATEGORY_COUNT: (ValueType.CATEGORY_COUNTS,),
    Function.TIME_SINCE_FIRST: NUMBERS,
    Function.TIME_SINCE_LAST: NUMBERS,
}
"""The types that the value of an attribute may have, by aggregation."""

UNTYPED = (Function.COUNT_DISTINCT, Function.APPROX_COUNT_DISTINCT, Function.CATEGORY_COUNT)
"""Functions whose value does not tell the type of the property: `property_type` does."""

INT_BOUNDS: Mapping[ValueType, tuple[int, int]] = {
    ValueType.INT32: (-(2**31), 2**31 - 1),
    ValueType.INT64: (-(2**63), 2**63 - 1),
}
MAX_ITEMS = 1_000


def check_types(attribute: Attribute, path: str) -> Iterator[Problem]:
    """The mistakes of an attribute's types and default value."""
    function, value_type = attribute.aggregation, attribute.type
    if value_type is None:
        allowed = TYPES_OF[function] if function else tuple(ValueType)
        yield Problem(f"{path}.type", "is missing", "one of " + ", ".join(allowed))
    elif function is not None and value_type not in TYPES_OF[function]:
        yield Problem(
            f"{path}.type", f"`{function}` does not give `{value_type}`", "one of " + ", ".join(TYPES_OF[function])
        )
    if attribute.property_type is not None:
        if function is not None and function not in UNTYPED:
            yield Problem(f"{path}.property_type", "is told by the type of the attribute here", "leave it out")
        elif attribute.property_type not in SCALARS:
            yield Problem(
                f"{path}.property_type",
                f"a property is not `{attribute.property_type}`",
                "one of " + ", ".join(SCALARS),
            )
    if attribute.default_value is not None and value_type is not None:
        mistake = misfit(attribute.default_value, value_type)
        if mistake:
            yield Problem(f"{path}.default_value", mistake, f"give a value of type `{value_type}`")


def misfit(value: Value, value_type: ValueType) -> str:
    """Why a value is not of a type, or an empty text when it is."""
    if isinstance(value, tuple | CategoryCounts):
        return _misfit_collection(value, value_type)
    if value_type in INT_BOUNDS:
        low, high = INT_BOUNDS[value_type]
        if isinstance(value, bool) or not isinstance(value, int):
            return f"{value!r} is not an integer"
        return "" if low <= value <= high else f"{value} does not fit `{value_type}`"
    if value_type in (ValueType.FLOAT, ValueType.DOUBLE):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{value!r} is not a number"
        return "" if to_double(value, value_type) is not None else f"{value} does not fit `{value_type}`"
    kinds: dict[ValueType, type] = {
        ValueType.STRING: str,
        ValueType.BOOL: bool,
        ValueType.TIMESTAMP: Instant,
    }
    kind = kinds.get(value_type)
    return "" if kind is not None and isinstance(value, kind) else f"{value!r} is not of this type"


def to_double(value: int | float, value_type: ValueType) -> float | None:
    """The number as a double or a single, rounded to the nearest; None when it is too large, or not a number."""
    try:
        number = float(value)
        if value_type is ValueType.FLOAT:
            (number,) = struct.unpack("<f", struct.pack("<f", number))
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _misfit_collection(value: tuple[Any, ...] | CategoryCounts, value_type: ValueType) -> str:
    if isinstance(value, CategoryCounts):
        if value_type is not ValueType.CATEGORY_COUNTS:
            return "counts by category are not of this type"
        if any(count < 1 or count > 2**63 - 1 for _, count in value.entries):
            return "counts are at least 1"
        return "" if len(value.entries) <= MAX_ITEMS else f"has more than {MAX_ITEMS} entries"
    elements = {
        ValueType.STRING_LIST: ValueType.STRING,
        ValueType.INT64_LIST: ValueType.INT64,
        ValueType.DOUBLE_LIST: ValueType.DOUBLE,
    }
    element_type = elements.get(value_type)
    if element_type is None:
        return "a list is not of this type"
    if len(value) > MAX_ITEMS:
        return f"has more than {MAX_ITEMS} elements"
    return next((mistake for mistake in (misfit(each, element_type) for each in value) if mistake), "")
