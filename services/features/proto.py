"""Turns definitions into protobuf messages. The other way is in `proto_reader`."""

from collections.abc import Mapping

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from inkling.features.v1 import attribute_group_pb2 as groups_pb2
from inkling.features.v1 import definition_service_pb2 as definitions_pb2
from inkling.features.v1 import feature_service_pb2 as services_pb2
from inkling.types.v1.value_pb2 import Value as ValueMessage
from services.features.definitions import (
    AtomicProperty,
    Attribute,
    AttributeGroup,
    CategoryCounts,
    Combination,
    Criteria,
    Criterion,
    EntityProperty,
    EventProperty,
    EventSelector,
    FeatureService,
    GroupState,
    Operator,
    Problem,
    Property,
    Value,
    ValueType,
)
from services.kernel.aggregations import OF_SIGNALS, Function
from services.kernel.expressions import Instant

VALUE_TYPES: Mapping[ValueType, groups_pb2.ValueType.ValueType] = {
    ValueType.STRING: groups_pb2.VALUE_TYPE_STRING,
    ValueType.INT32: groups_pb2.VALUE_TYPE_INT32,
    ValueType.INT64: groups_pb2.VALUE_TYPE_INT64,
    ValueType.FLOAT: groups_pb2.VALUE_TYPE_FLOAT,
    ValueType.DOUBLE: groups_pb2.VALUE_TYPE_DOUBLE,
    ValueType.BOOL: groups_pb2.VALUE_TYPE_BOOL,
    ValueType.TIMESTAMP: groups_pb2.VALUE_TYPE_TIMESTAMP,
    ValueType.STRING_LIST: groups_pb2.VALUE_TYPE_STRING_LIST,
    ValueType.INT64_LIST: groups_pb2.VALUE_TYPE_INT64_LIST,
    ValueType.DOUBLE_LIST: groups_pb2.VALUE_TYPE_DOUBLE_LIST,
    ValueType.CATEGORY_COUNTS: groups_pb2.VALUE_TYPE_CATEGORY_COUNTS,
}
FUNCTIONS: Mapping[Function, groups_pb2.AggregationFunction.ValueType] = {
    function: groups_pb2.AggregationFunction.Value(f"AGGREGATION_FUNCTION_{function.name}") for function in OF_SIGNALS
}
OPERATORS: Mapping[Operator, groups_pb2.CriterionOperator.ValueType] = {
    operator: groups_pb2.CriterionOperator.Value(f"CRITERION_OPERATOR_{operator.name}") for operator in Operator
}
STATES: Mapping[GroupState, groups_pb2.GroupState.ValueType] = {
    state: groups_pb2.GroupState.Value(f"GROUP_STATE_{state.name}") for state in GroupState
}
COMBINATIONS: Mapping[Combination, groups_pb2.Criteria.Combination.ValueType] = {
    Combination.ALL: groups_pb2.Criteria.COMBINATION_ALL,
    Combination.ANY: groups_pb2.Criteria.COMBINATION_ANY,
}


def group_to_proto(group: AttributeGroup) -> groups_pb2.AttributeGroup:
    """The group's content; state, times and etag are the caller's to add."""
    return groups_pb2.AttributeGroup(
        name=group.name,
        description=group.description,
        attribute_key=group.attribute_key,
        owner=group.owner,
        attributes=[attribute_to_proto(attribute) for attribute in group.attributes],
    )


def service_to_proto(service: FeatureService) -> services_pb2.FeatureService:
    """The service's content; times and etag are the caller's to add."""
    return services_pb2.FeatureService(
        name=service.name,
        description=service.description,
        owner=service.owner,
        attribute_groups=[reference.name for reference in service.groups],
    )


