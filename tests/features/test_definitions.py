"""Definitions survive every form they take, and compile to what they say."""

from pathlib import Path

import pytest
from hypothesis import given, settings

from services.features import proto, proto_reader
from services.features.compile import compile_attribute, compile_group
from services.features.definitions import AttributeGroup, FeatureService
from services.features.durations import DAY_US, format_duration, parse_duration
from services.features.signals import JsonSyntaxError, read_document, write_document
from services.features.validation import check_group, check_service
from services.kernel.aggregations import Function, TermType
from services.kernel.expressions import AnyOf, EventTypeIs, Property
from services.kernel.windows import Lifetime, Rolling
from tests.features import strategies

CONFORMANCE = Path(__file__).parents[2] / "tests" / "conformance"


@pytest.mark.parametrize("name", ["signals_prospect_group", "signals_service"])
def test_a_signals_document_is_read_and_written_back_to_the_byte(name: str) -> None:
    text = (CONFORMANCE / f"{name}.json").read_text()
    document = read_document(text)
    assert not document.problems
    assert write_document(document.definition) == text


def test_the_documents_group_is_valid_and_compiles_to_19_aggregations() -> None:
    group = read_document((CONFORMANCE / "signals_prospect_group.json").read_text()).definition
    assert isinstance(group, AttributeGroup)
    assert check_group(group) == []
    compiled = compile_group(group)
    assert len(compiled) == 19
    by_name = dict(zip((each.name for each in group.attributes), compiled, strict=True))
    forms = by_name["num_form_engagements_l7d"]
    assert forms.function is Function.COUNTER
    assert forms.window == Rolling(7 * DAY_US)
    vendor = "com.snowplowanalytics.snowplow"
    assert forms.filter == AnyOf(
        (EventTypeIs(vendor, "focus_form", "1-0-0"), EventTypeIs(vendor, "change_form", "1-0-0"))
    )
    device = by_name["latest_device_class"]
    assert device.term == Property("entity", "deviceClass", "nl.basjes", "yauaa_context", 1, 0)
    assert (device.term_type, device.window) == (TermType.STRING, Lifetime())


@settings(max_examples=60)
@given(strategies.groups)
def test_random_valid_groups_have_no_problems_and_compile(group: AttributeGroup) -> None:
    assert check_group(group) == []
    for attribute in group.attributes:
        assert hash(compile_attribute(attribute)) == hash(compile_attribute(attribute))


@settings(max_examples=60)
@given(strategies.groups)
def test_groups_survive_their_signals_document(group: AttributeGroup) -> None:
    text = write_document(group)
    document = read_document(text)
    assert not document.problems
    assert isinstance(document.definition, AttributeGroup)
    assert compile_group(document.definition) == compile_group(group)
    assert write_document(document.definition) == text


@settings(max_examples=60)
@given(strategies.groups)
def test_groups_survive_protobuf(group: AttributeGroup) -> None:
    back, problems = proto_reader.group_from_proto(proto.group_to_proto(group), group.group_id, group.version)
    assert not problems
    assert back == group


@settings(max_examples=40)
@given(strategies.services)
def test_services_survive_both_forms(service: FeatureService) -> None:
    assert check_service(service) == []
    assert proto_reader.service_from_proto(proto.service_to_proto(service), service.service_id) == (service, [])
    document = read_document(write_document(service))
    assert not document.problems
    assert write_document(document.definition) == write_document(service)


@given(strategies.durations_us)
def test_durations_survive_their_text(duration_us: int) -> None:
    assert parse_duration(format_duration(duration_us)) == duration_us


@pytest.mark.parametrize(
    ("text", "days"), [("P7D", 7), ("P1Y", 365), ("P2W", 14), ("P1M", 30), ("P1Y2M10D", 435), ("PT36H", 1.5)]
)
def test_durations_count_a_year_as_365_days(text: str, days: float) -> None:
    assert parse_duration(text) == days * DAY_US


@pytest.mark.parametrize("text", ["", "P", "PT", "7D", "P7", "P-7D", "-P7D", "P1DT", "PT0.0000001S", "P٧D"])
def test_what_is_not_a_duration_is_refused(text: str) -> None:
    assert parse_duration(text) is None


def test_an_attribute_key_may_be_a_string_and_stays_one() -> None:
    document = read_document('{"name": "g", "version": 1, "attribute_key": "user_id", "attributes": []}')
    assert document.definition.attribute_key == "user_id"  # type: ignore[union-attr]
    assert '"attribute_key": "user_id"' in write_document(document.definition)


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [('{"name": "g",\n "version": }', 2, 13), ("", 1, 1), ("[1]", 1, 1), ('{"a": NaN}', 1, 1), ("[" * 100_000, 1, 1)],
)
def test_malformed_json_says_where(text: str, line: int, column: int) -> None:
    with pytest.raises(JsonSyntaxError) as caught:
        read_document(text)
    assert (caught.value.line, caught.value.column) == (line, column)
