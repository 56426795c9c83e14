"""What is written by hand of properties is what the generated classes write and read."""

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from inkling.features.v1 import profile_pb2
from inkling.features.v1.property_service_pb2 import PropertyWrite
from inkling.ingest.v1.event_pb2 import Event
from inkling.ingest.v1.ingest_service_pb2 import IngestRequest
from inkling.types.v1.value_pb2 import ListValue, RecordValue, Value
from services.features import wire
from services.features.properties import PropertyDefinition, PropertyType
from services.features.property_events import WriteEncoder, nested
from services.features.property_values import from_text, to_text
from services.features.proto import timestamp
from services.features.values import Status
from services.kernel.expressions import Instant

NOW_US = 1_700_000_000_123_456
texts = st.text(st.characters(codec="utf-8"), max_size=8)
instants = st.integers(-(10**15), 10**16).map(Instant)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | instants
)
names = texts.filter(lambda name: not name.startswith("@"))
nestings = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=8
)
DEFINITIONS = {
    PropertyType.BOOLEAN: st.booleans(),
    PropertyType.NUMERIC: st.floats(allow_nan=False, allow_infinity=False),
    PropertyType.STRING: texts,
    PropertyType.DATE: instants,
    PropertyType.ARRAY: st.lists(nestings, max_size=3),
    PropertyType.RECORD: st.dictionaries(names, nestings, max_size=3),
}
typed = st.sampled_from(PropertyType).flatmap(lambda kind: st.tuples(st.just(kind), DEFINITIONS[kind]))


def message(value: Any) -> Value:
    """A value as the generated class."""
    match value:
        case None:
            return Value()
        case bool():
            return Value(bool_value=value)
        case int():
            return Value(int_value=value)
        case float():
            return Value(double_value=value)
        case str():
            return Value(string_value=value)
        case Instant():
            return Value(timestamp_value=timestamp(value.us))
        case list():
            return Value(list_value=ListValue(values=[message(each) for each in value]))
    return Value(record_value=RecordValue(fields={name: message(each) for name, each in value.items()}))


def stored(kind: PropertyType, value: Any) -> Any:
    """A value as the kernel holds it."""
    if kind in (PropertyType.ARRAY, PropertyType.RECORD):
        return to_text(value)
    return value.us if kind is PropertyType.DATE else value


@given(value=nestings)
def test_arrays_and_records_come_back_from_their_text_with_every_kind_kept(value: Any) -> None:
    back = from_text(to_text(value))
    assert message(back) == message(value)
    assert nested(message(value)) == value
    assert math.copysign(1, _zero(back)) == math.copysign(1, _zero(value))


def _zero(value: Any) -> float:
    return value if isinstance(value, float) else 1.0


@given(
    entries=st.lists(
        st.tuples(typed, st.sampled_from(Status), st.none() | st.integers(-(10**14), 10**16), texts, st.booleans()),
        max_size=4,
    )
)
def test_properties_of_a_profile_are_what_the_generated_classes_read(entries: list[Any]) -> None:
    expected = profile_pb2.Profile()
    written = []
    for i, ((kind, value), status, event_us, source, is_null) in enumerate(entries):
        each = expected.properties.add(name=f"p{i}", status=int(status), source=source)
        if event_us is not None:
            each.event_time.CopyFrom(timestamp(event_us))
        if not is_null:
            each.value.CopyFrom(message(value))
        writer = wire.PropertyWriter(f"p{i}", kind, wire.last_event_field)
        written.append(writer.write(None if is_null else stored(kind, value), status, event_us, source))
    assert profile_pb2.Profile.FromString(b"".join(written)) == expected


@given(
    values=st.lists(typed, min_size=1, max_size=5),
    unset=st.booleans(),
    key_value=texts.filter(bool),
    event_us=st.none() | st.integers(0, 10**16),
    source=texts.filter(bool),
)
def test_a_write_is_the_event_that_the_generated_classes_would_make_of_it(
    values: list[tuple[PropertyType, Any]], unset: bool, key_value: str, event_us: int | None, source: str
) -> None:
    definitions = [PropertyDefinition("user_id", f"p{i}", kind) for i, (kind, _) in enumerate(values)]
    write = PropertyWrite(key_value=key_value, write_id="w")
    expected = Event(event_id="set:w", keys={"user_id": key_value})
    expected.type.vendor, expected.type.name, expected.type.version = "inkling", "set_properties", "1-0-0"
    expected.occurred_at.CopyFrom(timestamp(NOW_US if event_us is None else event_us))
    expected.data["source"].string_value = source
    if event_us is not None:
        write.event_time.CopyFrom(timestamp(event_us))
    for i, (kind, value) in enumerate(values):
        if unset and i == 0:
            write.unset.append("p0")
            expected.data["unset.p0"].bool_value = True
            continue
        write.values[f"p{i}"].CopyFrom(message(value))
        as_text = kind in (PropertyType.ARRAY, PropertyType.RECORD)
        expected.properties[f"p{i}"].CopyFrom(message(to_text(value) if as_text else value))
    encoded = WriteEncoder(definitions, "user_id", source).encode([write], "", NOW_US)
    assert not encoded.refused
    (event,) = IngestRequest.FromString(encoded.request).events
    assert event == expected


def test_equal_records_have_equal_texts_whatever_the_order_of_their_fields() -> None:
    assert to_text({"b": 1, "a": [1.0]}) == to_text({"a": [1.0], "b": 1}) == '{"a":[1.0],"b":1}'
