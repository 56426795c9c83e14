"""Attributes, groups and services, defined in Python with the names and arguments of the Signals SDK (004).

    page_view = Event(vendor="com.snowplowanalytics.snowplow", name="page_view", version="1-0-0")
    views = Attribute(name="views", type="int32", events=[page_view], aggregation="counter", period=timedelta(days=7))
    group = StreamAttributeGroup(
        name="web", version=1, attribute_key=domain_userid, attributes=[views], owner="me@example.org"
    )
    service = Service(name="web_service", attribute_groups=[group], owner="me@example.org")

These are values: nothing is checked against a server before `plan` or `publish`. `to_signals` gives the JSON document
that the SDK publishes; an argument that does not exist is refused with the nearest one that does.
"""

# ruff: noqa: A002  (`property`, `all` and `any` are the SDK's names)

import difflib
import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

from inkling.values import AttributeValue, PropertyValue

Aggregation = Literal[
    "counter",
    "sum",
    "min",
    "max",
    "mean",
    "first",
    "last",
    "unique_list",
    "count_distinct",
    "approx_count_distinct",
    "most_frequent",
    "least_frequent",
    "category_count",
    "time_since_first",
    "time_since_last",
]

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
        return present(property=self.property.to_signals(), operator=self.operator, value=plain(self.value))


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


@hinted
@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One thing known about a key: an aggregation over its events.

    Without `period` it looks at the whole life; `ttl` (only then) lets the value expire. `limit` caps a unique_list or
    category_count.
    """

    name: str
    type: str
    events: Sequence[Event]
    aggregation: Aggregation
    property: Property | None = None
    criteria: Criteria | None = None
    period: timedelta | None = None
    description: str | None = None
    default_value: AttributeValue = None
    ttl: timedelta | None = None
    limit: int | None = None

    def to_signals(self) -> Document:
        """Its JSON object, durations in ISO 8601."""
        return present(
            name=self.name,
            description=self.description,
            type=self.type,
            events=[each.to_signals() for each in self.events],
            aggregation=self.aggregation,
            property=None if self.property is None else self.property.to_signals(),
            criteria=None if self.criteria is None else self.criteria.to_signals(),
            period=None if self.period is None else iso_duration(self.period),
            default_value=plain(self.default_value),
            ttl=None if self.ttl is None else iso_duration(self.ttl),
            limit=self.limit,
        )


@hinted
@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeKey:
    """The kind of thing that attributes describe. `key` is the key of the events, by default the name."""

    name: str
    description: str | None = None
    key: str | None = None
    is_published: bool = False

    def to_signals(self) -> Document:
        """Its JSON object."""
        return present(
            name=self.name, description=self.description, key=self.key or self.name, is_published=self.is_published
        )


domain_userid = AttributeKey(name="domain_userid", description="The domain user ID for the user.")
domain_sessionid = AttributeKey(name="domain_sessionid", description="The domain session ID for the session.")
network_userid = AttributeKey(name="network_userid", description="The network user ID for the user.")
user_id = AttributeKey(name="user_id", description="The user ID for the user.")


@hinted
@dataclass(frozen=True, slots=True, kw_only=True)
class StreamAttributeGroup:
    """A versioned set of attributes of one attribute key; immutable once published."""

    name: str
    version: int
    attribute_key: AttributeKey
    attributes: Sequence[Attribute]
    owner: str
    description: str | None = None
    online: bool = True
    offline: bool = False
    is_published: bool = False

    def to_signals(self) -> Document:
        """The JSON document that Signals has for it."""
        return present(
            name=self.name,
            version=self.version,
            description=self.description,
            attribute_key=self.attribute_key.to_signals(),
            online=self.online,
            offline=self.offline,
            owner=self.owner,
            attributes=[each.to_signals() for each in self.attributes],
            is_published=self.is_published,
        )

    def restricted_to_apps(self, app_ids: Sequence[str]) -> "StreamAttributeGroup":
        """The same group over the events of some applications only; ValueError where criteria say `any`."""
        wanted = Criterion.in_list(AtomicProperty("app_id"), app_ids)
        return replace(self, attributes=[restrict(each, wanted) for each in self.attributes])


@hinted
@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A named set of groups that are read together."""

    name: str
    attribute_groups: Sequence[StreamAttributeGroup]
    owner: str
    description: str | None = None
    is_published: bool = False

    def to_signals(self) -> Document:
        """The JSON document that Signals has for it."""
        return present(
            name=self.name,
            description=self.description,
            attribute_groups=[{"name": each.name, "version": each.version} for each in self.attribute_groups],
            owner=self.owner,
            is_published=self.is_published,
        )


Definition = StreamAttributeGroup | Service
"""What can be published."""


def restrict(attribute: Attribute, criterion: Criterion) -> Attribute:
    """The attribute with one more criterion that must hold."""
    criteria = attribute.criteria or Criteria()
    if criteria.any and len(criteria.any) > 1:
        raise ValueError(f"{attribute.name} has `any` criteria: another one that must hold cannot be added")
    return replace(attribute, criteria=Criteria(all=[*(criteria.all or ()), *(criteria.any or ()), criterion]))


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


def iso_duration(span: timedelta) -> str:
    """A positive span in ISO 8601, in days, hours, minutes and seconds (P7D, P1DT12H): a year has no fixed length."""
    if span <= timedelta(0):
        raise ValueError(f"a period is longer than nothing, not {span}")
    hours, rest = divmod(span.seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    fraction = f".{span.microseconds:06d}".rstrip("0") if span.microseconds else ""
    parts = [(hours, "H"), (minutes, "M")]
    time = "".join(f"{amount}{unit}" for amount, unit in parts if amount)
    time += f"{seconds}{fraction}S" if seconds or fraction else ""
    return f"P{f'{span.days}D' if span.days else ''}{'T' + time if time else ''}"
