"""Reads the objects of Signals documents into definitions; each mistake becomes a problem with its place and a hint.

What cannot be read is left out of the definition, and reading goes on: people want all mistakes at once.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

from services.features.definitions import (
    AtomicProperty,
    Attribute,
    AttributeGroup,
    CalendarPeriod,
    CategoryCounts,
    Combination,
    Criteria,
    Criterion,
    EntityProperty,
    EventProperty,
    EventSelector,
    FeatureService,
    GroupReference,
    Operator,
    Origin,
    Problem,
    Property,
    Scalar,
    TimeRange,
    Value,
    ValueType,
    suggestion,
)
from services.features.durations import parse_duration, parse_instant
from services.kernel.aggregations import OF_SIGNALS, Function
from services.kernel.expressions import Instant

GROUP_FIELDS = (
    *("name", "version", "attribute_key", "description", "online", "offline", "owner", "attributes", "is_published"),
)
SERVICE_FIELDS = ("name", "description", "attribute_groups", "owner", "is_published")
ATTRIBUTE_FIELDS = (
    *("name", "description", "type", "events", "aggregation", "property", "criteria", "period", "default_value"),
    *("ttl", "limit", "range", "calendar_period", "property_type"),
)
KEY_FIELDS = ("name", "description", "key", "owner", "is_published")
PROPERTY_FIELDS: Mapping[str, tuple[str, ...]] = {
    "atomic": ("type", "name"),
    "event": ("type", "vendor", "name", "major_version", "path"),
    "entity": ("type", "vendor", "name", "major_version", "index", "path"),
}
OPERATOR_ALIASES = {"is null": "is_null", "is not null": "is_not_null", "==": "=", "<>": "!="}
_KINDS: Mapping[type, str] = {
    str: "a string",
    int: "an integer",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}

T = TypeVar("T")
R = TypeVar("R")
E = TypeVar("E", bound=StrEnum)


class Reader:
    """Collects problems while it reads one document."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, field: str, description: str, hint: str = "") -> None:
        """Notes a mistake."""
        self.problems.append(Problem(field, description, hint))

    def group(self, content: dict[str, Any]) -> AttributeGroup:
        """Reads an attribute group."""
        self._known(content, GROUP_FIELDS, "")
        key, origin = self._attribute_key(content)
        return AttributeGroup(
            group_id=self._get(content, "name", str, "") or "",
            version=self._or(self._get(content, "version", int, ""), 1),
            attribute_key=key,
            attributes=self._list(content, "attributes", "", self._attribute),
            owner=self._get(content, "owner", str, "") or "",
            description=self._get(content, "description", str, "") or "",
            origin=origin,
        )

    def service(self, content: dict[str, Any]) -> FeatureService:
        """Reads a feature service."""
        self._known(content, SERVICE_FIELDS, "")
        return FeatureService(
            service_id=self._get(content, "name", str, "") or "",
            groups=self._list(content, "attribute_groups", "", self._reference),
            owner=self._get(content, "owner", str, "") or "",
            description=self._get(content, "description", str, "") or "",
            origin=Origin(is_published=self._get(content, "is_published", bool, "")),
        )

    def _attribute_key(self, content: dict[str, Any]) -> tuple[str, Origin]:
        published = self._get(content, "is_published", bool, "")
        online = self._or(self._get(content, "online", bool, ""), True)
        offline = self._or(self._get(content, "offline", bool, ""), False)
        key = content.get("attribute_key")
        if not isinstance(key, dict):
            name = self._get(content, "attribute_key", str, "") or ""
            return name, Origin(key_is_object=False, online=online, offline=offline, is_published=published)
        self._known(key, KEY_FIELDS, "attribute_key")
        origin = Origin(
            key_column=self._get(key, "key", str, "attribute_key"),
            key_description=self._get(key, "description", str, "attribute_key"),
            key_owner=self._get(key, "owner", str, "attribute_key"),
            key_is_published=self._get(key, "is_published", bool, "attribute_key"),
            online=online,
            offline=offline,
            is_published=published,
        )
        return self._get(key, "name", str, "attribute_key") or "", origin

    def _reference(self, content: Any, path: str) -> GroupReference | None:
        if isinstance(content, str):
            return GroupReference(content)
        if not self._object(content, ("name", "version"), path):
            return None
        return GroupReference(
            self._get(content, "name", str, path) or "", self._or(self._get(content, "version", int, path), 0)
        )

    def _attribute(self, content: Any, path: str) -> Attribute | None:
        if not self._object(content, ATTRIBUTE_FIELDS, path):
            return None
        value_type = self._enum(content, "type", ValueType, path)
        return Attribute(
            name=self._get(content, "name", str, path) or "",
            description=self._get(content, "description", str, path) or "",
            type=value_type,
            events=self._list(content, "events", path, self._event),
            aggregation=self._enum(content, "aggregation", Function, path, OF_SIGNALS),
            property=self._optional(content, "property", path, self._property),
            criteria=self._optional(content, "criteria", path, self._criteria),
            period_us=self._duration(content, "period", path),
            range=self._optional(content, "range", path, self._range),
            calendar_period=self._optional(content, "calendar_period", path, self._calendar_period),
            ttl_us=self._duration(content, "ttl", path),
            default_value=self._optional(
                content, "default_value", path, lambda value, place: self._default(value, value_type, place)
            ),
            limit=self._or(self._get(content, "limit", int, path), 0),
            property_type=self._enum(content, "property_type", ValueType, path),
        )

    def _event(self, content: Any, path: str) -> EventSelector | None:
        if not self._object(content, ("vendor", "name", "version"), path):
            return None
        vendor, name, version = (self._get(content, part, str, path) for part in ("vendor", "name", "version"))
        return EventSelector(vendor, name, version)

    def _property(self, content: Any, path: str) -> Property | None:
        if not isinstance(content, dict):
            self._object(content, (), path)
            return None
        kind = content.get("type")
        if kind is None:
            kind = "entity" if "index" in content else "event" if "path" in content else "atomic"
        if not isinstance(kind, str) or kind not in PROPERTY_FIELDS:
            self.add(f"{path}.type", f"{kind!r} is not a kind of property", "one of atomic, event, entity")
            return None
        self._known(content, PROPERTY_FIELDS[kind], path)
        name = self._get(content, "name", str, path) or ""
        if kind == "atomic":
            return AtomicProperty(name)
        vendor = self._get(content, "vendor", str, path) or ""
        major = self._or(self._get(content, "major_version", int, path), 0)
        place = self._get(content, "path", str, path) or ""
        if kind == "event":
            return EventProperty(vendor, name, major, place)
        return EntityProperty(vendor, name, major, self._or(self._get(content, "index", int, path), 0), place)

    def _criteria(self, content: Any, path: str) -> Criteria | None:
        if not self._object(content, ("all", "any"), path):
            return None
        given = [each for each in Combination if content.get(each) is not None]
        if len(given) != 1:
            self.add(path, "needs either `all` or `any`", "give exactly one list of criteria")
            return None
        return Criteria(given[0], self._list(content, given[0], path, self._criterion))

    def _criterion(self, content: Any, path: str) -> Criterion | None:
        if not self._object(content, ("property", "operator", "value"), path):
            return None
        given = content.get("operator")
        operator = self._enum(
            {"operator": OPERATOR_ALIASES.get(given.lower(), given.lower()) if isinstance(given, str) else given},
            *("operator", Operator, path),
        )
        value = content.get("value")
        listed = value if isinstance(value, list) else [] if value is None else [value]
        if isinstance(value, list) and operator not in (Operator.IN, None):
            self.add(f"{path}.value", f"`{operator}` compares with one value, not a list", "use the operator `in`")
            listed = []
        scalars = [self._scalar(each, f"{path}.value") for each in listed]
        return Criterion(
            property=self._optional(content, "property", path, self._property),
            operator=operator,
            values=tuple(each for each in scalars if each is not None),
        )

    def _scalar(self, value: Any, path: str) -> Scalar | None:
        if isinstance(value, dict) and set(value) == {"instant"} and isinstance(value["instant"], str):
            instant_us = parse_instant(value["instant"])
            if instant_us is not None:
                return Instant(instant_us)
        if isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self._clean(value, path)
        self.add(path, f"{value!r} is not a value to compare with", "a string, a number, true or false")
        return None

    def _default(self, value: Any, value_type: ValueType | None, path: str) -> Value | None:
        if isinstance(value, list):
            if all(isinstance(each, str) for each in value) or all(type(each) is int for each in value):
                return tuple(value)
            if all(type(each) in (int, float) for each in value):
                return tuple(float(each) for each in value)
        elif isinstance(value, dict):
            if all(type(count) is int for count in value.values()):
                return CategoryCounts(tuple(sorted(value.items())))
        elif isinstance(value, str) and value_type is ValueType.TIMESTAMP:
            instant_us = parse_instant(value)
            if instant_us is not None:
                return Instant(instant_us)
        elif isinstance(value, str | bool | int | float):
            return value
        self.add(path, f"is not a value of type {value_type or 'any'}", "instants are ISO 8601, lists of one type")
        return None

    def _range(self, content: Any, path: str) -> TimeRange | None:
        if not self._object(content, ("start", "end"), path):
            return None
        ends: list[int | None] = []
        for end in ("start", "end"):
            text = self._get(content, end, str, path)
            ends.append(None if text is None else parse_instant(text))
            if text is not None and ends[-1] is None:
                self.add(f"{path}.{end}", f"{text!r} is not an instant", "such as 2026-01-31T00:00:00Z")
        return TimeRange(*ends)

    def _calendar_period(self, content: Any, path: str) -> CalendarPeriod | None:
        if not self._object(content, ("years", "months", "days"), path):
            return None
        return CalendarPeriod(*(self._or(self._get(content, u, int, path), 0) for u in ("years", "months", "days")))

    def _duration(self, content: dict[str, Any], name: str, path: str) -> int | None:
        text = self._get(content, name, str, path)
        duration_us = None if text is None else parse_duration(text)
        if text is not None and duration_us is None:
            self.add(f"{path}.{name}", f"{text!r} is not a duration", "ISO 8601, such as P7D or PT12H")
        return duration_us

    def _enum(
        self, content: dict[str, Any], name: str, kind: type[E], path: str, allowed: Sequence[E] = ()
    ) -> E | None:
        text = self._get(content, name, str, path)
        if text is None:
            return None
        known = list(allowed or kind)
        if text not in known:
            self.add(f"{path}.{name}", f"{text!r} is not known", suggestion(text, known))
            return None
        return kind(text)

    def _list(
        self, content: dict[str, Any], name: str, path: str, read: Callable[[Any, str], T | None]
    ) -> tuple[T, ...]:
        items = self._get(content, name, list, path) or []
        found = [read(item, f"{_join(path, name)}[{i}]") for i, item in enumerate(items)]
        return tuple(item for item in found if item is not None)

    def _optional(self, content: dict[str, Any], name: str, path: str, read: Callable[[Any, str], R]) -> R | None:
        value = content.get(name)
        return None if value is None else read(value, _join(path, name))

    def _get(self, content: dict[str, Any], name: str, kind: type[T], path: str) -> T | None:
        value = content.get(name)
        if value is None:
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.add(_join(path, name), f"must be {_KINDS[kind]}")
            return None
        if isinstance(value, str):
            self._clean(value, _join(path, name))
        return value

    def _clean(self, text: str, path: str) -> str | None:
        """Refuses halves of surrogate pairs, which JSON can escape but UTF-8 cannot carry."""
        try:
            text.encode()
        except UnicodeEncodeError:
            self.add(path, "has half a surrogate pair")
            return None
        return text

    def _object(self, content: Any, known: tuple[str, ...], path: str) -> bool:
        if not isinstance(content, dict):
            self.add(path, "must be an object")
            return False
        self._known(content, known, path)
        return True

    def _known(self, content: dict[str, Any], known: tuple[str, ...], path: str) -> None:
        for name in content:
            if name not in known:
                self.add(_join(path, name), "is not a known field", suggestion(name, known))

    @staticmethod
    def _or(value: T | None, default: T) -> T:
        return default if value is None else value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
