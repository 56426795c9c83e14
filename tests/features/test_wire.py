"""What is written by hand is what the generated classes write."""

from hypothesis import given
from hypothesis import strategies as st

from inkling.features.v1 import profile_pb2
from services.features import wire
from services.features.definitions import ValueType
from services.features.proto import timestamp, value_to_proto
from services.features.values import Status
from tests.features import strategies

Typed = tuple[ValueType, object]
typed_values: st.SearchStrategy[Typed] = st.sampled_from(ValueType).flatmap(
    lambda each: st.tuples(st.just(each), st.none() | strategies.VALUES[each])
)
instants_us = st.integers(-(10**14), 10**16)


@given(
    values=st.lists(st.tuples(strategies.identifiers, typed_values, st.sampled_from(Status), st.none() | instants_us)),
    key=strategies.identifiers,
    key_value=st.text(st.characters(codec="utf-8"), min_size=1),
    position=st.integers(0, 2**63 - 1),
    as_of_us=instants_us,
    fraction=st.floats(0, 1),
)
def test_profiles_written_by_hand_equal_those_of_the_generated_classes(
    values: list[tuple[str, Typed, Status, int | None]],
    key: str,
    key_value: str,
    position: int,
    as_of_us: int,
    fraction: float,
) -> None:
    expected = profile_pb2.Profile(
        attribute_key=key, key_value=key_value, position=position, as_of_time=timestamp(as_of_us)
    )
    written = []
    for name, (value_type, value), status, last_us in values:
        entry = expected.values.add(name=name, status=profile_pb2.ValueStatus.Name(status), covered_fraction=fraction)
        if value is not None:
            entry.value.CopyFrom(value_to_proto(value, value_type))  # type: ignore[arg-type]
        if last_us is not None:
            entry.last_event_time.CopyFrom(timestamp(last_us))
        written.append(wire.AttributeWriter(name, value_type).write(value, status, last_us, fraction))  # type: ignore[arg-type]
    as_of = wire.delimited(5, wire.timestamp(as_of_us))
    data = wire.profile(wire.text_field(1, key), key_value, b"".join(written), position, as_of)
    assert data == expected.SerializeToString(deterministic=True)
    assert profile_pb2.Profile.FromString(data) == expected


@given(st.integers(0, 2**64 - 1))
def test_varints_are_those_of_protobuf(number: int) -> None:
    expected = profile_pb2.Profile(position=number - 2**64 if number >= 2**63 else number).SerializeToString()
    assert wire.integer_field(4, number) == expected