def attribute_to_proto(attribute: Attribute) -> groups_pb2.Attribute:
    """An attribute as a message."""
    message = groups_pb2.Attribute(
        name=attribute.name,
        description=attribute.description,
        type=groups_pb2.VALUE_TYPE_UNSPECIFIED if attribute.type is None else VALUE_TYPES[attribute.type],
        events=[_event(event) for event in attribute.events],
        limit=attribute.limit,
    )
    if attribute.aggregation is not None:
        message.aggregation = FUNCTIONS[attribute.aggregation]
    if attribute.property is not None:
        message.property.CopyFrom(property_to_proto(attribute.property))
    if attribute.criteria is not None:
        message.criteria.CopyFrom(_criteria(attribute.criteria))
    if attribute.period_us is not None:
        message.period.CopyFrom(duration(attribute.period_us))
    if attribute.range is not None:
        message.range.SetInParent()
        if attribute.range.start_us is not None:
            message.range.start_time.CopyFrom(timestamp(attribute.range.start_us))
        if attribute.range.end_us is not None:
            message.range.end_time.CopyFrom(timestamp(attribute.range.end_us))
    if attribute.calendar_period is not None:
        period = attribute.calendar_period
        message.calendar_period.SetInParent()
        message.calendar_period.years = period.years
        message.calendar_period.months = period.months
        message.calendar_period.days = period.days
    if attribute.ttl_us is not None:
        message.ttl.CopyFrom(duration(attribute.ttl_us))
    if attribute.default_value is not None:
        message.default_value.CopyFrom(value_to_proto(attribute.default_value, attribute.type))
    if attribute.property_type is not None:
        message.property_type = VALUE_TYPES[attribute.property_type]
    return message


def property_to_proto(place: Property) -> groups_pb2.Property:
    """A place in an event as a message."""
    match place:
        case AtomicProperty(name):
            return groups_pb2.Property(atomic=groups_pb2.AtomicProperty(name=name))
        case EventProperty(vendor, name, major, path):
            event = groups_pb2.EventProperty(vendor=vendor, name=name, major_version=major, path=path)
            return groups_pb2.Property(event=event)
        case EntityProperty(vendor, name, major, index, path):
            entity = groups_pb2.EntityProperty(vendor=vendor, name=name, major_version=major, index=index, path=path)
            return groups_pb2.Property(entity=entity)


def value_to_proto(value: Value, value_type: ValueType | None = None) -> ValueMessage:
    """A value as a message. The type decides between lists when one is empty, and makes integers numbers."""
    message = ValueMessage()
    if isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, str):
        message.string_value = value
    elif isinstance(value, Instant):
        message.timestamp_value.CopyFrom(timestamp(value.us))
    elif isinstance(value, CategoryCounts):
        message.category_counts_value.SetInParent()
        for category, count in value.entries:
            message.category_counts_value.entries.add(category=category, count=count)
    elif isinstance(value, tuple):
        _put_list(message, value, value_type)
    elif isinstance(value, float) or value_type in (ValueType.FLOAT, ValueType.DOUBLE):
        message.double_value = float(value)
    else:
        message.int_value = value
    return message


def problem_to_proto(problem: Problem) -> definitions_pb2.DefinitionProblem:
    """A mistake as a message."""
    return definitions_pb2.DefinitionProblem(field=problem.field, description=problem.description, hint=problem.hint)


def duration(duration_us: int) -> Duration:
    """Microseconds as a message."""
    seconds, micros = divmod(duration_us, 1_000_000)
    return Duration(seconds=seconds, nanos=micros * 1_000)


def timestamp(instant_us: int) -> Timestamp:
    """Microseconds since the epoch as a message."""
    seconds, micros = divmod(instant_us, 1_000_000)
    return Timestamp(seconds=seconds, nanos=micros * 1_000)


def _put_list(message: ValueMessage, value: tuple[object, ...], value_type: ValueType | None) -> None:
    if value_type is None:
        kinds = {str: ValueType.STRING_LIST, float: ValueType.DOUBLE_LIST}
        value_type = kinds.get(type(value[0]), ValueType.INT64_LIST) if value else ValueType.STRING_LIST
    if value_type is ValueType.STRING_LIST:
        message.string_list_value.SetInParent()
        message.string_list_value.values.extend(value)  # type: ignore[arg-type]
    elif value_type is ValueType.INT64_LIST:
        message.int_list_value.SetInParent()
        message.int_list_value.values.extend(value)  # type: ignore[arg-type]
    else:
        message.double_list_value.SetInParent()
        message.double_list_value.values.extend(value)  # type: ignore[arg-type]


def _event(event: EventSelector) -> groups_pb2.EventSelector:
    return groups_pb2.EventSelector(vendor=event.vendor, name=event.name, version=event.version)


def _criteria(criteria: Criteria) -> groups_pb2.Criteria:
    return groups_pb2.Criteria(
        combination=COMBINATIONS[criteria.combination],
        criteria=[_criterion(criterion) for criterion in criteria.criteria],
    )


def _criterion(criterion: Criterion) -> groups_pb2.Criterion:
    message = groups_pb2.Criterion(values=[value_to_proto(value) for value in criterion.values])
    if criterion.property is not None:
        message.property.CopyFrom(property_to_proto(criterion.property))
    if criterion.operator is not None:
        message.operator = OPERATORS[criterion.operator]
    return message
