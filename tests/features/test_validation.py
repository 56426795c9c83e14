"""Every mistake is found, at its place, with something to do about it."""

import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
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
from services.features.durations import DAY_US
from services.features.signals import JsonSyntaxError, read_document
from services.features.validation import check_group, check_service
from services.kernel.aggregations import Function
from services.kernel.expressions import Instant

PRICE = AtomicProperty("price")
GOOD = Attribute("a", ValueType.DOUBLE, (EventSelector(name="buy"),), Function.SUM, PRICE)
COUNTER = Attribute("a", ValueType.INT32, (EventSelector(name="buy"),), Function.COUNTER)


def criterion(operator: Operator | None, *values: object) -> Attribute:
    """An attribute with one criterion."""
    criteria = Criteria(Combination.ALL, (Criterion(PRICE, operator, values),))  # type: ignore[arg-type]
    return replace(GOOD, criteria=criteria)


MISTAKES: list[tuple[Attribute, str, str]] = [
    (replace(GOOD, name="A"), "name", "lower-case"),
    (replace(GOOD, name="a" * 65), "name", "lower-case"),
    (replace(GOOD, name=""), "name", "missing"),
    (replace(GOOD, type=None), "type", "missing"),
    (replace(GOOD, type=ValueType.STRING), "type", "`sum` does not give `string`"),
    (replace(COUNTER, type=ValueType.DOUBLE), "type", "`counter` does not give `double`"),
    (replace(GOOD, aggregation=Function.MEAN, type=ValueType.INT64), "type", "does not give"),
    (replace(GOOD, aggregation=Function.UNIQUE_LIST), "type", "string_list"),
    (replace(GOOD, aggregation=Function.MIN, type=ValueType.BOOL), "type", "does not give"),
    (replace(GOOD, aggregation=None), "aggregation", "missing"),
    (replace(GOOD, property=None), "property", "`sum` needs a property"),
    (replace(COUNTER, property=PRICE), "property", "looks at events"),
    (replace(GOOD, property=AtomicProperty("")), "property.name", "1 to 256"),
    (replace(GOOD, property=EventProperty("v", "n", 0, "p")), "property.major_version", "1 or more"),
    (replace(GOOD, property=EntityProperty("v", "n", 1, -1, "p")), "property.index", "0 to 31"),
    (replace(GOOD, property=EntityProperty("v", "n", 1, 0, "")), "property.path", "1 to 256"),
    (replace(GOOD, events=()), "events", "selectors"),
    (replace(GOOD, events=(EventSelector(),)), "events[0]", "selects nothing"),
    (replace(GOOD, events=(EventSelector(name=""),)), "events[0].name", "empty"),
    (replace(GOOD, events=(EventSelector(vendor="com.acme.*"),)), "events[0].vendor", "wildcards"),
    (replace(GOOD, events=(EventSelector(name="a/b"),)), "events[0].name", "cannot match"),
    (replace(GOOD, period_us=0), "period", "positive"),
    (replace(GOOD, period_us=DAY_US, ttl_us=DAY_US), "ttl", "together with `period`"),
    (replace(GOOD, range=TimeRange(0, 1), ttl_us=DAY_US), "ttl", "together with `range`"),
    (replace(GOOD, period_us=DAY_US, range=TimeRange(0, 1)), "range", "together with `period`"),
    (replace(GOOD, ttl_us=-1), "ttl", "positive"),
    (replace(GOOD, range=TimeRange()), "range", "neither"),
    (replace(GOOD, range=TimeRange(5, 5)), "range", "ends before"),
    (replace(GOOD, range=TimeRange(-1)), "range.start", "1970"),
    (replace(GOOD, calendar_period=CalendarPeriod()), "calendar_period", "positive"),
    (replace(GOOD, calendar_period=CalendarPeriod(1, -1, 0)), "calendar_period", "positive"),
    (replace(GOOD, limit=3), "limit", "`sum` has no limit"),
    (replace(GOOD, limit=-1), "limit", "negative"),
    (replace(GOOD, property_type=ValueType.DOUBLE), "property_type", "leave it out"),
    (
        replace(COUNTER, aggregation=Function.COUNT_DISTINCT, property=PRICE, property_type=ValueType.STRING_LIST),
        "property_type",
        "not `string_list`",
    ),
    (replace(GOOD, default_value="x"), "default_value", "not a number"),
    (replace(GOOD, default_value=True), "default_value", "not a number"),
    (replace(GOOD, default_value=float("nan")), "default_value", "does not fit"),
    (replace(GOOD, default_value=()), "default_value", "a list is not"),
    (replace(COUNTER, default_value=2**31), "default_value", "does not fit"),
    (replace(COUNTER, default_value=CategoryCounts()), "default_value", "counts by category"),
    (replace(GOOD, type=ValueType.FLOAT, default_value=1e300), "default_value", "does not fit"),
    (replace(GOOD, criteria=Criteria()), "criteria", "1 to 100"),
    (criterion(None), "criteria.all[0].operator", "missing"),
    (criterion(Operator.LIKE, 5), "criteria.all[0].value", "`like` compares with a string"),
    (criterion(Operator.EQUAL), "criteria.all[0].value", "needs one value"),
    (criterion(Operator.EQUAL, 1, 2), "criteria.all[0].value", "`in`"),
    (criterion(Operator.IN), "criteria.all[0].value", "needs 1 to"),
    (criterion(Operator.IN, 1, "1"), "criteria.all[0].value", "one type"),
    (criterion(Operator.IN, True, 1), "criteria.all[0].value", "one type"),
    (criterion(Operator.IS_NULL, 1), "criteria.all[0].value", "compares with nothing"),
    (criterion(Operator.LESS, True), "criteria.all[0].value", "no order"),
    (criterion(Operator.EQUAL, float("inf")), "criteria.all[0].value", "finite"),
    (criterion(Operator.EQUAL, 2**63), "criteria.all[0].value", "64 bits"),
]


