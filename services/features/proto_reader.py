"""Turns protobuf messages into definitions; what a definition cannot hold becomes a problem.

Unknown enum values read as not given, which `validation` then names.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from inkling.features.v1 import attribute_group_pb2 as groups_pb2
from inkling.features.v1 import feature_service_pb2 as services_pb2
from inkling.types.v1.value_pb2 import Value as ValueMessage
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
    Problem,
    Property,
    Scalar,
    TimeRange,
    Value,
    parse_group_name,
)
from services.features.proto import FUNCTIONS, OPERATORS, VALUE_TYPES
from services.kernel.expressions import Instant


def group_from_proto(
    message: groups_pb2.AttributeGroup, group_id: str, version: int
) -> tuple[AttributeGroup, list[Problem]]:
    """The group under the given id and version, with what could not be read. Output fields are ignored."""
    problems: list[Problem] = []
    group = AttributeGroup(
        group_id=group_id,
        version=version,
        attribute_key=message.attribute_key,
        attributes=tuple(
            attribute_from_proto(each, f"attributes[{i}]", problems) for i, each in enumerate(message.attributes)
        ),
        owner=message.owner,
        description=message.description,
    )
    return group, problems


def service_from_proto(message: services_pb2.FeatureService, service_id: str) -> tuple[FeatureService, list[Problem]]:
    """The service under the given id, with what could not be read. Output fields are ignored."""
    problems: list[Problem] = []
    references: list[GroupReference] = []
    for i, name in enumerate(message.attribute_groups):
        reference = parse_group_name(name)
        if reference is None:
            hint = "attributeGroups/{group}, or attributeGroups/{group}/versions/{version}"
            problems.append(Problem(f"attribute_groups[{i}]", f"{name[:200]!r} is not the name of a group", hint))
        else:
            references.append(reference)
    service = FeatureService(
        service_id=service_id, groups=tuple(references), owner=message.owner, description=message.description
    )
    return service, problems


def attribute_from_proto(message: groups_pb2.Attribute, path: str, problems: list[Problem]) -> Attribute:
    """An attribute; `path` is where it stands."""
    return Attribute(
        name=message.name,
        description=message.description,
        type=_back(VALUE_TYPES, message.type),
        events=tuple(_event(event) for event in message.events),
        aggregation=_back(FUNCTIONS, message.aggregation),
        property=_property(message.property) if message.HasField("property") else None,
        criteria=_criteria(message.criteria, f"{path}.criteria", problems) if message.HasField("criteria") else None,
        period_us=duration_us(message.period) if message.HasField("period") else None,
        range=_range(message.range) if message.HasField("range") else None,
        calendar_period=_calendar(message.calendar_period) if message.HasField("calendar_period") else None,
        ttl_us=duration_us(message.ttl) if message.HasField("ttl") else None,
        default_value=value_from_proto(message.default_value) if message.HasField("default_value") else None,
        limit=message.limit,
        property_type=_back(VALUE_TYPES, message.property_type),
    )


def value_from_proto(message: ValueMessage) -> Value | None:
    """A value; None when no kind is set."""
    kind = message.WhichOneof("kind")
    match kind:
        case None:
            return None
        case "timestamp_value":
            return Instant(instant_us(message.timestamp_value))
        case "string_list_value" | "double_list_value" | "int_list_value":
            return tuple(getattr(message, kind).values)
        case "category_counts_value":
            return CategoryCounts(
                tuple(sorted((entry.category, entry.count) for entry in message.category_counts_value.entries))
            )
        case _:
            scalar: Scalar = getattr(message, kind)
            return scalar


def duration_us(message: Duration) -> int:
    """A duration in microseconds, parts of them cut."""
    return message.seconds * 1_000_000 + message.nanos // 1_000


def instant_us(message: Timestamp) -> int:
    """An instant in microseconds since the epoch, parts of them cut."""
    return message.seconds * 1_000_000 + message.nanos // 1_000


def _back(table: Mapping[Any, Any], number: int) -> Any:
    return next((member for member, value in table.items() if value == number), None)


def _event(message: groups_pb2.EventSelector) -> EventSelector:
    return EventSelector(
        vendor=message.vendor if message.HasField("vendor") else None,
        name=message.name if message.HasField("name") else None,
        version=message.version if message.HasField("version") else None,
    )


def _property(message: groups_pb2.Property) -> Property | None:
    match message.WhichOneof("source"):
        case "atomic":
            return AtomicProperty(message.atomic.name)
        case "event":
            event = message.event
            return EventProperty(event.vendor, event.name, event.major_version, event.path)
        case "entity":
            entity = message.entity
            return EntityProperty(entity.vendor, entity.name, entity.major_version, entity.index, entity.path)
        case None:
            return None


def _criteria(message: groups_pb2.Criteria, path: str, problems: list[Problem]) -> Criteria:
    any_of = message.combination == groups_pb2.Criteria.COMBINATION_ANY
    combination = Combination.ANY if any_of else Combination.ALL
    return Criteria(
        combination,
        tuple(_criterion(each, f"{path}.{combination}[{i}]", problems) for i, each in enumerate(message.criteria)),
    )


def _criterion(message: groups_pb2.Criterion, path: str, problems: list[Problem]) -> Criterion:
    values: list[Scalar] = []
    for value in (value_from_proto(each) for each in message.values):
        if value is None:
            problems.append(Problem(f"{path}.value", "is null", "test for null with is_null or is_not_null"))
        elif isinstance(value, tuple | CategoryCounts):
            problems.append(Problem(f"{path}.value", "is a list", "give the values one by one, with the operator `in`"))
        else:
            values.append(value)
    return Criterion(
        property=_property(message.property) if message.HasField("property") else None,
        operator=_back(OPERATORS, message.operator),
        values=tuple(values),
    )


def _range(message: groups_pb2.TimeRange) -> TimeRange:
    return TimeRange(
        start_us=instant_us(message.start_time) if message.HasField("start_time") else None,
        end_us=instant_us(message.end_time) if message.HasField("end_time") else None,
    )


def _calendar(message: groups_pb2.CalendarPeriod) -> CalendarPeriod:
    return CalendarPeriod(message.years, message.months, message.days)
