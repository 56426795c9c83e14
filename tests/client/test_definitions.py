"""Definitions in Python are the documents that the Signals SDK publishes."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import inkling
from inkling import (
    AtomicProperty,
    Attribute,
    AttributeKey,
    Criteria,
    Criterion,
    EntityProperty,
    Event,
    EventProperty,
    Service,
    StreamAttributeGroup,
    domain_userid,
)
from inkling.definitions import CalendarPeriod, TimeRange, iso_duration

SHARED = Path(__file__).resolve().parents[3] / "shared"
VIEW = Event(vendor="com.snowplowanalytics.snowplow", name="page_view", version="1-0-0")


def shared(path: str) -> str:
    """A file of the acceptance copy, which lies beside the repository and not in it."""
    found = sorted(SHARED.glob(path))
    if not found:
        pytest.skip(f"{SHARED / path} is not here: the acceptance copy of the documents lies beside the checkout")
    return found[0].read_text()


def document_code() -> str:
    """The document's own definitions, from its first import to the service, with two lines changed.

    The import line, as anybody would change it (the document also forgets to import EntityProperty); and the argument
    `attribute_group`, which is a slip: the document's published service has `attribute_groups`.
    """
    text = shared("seeds/004_*.txt")
    code = text[text.index("# Imports") : text.index("Test the attribute outputs")]
    code += text[text.index("from snowplow_signals import Service") : text.index("Deploy configuration to Signals")]
    kept: list[str] = []
    depth = 0
    for line in code.splitlines():
        # Prose stands between the listings: a listing's line begins a statement, or lies inside of parentheses.
        if depth or re.match(r"(#|from |[a-z0-9_]+ ?= ?\w+\()", line):
            kept.append(line)
            bare = re.sub(r"#.*|\"[^\"]*\"", "", line)
            depth += bare.count("(") - bare.count(")")
    return "\n".join(kept).replace("from snowplow_signals import", "from inkling import EntityProperty,")


def group(**changes: object) -> StreamAttributeGroup:
    made = StreamAttributeGroup(
        name="web",
        version=1,
        attribute_key=domain_userid,
        owner="me@example.org",
        attributes=[Attribute(name="views", type="int32", events=[VIEW], aggregation="counter")],
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_the_code_of_the_document_gives_the_published_document() -> None:
    code = document_code().replace("attribute_group=[user_attribute_group]", "attribute_groups=[user_attribute_group]")
    names: dict[str, object] = {}
    exec(compile(code, "004", "exec"), names)
    defined, service = names["user_attribute_group"], names["prospect_scoring_tutorial_service"]
    assert isinstance(defined, StreamAttributeGroup)
    assert isinstance(service, Service)
    owner = "data-team@example.com"
    published = replace(defined, owner=owner, is_published=True).to_signals()
    assert published == json.loads(shared("conformance/signals_prospect_group.json"))
    assert replace(service, owner=owner, is_published=True).to_signals() == json.loads(
        shared("conformance/signals_service.json")
    )


def test_a_misspelt_argument_is_refused_with_the_right_name() -> None:
    with pytest.raises(TypeError, match="Service has no argument attribute_group: did you mean attribute_groups"):
        Service(name="s", owner="me", attribute_group=[group()])  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="did you mean aggregation"):
        Attribute(name="a", type="int32", events=[VIEW], agregation="counter")  # type: ignore[call-arg]


def test_every_criterion_has_the_operator_of_signals() -> None:
    place = AtomicProperty("x")
    made = {
        "=": Criterion.eq(place, 1),
        "!=": Criterion.neq(place, 1),
        ">": Criterion.gt(place, 1),
        ">=": Criterion.gte(place, 1),
        "<": Criterion.lt(place, 1),
        "<=": Criterion.lte(place, 1),
        "like": Criterion.like(place, "%a"),
        "in": Criterion.in_list(place, ["a", "b"]),
        "is null": Criterion.is_null(place),
        "is not null": Criterion.is_not_null(place),
    }
    for operator, criterion in made.items():
        assert criterion.to_signals()["operator"] == operator
    assert "value" not in Criterion.is_null(place).to_signals()
    assert Criterion.in_list(place, ["a", "b"]).to_signals()["value"] == ["a", "b"]
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert Criterion.gt(place, moment).to_signals()["value"] == {"instant": "2026-01-01T00:00:00+00:00"}


def test_properties_carry_their_kind() -> None:
    event = EventProperty(vendor="v", name="n", major_version=1, path="a.b")
    entity = EntityProperty(vendor="v", name="n", major_version=2, path="a", index=1)
    assert AtomicProperty(name="app_id").to_signals() == {"type": "atomic", "name": "app_id"}
    assert event.to_signals()["type"] == "event"
    assert entity.to_signals() == {
        "type": "entity",
        "vendor": "v",
        "name": "n",
        "major_version": 2,
        "path": "a",
        "index": 1,
    }


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(days=7), "P7D"),
        (timedelta(hours=1), "PT1H"),
        (timedelta(days=1, hours=2, minutes=3, seconds=4), "P1DT2H3M4S"),
        (timedelta(seconds=90), "PT1M30S"),
        (timedelta(milliseconds=1500), "PT1.5S"),
        (timedelta(days=365), "P365D"),
    ],
)
def test_periods_are_written_in_iso_8601(span: timedelta, text: str) -> None:
    assert iso_duration(span) == text


def test_a_period_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than nothing"):
        iso_duration(timedelta(0))


def test_a_group_restricted_to_applications_looks_at_their_events_only() -> None:
    criteria = Criteria(all=[Criterion.like(AtomicProperty("page_url"), "%pricing%")])
    views = Attribute(name="views", type="int32", events=[VIEW], aggregation="counter", criteria=criteria)
    narrowed = group(attributes=[views]).restricted_to_apps(["website"]).to_signals()
    operators = [each["operator"] for each in narrowed["attributes"][0]["criteria"]["all"]]
    assert operators == ["like", "in"]


def test_criteria_of_any_cannot_be_restricted_silently() -> None:
    criteria = Criteria(any=[Criterion.is_null(AtomicProperty("a")), Criterion.is_null(AtomicProperty("b"))])
    views = Attribute(name="views", type="int32", events=[VIEW], aggregation="counter", criteria=criteria)
    with pytest.raises(ValueError, match="views has `any` criteria"):
        group(attributes=[views]).restricted_to_apps(["website"])


def test_what_is_ours_is_absent_unless_used() -> None:
    plain = Attribute(name="a", type="int32", events=[VIEW], aggregation="counter").to_signals()
    assert set(plain) == {"name", "type", "events", "aggregation"}
    ours = Attribute(
        name="a",
        type="int64",
        events=[VIEW],
        aggregation="count_distinct",
        property=AtomicProperty("x"),
        property_type="int64",
        range=TimeRange(start=datetime(2026, 1, 1, tzinfo=UTC)),
        limit=3,
    ).to_signals()
    assert ours["range"] == {"start": "2026-01-01T00:00:00+00:00"}
    assert (ours["property_type"], ours["limit"]) == ("int64", 3)
    calendar = Attribute(
        name="a", type="int32", events=[VIEW], aggregation="counter", calendar_period=CalendarPeriod(months=1)
    ).to_signals()
    assert calendar["calendar_period"] == {"years": 0, "months": 1, "days": 0}


def test_an_attribute_key_may_be_somebody_elses() -> None:
    key = AttributeKey(name="customer_id", description="The customer.")
    assert key.to_signals() == {
        "name": "customer_id",
        "description": "The customer.",
        "key": "customer_id",
        "is_published": False,
    }


def test_the_package_gives_every_name_of_the_document() -> None:
    names = "Event Attribute Criteria Criterion AtomicProperty EntityProperty StreamAttributeGroup Service Signals"
    for name in [*names.split(), "domain_userid"]:
        assert hasattr(inkling, name)
