"""What people define: attributes, groups of them, and services that read groups together. No protobuf, no SQL.

A definition read from outside may be incomplete: parts that can be wrong are optional here, and `validation` says what
is missing. Times and durations are int64 microseconds.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum

from services.kernel.aggregations import Function
from services.kernel.expressions import Instant

IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,63}")


class ValueType(StrEnum):
    """The type of an attribute's value; the names are those of Signals."""

    STRING = "string"
    INT32 = "int32"
    INT64 = "int64"
    FLOAT = "float"
    DOUBLE = "double"
    BOOL = "bool"
    TIMESTAMP = "unix_timestamp"
    STRING_LIST = "string_list"
    INT64_LIST = "int64_list"
    DOUBLE_LIST = "double_list"
    CATEGORY_COUNTS = "dict"


class Operator(StrEnum):
    """How a criterion compares; the names are those of Signals and of the kernel."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    GREATER = ">"
    LESS_OR_EQUAL = "<="
    GREATER_OR_EQUAL = ">="
    LIKE = "like"
    IN = "in"
    IS_NULL = "is_null"
    IS_NOT_NULL = "is_not_null"


class Combination(StrEnum):
    """How criteria combine."""

    ALL = "all"
    ANY = "any"


class GroupState(StrEnum):
    """Where a version of a group is in its life."""

    DRAFT = "draft"
    BACKFILLING = "backfilling"
    SERVING = "serving"


@dataclass(frozen=True, slots=True)
class CategoryCounts:
    """Counts by category, the least category first."""

    entries: tuple[tuple[str, int], ...] = ()


Scalar = str | bool | int | float | Instant
Value = Scalar | tuple[str, ...] | tuple[int, ...] | tuple[float, ...] | CategoryCounts


@dataclass(frozen=True, slots=True)
class EventSelector:
    """Which events: given parts equal, absent ones match all."""

    vendor: str | None = None
    name: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class AtomicProperty:
    """A property beside the event's own data."""

    name: str


@dataclass(frozen=True, slots=True)
class EventProperty:
    """A property of the event's own data; null for events of another vendor, name or major version."""

    vendor: str
    name: str
    major_version: int
    path: str


@dataclass(frozen=True, slots=True)
class EntityProperty:
    """A property of the `index`-th entity of a kind; null when the event has no such entity."""

    vendor: str
    name: str
    major_version: int
    index: int
    path: str


Property = AtomicProperty | EventProperty | EntityProperty


@dataclass(frozen=True, slots=True)
class Criterion:
    """One comparison; several values for IN, none for the null tests."""

    property: Property | None
    operator: Operator | None
    values: tuple[Scalar, ...] = ()


@dataclass(frozen=True, slots=True)
class Criteria:
    """A condition on events."""

    combination: Combination = Combination.ALL
    criteria: tuple[Criterion, ...] = ()


@dataclass(frozen=True, slots=True)
class TimeRange:
    """An absolute range of event time, [start, end); None is open."""

    start_us: int | None = None
    end_us: int | None = None


@dataclass(frozen=True, slots=True)
class CalendarPeriod:
    """So many calendar years, months and days of 24 hours back."""

    years: int = 0
    months: int = 0
    days: int = 0


@dataclass(frozen=True, slots=True)
class Attribute:
    """One thing known about a key: an aggregation over its events."""

    name: str
    type: ValueType | None = None
    events: tuple[EventSelector, ...] = ()
    aggregation: Function | None = None
    property: Property | None = None
    criteria: Criteria | None = None
    period_us: int | None = None
    range: TimeRange | None = None
    calendar_period: CalendarPeriod | None = None
    ttl_us: int | None = None
    default_value: Value | None = None
    limit: int = 0
    property_type: ValueType | None = None
    """The type of the property where the attribute's own does not tell it: counts of distinct things."""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a Signals document says besides, kept so that its export is the document again."""

    key_column: str | None = None
    key_description: str | None = None
    key_owner: str | None = None
    key_is_published: bool | None = None
    key_is_object: bool = True
    online: bool = True
    offline: bool = False
    is_published: bool | None = None


@dataclass(frozen=True, slots=True)
class AttributeGroup:
    """One version of a set of attributes of one attribute key."""

    group_id: str
    version: int
    attribute_key: str
    attributes: tuple[Attribute, ...] = ()
    owner: str = ""
    description: str = ""
    origin: Origin = field(default_factory=Origin)

    @property
    def name(self) -> str:
        """The resource name."""
        return group_name(self.group_id, self.version)


@dataclass(frozen=True, slots=True)
class GroupReference:
    """A version of a group, or the latest published one when `version` is 0."""

    group_id: str
    version: int = 0

    @property
    def name(self) -> str:
        """The resource name, without a version for the latest."""
        return group_name(self.group_id, self.version)


@dataclass(frozen=True, slots=True)
class FeatureService:
    """A named set of groups that are read together."""

    service_id: str
    groups: tuple[GroupReference, ...] = ()
    owner: str = ""
    description: str = ""
    origin: Origin = field(default_factory=Origin)

    @property
    def name(self) -> str:
        """The resource name."""
        return f"featureServices/{self.service_id}"


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake in a definition: where, what, and what to do."""

    field: str
    description: str
    hint: str = ""


def group_name(group_id: str, version: int = 0) -> str:
    """The resource name of a version of a group; version 0 is the latest published one."""
    return f"attributeGroups/{group_id}" + (f"/versions/{version}" if version else "")


def parse_group_name(name: str) -> GroupReference | None:
    """`attributeGroups/{group}[/versions/{version}]`, or None when it is not such a name."""
    match = re.fullmatch(rf"attributeGroups/({IDENTIFIER.pattern})(?:/versions/([1-9][0-9]{{0,8}}))?", name)
    return GroupReference(match[1], int(match[2] or 0)) if match else None


def parse_service_name(name: str) -> str | None:
    """The id in `featureServices/{feature_service}`, or None when it is not such a name."""
    match = re.fullmatch(rf"featureServices/({IDENTIFIER.pattern})", name)
    return match[1] if match else None


def suggestion(word: str, known: Iterable[str]) -> str:
    """A hint that names the known words nearest to `word`, or all of them."""
    choices = sorted(known)
    near = get_close_matches(word.lower(), choices, n=2, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(f"`{each}`" for each in near) + "?"
    return "one of " + ", ".join(choices) if choices else ""
