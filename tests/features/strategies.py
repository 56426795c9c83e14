"""Random definitions: valid ones, as people could publish them."""

from hypothesis import strategies as st

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
    TimeRange,
    ValueType,
)
from services.features.validation_criteria import NULL_TESTS, ORDERING
from services.features.validation_types import SCALARS, TYPES_OF, UNTYPED
from services.kernel.aggregations import OF_SIGNALS, WITHOUT_TERM, Function
from services.kernel.expressions import Instant

identifiers = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True)
texts = st.text(st.characters(codec="utf-8"), max_size=12)
words = st.text(st.characters(codec="utf-8", exclude_characters="/%*"), min_size=1, max_size=12)
int32s = st.integers(-(2**31), 2**31 - 1)
int64s = st.integers(-(2**63), 2**63 - 1)
doubles = st.floats(allow_nan=False, allow_infinity=False)
singles = st.floats(allow_nan=False, allow_infinity=False, width=32)
instants_us = st.integers(0, 9_214_646_400 * 1_000_000)
durations_us = st.integers(1, 1_000 * 365 * 86_400 * 1_000_000)
counts = st.dictionaries(texts, st.integers(1, 2**63 - 1), max_size=4)

VALUES = {
    ValueType.STRING: texts,
    ValueType.INT32: int32s,
    ValueType.INT64: int64s,
    ValueType.FLOAT: singles,
    ValueType.DOUBLE: doubles,
    ValueType.BOOL: st.booleans(),
    ValueType.TIMESTAMP: instants_us.map(Instant),
    ValueType.STRING_LIST: st.lists(texts, max_size=4).map(tuple),
    ValueType.INT64_LIST: st.lists(int64s, max_size=4).map(tuple),
    ValueType.DOUBLE_LIST: st.lists(doubles, max_size=4).map(tuple),
    ValueType.CATEGORY_COUNTS: counts.map(lambda each: CategoryCounts(tuple(sorted(each.items())))),
}
"""Values by type."""

properties = st.one_of(
    st.builds(AtomicProperty, words),
    st.builds(EventProperty, words, words, st.integers(1, 9), words),
    st.builds(EntityProperty, words, words, st.integers(1, 9), st.integers(0, 31), words),
)
selectors = st.builds(EventSelector, st.none() | words, st.none() | words, st.none() | words).filter(
    lambda each: each != EventSelector()
)


@st.composite
def criterions(draw: st.DrawFn) -> Criterion:
    """A criterion whose values fit its operator."""
    operator = draw(st.sampled_from(Operator))
    families = [texts, int64s | doubles, instants_us.map(Instant)]
    if operator not in ORDERING:
        families.append(st.booleans())
    if operator is Operator.LIKE:
        families = [texts]
    values = draw(st.sampled_from(families))
    if operator in NULL_TESTS:
        given: tuple[object, ...] = ()
    elif operator is Operator.IN:
        given = tuple(draw(st.lists(values, min_size=1, max_size=3)))
    else:
        given = (draw(values),)
    return Criterion(draw(properties), operator, given)


criteria_sets = st.builds(
    Criteria, st.sampled_from(Combination), st.lists(criterions(), min_size=1, max_size=3).map(tuple)
)
ranges = st.one_of(
    st.builds(TimeRange, instants_us),
    st.builds(TimeRange, st.none(), instants_us),
    st.tuples(instants_us, instants_us).filter(lambda each: each[0] < each[1]).map(lambda each: TimeRange(*each)),
)
calendar_periods = st.builds(CalendarPeriod, st.integers(0, 9), st.integers(0, 20), st.integers(1, 90))


@st.composite
def attributes(draw: st.DrawFn) -> Attribute:
    """A valid attribute."""
    function = draw(st.sampled_from(OF_SIGNALS))
    value_type = draw(st.sampled_from(TYPES_OF[function]))
    window = draw(st.sampled_from(["", "period_us", "range", "calendar_period", "ttl_us"]))
    kinds = {"period_us": durations_us, "range": ranges, "calendar_period": calendar_periods, "ttl_us": durations_us}
    limited = function in (Function.UNIQUE_LIST, Function.CATEGORY_COUNT)
    return Attribute(
        name=draw(identifiers),
        type=value_type,
        events=tuple(draw(st.lists(selectors, min_size=1, max_size=3))),
        aggregation=function,
        property=None if function in WITHOUT_TERM else draw(properties),
        criteria=draw(st.none() | criteria_sets),
        default_value=draw(st.none() | VALUES[value_type]),
        limit=draw(st.integers(0, 10)) if limited else 0,
        property_type=draw(st.none() | st.sampled_from(SCALARS)) if function in UNTYPED else None,
        description=draw(texts),
        **({window: draw(kinds[window])} if window else {}),
    )


groups = st.builds(
    AttributeGroup,
    group_id=identifiers,
    version=st.integers(1, 999),
    attribute_key=identifiers,
    attributes=st.lists(attributes(), min_size=1, max_size=3, unique_by=lambda each: each.name).map(tuple),
    owner=texts,
    description=texts,
)
references = st.builds(GroupReference, identifiers, st.integers(0, 9))
services = st.builds(
    FeatureService,
    service_id=identifiers,
    groups=st.lists(references, min_size=1, max_size=3, unique_by=lambda each: each.group_id).map(tuple),
    owner=texts,
    description=texts,
)
