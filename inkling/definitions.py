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

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from inkling.selectors import AtomicProperty, Criteria, Criterion, Document, Event, Property, hinted, plain, present
from inkling.values import AttributeValue

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


@hinted
@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRange:
    """An absolute range of event time: `start` inclusive, `end` exclusive, either may be open."""

    start: datetime | None = None
    end: datetime | None = None

    def to_signals(self) -> Document:
        """Its JSON object."""
        return present(start=plain(self.start), end=plain(self.end))


@hinted
@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarPeriod:
    """Events after a calendar cutoff: years and months back first, then days of 24 hours, in UTC."""

    years: int = 0
    months: int = 0
    days: int = 0

    def to_signals(self) -> Document:
        """Its JSON object."""
        return {"years": self.years, "months": self.months, "days": self.days}


@hinted
@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One thing known about a key: an aggregation over its events.

    Without `period`, `range` and `calendar_period` (at most one) it looks at the whole life; `ttl` (only then) lets the
    value expire. `limit` caps a unique_list or category_count. `property_type` says the type of the property where the
    value's type does not, as with count_distinct; by default it is a string.
    """

    name: str
    type: str
    events: Sequence[Event]
    aggregation: Aggregation
    property: Property | None = None
    criteria: Criteria | None = None
    period: timedelta | None = None
    range: TimeRange | None = None
    calendar_period: CalendarPeriod | None = None
    property_type: str | None = None
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
            range=None if self.range is None else self.range.to_signals(),
            calendar_period=None if self.calendar_period is None else self.calendar_period.to_signals(),
            property_type=self.property_type,
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
