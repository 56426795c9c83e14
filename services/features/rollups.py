"""Roll-ups: values of a profile over the profiles that refer to it now, such as those of an account over its users."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from services.features.definitions import (
    IDENTIFIER,
    GroupReference,
    Problem,
    Value,
    ValueType,
    suggestion,
)
from services.features.properties import PROPERTY_ID, PropertyType, parse_property_name

MAX_ROLLUPS = 200
"""Of one attribute key."""
_INT64 = 2**63


class RollupFunction(StrEnum):
    """How values of several profiles become one."""

    SUM = "sum"
    MIN = "min"
    MAX = "max"
    MEAN = "mean"
    COUNT = "count"
    COUNT_DISTINCT = "count_distinct"


@dataclass(frozen=True, slots=True)
class GroupAttribute:
    """An attribute of a group; version 0 is the latest published one."""

    group: GroupReference
    attribute: str


@dataclass(frozen=True, slots=True)
class PropertyOf:
    """A property of the referring profile."""

    property_id: str


Source = GroupAttribute | PropertyOf | None
"""What is rolled up; None counts profiles."""


@dataclass(frozen=True, slots=True)
class RollupDefinition:
    """The declaration of a roll-up."""

    attribute_key: str
    """Of the profiles that have it."""
    rollup_id: str
    reference: str
    """The resource name of the property that refers to them."""
    attribute: str
    """What is rolled up, as text; empty counts profiles."""
    function: RollupFunction | None
    description: str = ""

    @property
    def name(self) -> str:
        """The resource name."""
        return f"attributeKeys/{self.attribute_key}/rollups/{self.rollup_id}"

    @property
    def referring(self) -> tuple[str, str]:
        """The attribute key of the profiles that refer, and the id of the property by which they do."""
        parsed = parse_property_name(self.reference)
        assert parsed is not None, "validated before"
        return parsed


def parse_rollup_name(name: str) -> tuple[str, str] | None:
    """Attribute key and id of a resource name, or None when it is not one."""
    match = re.fullmatch(rf"attributeKeys/({IDENTIFIER.pattern})/rollups/({IDENTIFIER.pattern})", name)
    return (match[1], match[2]) if match else None


def parse_source(text: str) -> Source:
    """What is rolled up; raises ValueError for a text of neither form."""
    if not text:
        return None
    if text.startswith("properties."):
        if not PROPERTY_ID.fullmatch(text.removeprefix("properties.")):
            raise ValueError(text)
        return PropertyOf(text.removeprefix("properties."))
    match = re.fullmatch(rf"({IDENTIFIER.pattern})(?:/([1-9][0-9]{{0,8}}))?:(\w{{1,128}})", text, re.ASCII)
    if match is None:
        raise ValueError(text)
    return GroupAttribute(GroupReference(match[1], int(match[2] or 0)), match[3])


def check_rollup(definition: RollupDefinition) -> list[Problem]:
    """The mistakes of a declaration by itself."""
    problems = [
        Problem(field, "is not of the form [a-z][a-z0-9_]{0,63}")
        for field in ("attribute_key", "rollup_id")
        if not IDENTIFIER.fullmatch(getattr(definition, field))
    ]
    if parse_property_name(definition.reference) is None:
        form = "attributeKeys/{attribute_key}/properties/{property}"
        problems.append(Problem("rollup.reference", "is not the name of a property", form))
    if definition.function is None:
        problems.append(Problem("rollup.function", "is missing", suggestion("", RollupFunction)))
    elif not definition.attribute and definition.function is not RollupFunction.COUNT:
        problems.append(Problem("rollup.attribute", f"{definition.function} needs one", "such as web:num_page_views"))
    try:
        parse_source(definition.attribute)
    except ValueError:
        problems.append(
            Problem("rollup.attribute", "is not {group}:{attribute} nor properties.{property}", "such as web:views")
        )
    if len(definition.description) > 1_024:
        problems.append(Problem("rollup.description", "is longer than 1,024 characters", "say less"))
    return problems


NUMBERS = frozenset({ValueType.INT32, ValueType.INT64, ValueType.FLOAT, ValueType.DOUBLE})
INTEGERS = frozenset({ValueType.INT32, ValueType.INT64})
VALUE_TYPES: Mapping[PropertyType, ValueType] = {
    PropertyType.BOOLEAN: ValueType.BOOL,
    PropertyType.NUMERIC: ValueType.DOUBLE,
    PropertyType.STRING: ValueType.STRING,
    PropertyType.DATE: ValueType.TIMESTAMP,
    PropertyType.ARRAY: ValueType.STRING,
    PropertyType.RECORD: ValueType.STRING,
}
"""The type of a property's values as attributes have them; arrays and records count as their canonical text."""


def fits(function: RollupFunction, value_type: ValueType) -> bool:
    """Whether values of a type can be rolled up so."""
    if function in (RollupFunction.SUM, RollupFunction.MEAN):
        return value_type in NUMBERS
    if function in (RollupFunction.MIN, RollupFunction.MAX):
        return value_type in NUMBERS or value_type is ValueType.TIMESTAMP
    return True


def result_type(function: RollupFunction, value_type: ValueType) -> ValueType:
    """The type of the roll-up of such values."""
    if function in (RollupFunction.COUNT, RollupFunction.COUNT_DISTINCT):
        return ValueType.INT64
    if function is RollupFunction.MEAN:
        return ValueType.DOUBLE
    if function is RollupFunction.SUM:
        return ValueType.INT64 if value_type in INTEGERS else ValueType.DOUBLE
    return value_type


class OutOfRangeError(ValueError):
    """The exact value does not fit its type."""


def combine(function: RollupFunction, value_type: ValueType, values: Sequence[Any]) -> Value | None:
    """One value of those that are not null; None of none, but for counts. Raises OutOfRangeError."""
    return _COMBINERS[function](value_type, values)


def _sum(value_type: ValueType, values: Sequence[Any]) -> Value | None:
    if not values:
        return None
    if value_type in INTEGERS:
        total = sum(values)
        if not -_INT64 <= total < _INT64:
            raise OutOfRangeError
        return int(total)
    return _float_sum(values)


def _mean(value_type: ValueType, values: Sequence[Any]) -> Value | None:
    if not values:
        return None
    total = sum(values) if value_type in INTEGERS else _float_sum(values)
    return float(total / len(values))


def _float_sum(values: Sequence[Any]) -> float:
    try:
        return math.fsum(values)
    except OverflowError:
        raise OutOfRangeError from None


def _extreme(choose: Callable[[Sequence[Any]], Any]) -> Callable[[ValueType, Sequence[Any]], Value | None]:
    def extreme(value_type: ValueType, values: Sequence[Any]) -> Value | None:
        if not values:
            return None
        found: Value = choose([each.us for each in values]) if value_type is ValueType.TIMESTAMP else choose(values)
        return type(values[0])(found) if value_type is ValueType.TIMESTAMP else found

    return extreme


_COMBINERS: Mapping[RollupFunction, Callable[[ValueType, Sequence[Any]], Value | None]] = {
    RollupFunction.SUM: _sum,
    RollupFunction.MEAN: _mean,
    RollupFunction.MIN: _extreme(min),
    RollupFunction.MAX: _extreme(max),
    RollupFunction.COUNT: lambda _, values: len(values),
    RollupFunction.COUNT_DISTINCT: lambda _, values: len(set(values)),
}
