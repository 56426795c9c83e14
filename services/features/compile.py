"""Turns definitions into the kernel's aggregations."""

from collections.abc import Mapping

from services.features.definitions import (
    AtomicProperty,
    Attribute,
    AttributeGroup,
    Combination,
    Criteria,
    EventSelector,
    Property,
    ValueType,
)
from services.features.validation_types import UNTYPED
from services.kernel import expressions
from services.kernel.aggregations import WITHOUT_TERM, Aggregation, TermType
from services.kernel.windows import CalendarWindow, Lifetime, Rolling, Window

TERM_TYPES: Mapping[ValueType, TermType] = {
    ValueType.STRING: TermType.STRING,
    ValueType.INT32: TermType.INTEGER,
    ValueType.INT64: TermType.INTEGER,
    ValueType.FLOAT: TermType.NUMBER,
    ValueType.DOUBLE: TermType.NUMBER,
    ValueType.BOOL: TermType.BOOLEAN,
    ValueType.TIMESTAMP: TermType.TIMESTAMP,
    ValueType.STRING_LIST: TermType.STRING,
    ValueType.INT64_LIST: TermType.INTEGER,
    ValueType.DOUBLE_LIST: TermType.NUMBER,
}
"""The type of an attribute's term, by the type of its value."""


def compile_group(group: AttributeGroup) -> list[Aggregation]:
    """One aggregation for each attribute, in order. The group must be valid; equal attributes give equal ones."""
    return [compile_attribute(attribute) for attribute in group.attributes]


def compile_attribute(attribute: Attribute) -> Aggregation:
    """The aggregation that computes a valid attribute. Its name, default and exact width do not matter here."""
    function, value_type = attribute.aggregation, attribute.type
    assert function is not None, "validated before"
    assert value_type is not None, "validated before"
    term, term_type = None, None
    if function not in WITHOUT_TERM:
        assert attribute.property is not None, "validated before"
        term = compile_property(attribute.property)
        if function in UNTYPED:
            term_type = TERM_TYPES[attribute.property_type or ValueType.STRING]
        else:
            term_type = TERM_TYPES[value_type]
    return Aggregation(
        function=function,
        filter=_filter(attribute),
        term=term,
        term_type=term_type,
        window=_window(attribute),
        ttl_us=attribute.ttl_us,
        limit=attribute.limit,
    )


def compile_property(place: Property) -> expressions.Property:
    """The kernel's form of a place in an event."""
    if isinstance(place, AtomicProperty):
        return expressions.Property("atomic", place.name)
    return expressions.Property(
        source="entity" if hasattr(place, "index") else "event",
        path=place.path,
        vendor=place.vendor,
        name=place.name,
        major_version=place.major_version,
        index=getattr(place, "index", 0),
    )


def _filter(attribute: Attribute) -> expressions.Expression:
    parts: list[expressions.Expression] = [_any([_event_type(event) for event in attribute.events])]
    if attribute.criteria is not None:
        parts.append(_criteria(attribute.criteria))
    if attribute.range is not None:
        parts.append(expressions.OccurredWithin(attribute.range.start_us, attribute.range.end_us))
    return parts[0] if len(parts) == 1 else expressions.AllOf(tuple(parts))


def _event_type(event: EventSelector) -> expressions.Expression:
    return expressions.EventTypeIs(event.vendor, event.name, event.version)


def _criteria(criteria: Criteria) -> expressions.Expression:
    compared: list[expressions.Expression] = []
    for criterion in criteria.criteria:
        assert criterion.property is not None, "validated before"
        assert criterion.operator is not None, "validated before"
        compared.append(
            expressions.Compare(compile_property(criterion.property), criterion.operator.value, criterion.values)
        )
    if criteria.combination is Combination.ANY:
        return _any(compared)
    return compared[0] if len(compared) == 1 else expressions.AllOf(tuple(compared))


def _any(parts: list[expressions.Expression]) -> expressions.Expression:
    return parts[0] if len(parts) == 1 else expressions.AnyOf(tuple(parts))


def _window(attribute: Attribute) -> Window:
    if attribute.period_us is not None:
        return Rolling(attribute.period_us)
    if attribute.calendar_period is not None:
        period = attribute.calendar_period
        return CalendarWindow(period.years, period.months, period.days)
    return Lifetime()
