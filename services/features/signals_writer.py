"""Writes definitions as the objects of Signals documents, with the fields in the order of its SDK."""

from typing import Any

from services.features.definitions import (
    AtomicProperty,
    Attribute,
    AttributeGroup,
    CategoryCounts,
    Criterion,
    EntityProperty,
    EventProperty,
    EventSelector,
    FeatureService,
    Property,
    TimeRange,
    Value,
)
from services.features.durations import format_duration, format_instant
from services.kernel.expressions import Instant


def group_document(group: AttributeGroup) -> dict[str, Any]:
    """A group, without `is_published`."""
    return {
        "name": group.group_id,
        "version": group.version,
        "attribute_key": _attribute_key(group),
        **({"description": group.description} if group.description else {}),
        "online": group.origin.online,
        "offline": group.origin.offline,
        **({"owner": group.owner} if group.owner else {}),
        "attributes": [_attribute(attribute) for attribute in group.attributes],
    }


def service_document(service: FeatureService) -> dict[str, Any]:
    """A service, without `is_published`."""
    return {
        "name": service.service_id,
        **({"description": service.description} if service.description else {}),
        "attribute_groups": [
            {"name": group.group_id, **({"version": group.version} if group.version else {})}
            for group in service.groups
        ],
        **({"owner": service.owner} if service.owner else {}),
    }


def json_value(value: Value | None) -> Any:
    """A value as JSON: instants as ISO 8601, lists as arrays, counts as an object."""
    if isinstance(value, Instant):
        return format_instant(value.us)
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, CategoryCounts):
        return dict(value.entries)
    return value


def _attribute_key(group: AttributeGroup) -> Any:
    origin = group.origin
    if not origin.key_is_object:
        return group.attribute_key
    return {
        "name": group.attribute_key,
        **({"description": origin.key_description} if origin.key_description is not None else {}),
        "key": group.attribute_key if origin.key_column is None else origin.key_column,
        **({"owner": origin.key_owner} if origin.key_owner is not None else {}),
        "is_published": bool(origin.key_is_published),
    }


def _attribute(attribute: Attribute) -> dict[str, Any]:
    criteria = attribute.criteria
    fields: dict[str, Any] = {
        "name": attribute.name,
        "description": attribute.description or None,
        "type": attribute.type,
        "events": [_event(event) for event in attribute.events],
        "aggregation": attribute.aggregation,
        "property": attribute.property and _property(attribute.property),
        "criteria": criteria and {str(criteria.combination): [_criterion(each) for each in criteria.criteria]},
        "period": None if attribute.period_us is None else format_duration(attribute.period_us),
        "default_value": json_value(attribute.default_value),
        "ttl": None if attribute.ttl_us is None else format_duration(attribute.ttl_us),
        "limit": attribute.limit or None,
        "range": attribute.range and _range(attribute.range),
        "calendar_period": attribute.calendar_period
        and {
            "years": attribute.calendar_period.years,
            "months": attribute.calendar_period.months,
            "days": attribute.calendar_period.days,
        },
        "property_type": attribute.property_type,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _event(event: EventSelector) -> dict[str, str]:
    parts = {"name": event.name, "vendor": event.vendor, "version": event.version}
    return {name: part for name, part in parts.items() if part is not None}


def _property(place: Property) -> dict[str, Any]:
    match place:
        case AtomicProperty(name):
            return {"type": "atomic", "name": name}
        case EventProperty(vendor, name, major_version, path):
            return {"vendor": vendor, "name": name, "major_version": major_version, "path": path, "type": "event"}
        case EntityProperty(vendor, name, major_version, index, path):
            return {
                "vendor": vendor,
                "name": name,
                "major_version": major_version,
                "path": path,
                "type": "entity",
                "index": index,
            }


def _criterion(criterion: Criterion) -> dict[str, Any]:
    values = [{"instant": json_value(v)} if isinstance(v, Instant) else v for v in criterion.values]
    document: dict[str, Any] = {"property": criterion.property and _property(criterion.property)}
    document["operator"] = criterion.operator
    if criterion.operator == "in":
        document["value"] = values
    elif values:
        document["value"] = values[0]
    return document


def _range(time_range: TimeRange) -> dict[str, str]:
    ends = {"start": time_range.start_us, "end": time_range.end_us}
    return {name: format_instant(end) for name, end in ends.items() if end is not None}
