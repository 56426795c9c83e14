"""What a definition looks at: kinds of events, places in them, conditions on them. Values, as in the Signals SDK."""

# ruff: noqa: A002  (`property`, `all` and `any` are the SDK's names)

import difflib
import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypeVar

from inkling.values import PropertyValue

Document = dict[str, Any]
"""A JSON object."""

T = TypeVar("T")


def hinted(cls: type[T]) -> type[T]:
    """Makes a dataclass refuse an unknown argument with a TypeError that names the nearest known one."""
    known = [each.name for each in fields(cls) if each.init]  # type: ignore[arg-type]
    original = cls.__init__

    @functools.wraps(original)
    def checked(self: object, *args: object, **kwargs: object) -> None:
        for name in kwargs:
            if name not in known:
                nearest = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {nearest[0]}?" if nearest else f"it takes {', '.join(known)}"
                raise TypeError(f"{cls.__name__} has no argument {name}: {hint}")
        original(self, *args, **kwargs)

    setattr(cls, "__init__", checked)  # noqa: B010
    return cls


@hinted
@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Which events: given parts equal, absent ones match all."""

    vendor: str | None = None
    name: str | None = None
    version: str | None = None

    def to_signals(self) -> Document:
        """Its JSON object."""
        return present(name=self.name, vendor=self.vendor, version=self.version)


@hinted
@dataclass(frozen=True, slots=True)
class AtomicProperty:
    """An atomic property of an event, such as app_id."""

    name: str

    def to_signals(self) -> Document:
        """Its JSON object."""
        return {"type": "atomic", "name": self.name}


@hinted
@dataclass(frozen=True, slots=True, kw_only=True)
class EventProperty:
    """A property of the own data of events of one type, by path."""

    vendor: str
    name: str
    major_version: int
    path: str

    def to_signals(self) -> Document:
        """Its JSON object."""
        return {
            "type": "event",
            "vendor": self.vendor,
            "name": self.name,
            "major_version": self.major_version,
            "path": self.path,
        }


@hinted
@dataclass(frozen=True, slots=True, kw_only=True)
class EntityProperty:
    """A property of an entity attached to an event, by path; `index` says which, when there are several."""

    vendor: str
    name: str
    major_version: int
    path: str
    index: int = 0

    def to_signals(self) -> Document:
        """Its JSON object."""
        return {
            "type": "entity",
            "vendor": self.vendor,
            "name": self.name,
            "major_version": self.major_version,
            "path": self.path,
            "index": self.index,
        }


Property = AtomicProperty | EventProperty | EntityProperty


@hinted
@dataclass(frozen=True, slots=True)
class Criterion:
    """One comparison of a property; made by its class methods."""

    property: Property
    operator: str
    value: PropertyValue | Sequence[PropertyValue] = None

    @classmethod
    def eq(cls, property: Property, value: PropertyValue) -> "Criterion":
        """The property equals the value."""
        return cls(property, "=", value)

    @classmethod
    def neq(cls, property: Property, value: PropertyValue) -> "Criterion":
        """The property is there and does not equal the value."""
        return cls(property, "!=", value)

    @classmethod
    def gt(cls, property: Property, value: PropertyValue) -> "Criterion":
        """The property is greater than the value."""
        return cls(property, ">", value)

    @classmethod
    def gte(cls, property: Property, value: PropertyValue) -> "Criterion":
        """The property is greater than the value, or equal."""
        return cls(property, ">=", value)

    @classmethod
    def lt(cls, property: Property, value: PropertyValue) -> "Criterion":
        """The property is less than the value."""
        return cls(property, "<", value)

    @classmethod
    def lte(cls, property: Property, value: PropertyValue) -> "Criterion":
        """The property is less than the value, or equal."""
        return cls(property, "<=", value)

    @classmethod
    def like(cls, property: Property, value: str) -> "Criterion":
        r"""The whole text matches SQL's LIKE: `%` any run, `_` one character, `\` escapes; case-sensitive."""
        return cls(property, "like", value)

    @classmethod
    def in_list(cls, property: Property, values: Sequence[PropertyValue]) -> "Criterion":
        """The property equals one of the values."""
        return cls(property, "in", list(values))

    @classmethod
    def is_null(cls, property: Property) -> "Criterion":
        """The property is missing."""
        return cls(property, "is null")

    @classmethod
    def is_not_null(cls, property: Property) -> "Criterion":
        """The property is there."""
        return cls(property, "is not null")

    def to_signals(self) -> Document:
        """Its JSON object."""
        return present(property=self.property.to_signals(), operator=self.operator, value=operand(self.value))


@hinted
@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """All of some criteria, or any of them."""

    all: Sequence[Criterion] | None = None
    any: Sequence[Criterion] | None = None

    def to_signals(self) -> Document:
        """Its JSON object."""
        return present(
            all=None if self.all is None else [each.to_signals() for each in self.all],
            any=None if self.any is None else [each.to_signals() for each in self.any],
        )


def present(**members: Any) -> Document:
    """A JSON object without the members that are None."""
    return {name: value for name, value in members.items() if value is not None}


def plain(value: Any) -> Any:
    """A value as JSON has it: instants in ISO 8601."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def operand(value: Any) -> Any:
    """A value to compare with as JSON has it: an instant is an object, to differ from text."""
    if isinstance(value, datetime):
        return {"instant": value.isoformat()}
    if isinstance(value, list | tuple):
        return [operand(each) for each in value]
    return value