@pytest.mark.parametrize(("attribute", "field", "text"), MISTAKES)
def test_each_mistake_of_an_attribute_is_named_at_its_place(attribute: Attribute, field: str, text: str) -> None:
    problems = check_group(AttributeGroup("g", 1, "user_id", (attribute,)))
    found = {problem.field: f"{problem.description} {problem.hint}" for problem in problems}
    assert text in found[f"attributes[0].{field}"]


def test_good_attributes_have_no_problems() -> None:
    good = [
        GOOD,
        replace(COUNTER, name="b", period_us=DAY_US, default_value=0),
        replace(criterion(Operator.IN, 1, 2.5), name="c"),
        replace(criterion(Operator.GREATER, Instant(5)), name="d"),
        replace(GOOD, name="e", aggregation=Function.MAX, type=ValueType.TIMESTAMP, default_value=Instant(1)),
    ]
    assert check_group(AttributeGroup("g", 1, "user_id", tuple(good))) == []


def test_the_mistakes_of_a_group_are_found_all_at_once() -> None:
    group = AttributeGroup("G", 0, "user id", (GOOD, GOOD), owner="x" * 300)
    fields = {problem.field for problem in check_group(group)}
    assert {"name", "version", "attribute_key", "owner", "attributes[0].name", "attributes[1].name"} <= fields
    assert {problem.field for problem in check_group(AttributeGroup("g", 1, "user_id"))} == {"attributes"}


def test_the_mistakes_of_a_service_are_found_all_at_once() -> None:
    references = (GroupReference("a", 1), GroupReference("a", 2), GroupReference("B"))
    fields = [problem.field for problem in check_service(FeatureService("s", references))]
    assert fields == ["attribute_groups[0]", "attribute_groups[1]", "attribute_groups[2]"]
    assert check_service(FeatureService("s"))[0].hint == "name at least one group"


@pytest.mark.parametrize(
    ("text", "field", "hint"),
    [
        ('{"name": "s", "attribute_group": []}', "attribute_group", "`attribute_groups`"),
        ('{"attributes": [{"nme": "x"}]}', "attributes[0].nme", "`name`"),
        ('{"attributes": [{"type": "int"}]}', "attributes[0].type", "`int32`"),
        ('{"attributes": [{"type": 5}]}', "attributes[0].type", ""),
        ('{"attributes": [{"period": "7 days"}]}', "attributes[0].period", "P7D"),
        ('{"attributes": {"a": 1}}', "attributes", ""),
        ('{"attributes": [7]}', "attributes[0]", ""),
        ('{"attributes": [{"property": {"type": "atom"}}]}', "attributes[0].property.type", "atomic"),
        ('{"attributes": [{"criteria": {"all": [], "any": []}}]}', "attributes[0].criteria", "exactly one"),
        (
            '{"attributes": [{"criteria": {"all": [{"operator": "lke", "value": []}]}}]}',
            "attributes[0].criteria.all[0].operator",
            "`like`",
        ),
        (
            '{"attributes": [{"criteria": {"all": [{"operator": "=", "value": [1]}]}}]}',
            "attributes[0].criteria.all[0].value",
            "`in`",
        ),
        (
            '{"attributes": [{"criteria": {"all": [{"operator": "=", "value": {}}]}}]}',
            "attributes[0].criteria.all[0].value",
            "a string",
        ),
        ('{"attributes": [], "version": "1"}', "version", ""),
        ('{"attributes": [], "version": true}', "version", ""),
        ('{"attributes": [], "name": "\\ud800"}', "name", ""),
        ('{"attributes": [], "name": "a", "name": "b"}', "name", "keep one"),
        ('{"attributes": [{"range": {"start": "soon"}}]}', "attributes[0].range.start", "2026"),
        ('{"attributes": [{"type": "string", "default_value": [1, "a"]}]}', "attributes[0].default_value", ""),
    ],
)
def test_each_mistake_of_a_document_is_named_at_its_place(text: str, field: str, hint: str) -> None:
    found = {problem.field: problem for problem in read_document(text).problems}
    assert hint in found[field].hint


FIELDS = [
    *("name", "attributes", "attribute_key", "type", "events", "aggregation", "property", "criteria", "all", "any"),
    *("operator", "value", "period", "ttl", "default_value", "range", "start", "index", "version", "attribute_groups"),
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
)


@given(st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_no_document_breaks_the_reader(content: dict[str, object]) -> None:
    document = read_document(json.dumps(content))
    if isinstance(document.definition, AttributeGroup):
        check_group(document.definition)
    else:
        check_service(document.definition)


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    # Anything else than this error fails the test.
    with contextlib.suppress(JsonSyntaxError):
        read_document(text)
