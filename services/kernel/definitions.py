"""Aggregations as JSON values and back: what a snapshot says of itself."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from services.kernel.aggregations import Aggregation, Function, TermType
from services.kernel.expressions import (
    AllOf,
    AnyOf,
    Compare,
    EventTypeIs,
    Everything,
    Instant,
    OccurredWithin,
    Property,
)
from services.kernel.windows import CalendarWindow, Lifetime, Rolling

_TYPES: dict[str, Callable[..., Any]] = {
    kind.__name__: kind
    for kind in (
        Aggregation,
        AllOf,
        AnyOf,
        CalendarWindow,
        Compare,
        EventTypeIs,
        Everything,
        Instant,
        Lifetime,
        OccurredWithin,
        Property,
        Rolling,
    )
}


def to_json(value: Any) -> Any:
    """A definition as values that JSON can hold: value objects as {"is": name, field: value, …}."""
    if is_dataclass(value):
        return {"is": type(value).__name__} | {f.name: to_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, (Function, TermType)):
        return {"is": type(value).__name__, "name": value.value}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    return value


def from_json(value: Any) -> Any:
    """The definition back. Raises KeyError, TypeError or ValueError on anything that `to_json` does not give."""
    if isinstance(value, list):
        return tuple(from_json(item) for item in value)
    if isinstance(value, dict):
        content = {name: from_json(item) for name, item in value.items() if name != "is"}
        if value["is"] == "Function":
            return Function(content["name"])
        if value["is"] == "TermType":
            return TermType(content["name"])
        return _TYPES[value["is"]](**content)
    return value
