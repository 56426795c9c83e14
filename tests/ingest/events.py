"""Events for the tests: as messages, made by hand or drawn at random, and the slow way to the log's columns."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from hypothesis import strategies as st

from inkling.ingest.v1.event_pb2 import Entity, Event
from inkling.types.v1.value_pb2 import Value
from services.kernel import building
from services.kernel.building import EPOCH, EventRow, build_batch

RECEIVED_US = 1_790_000_000_000_000
NOW = datetime(2026, 9, 1, tzinfo=UTC)


def value(given: object) -> Value:
    """A Value of the kind that fits the Python type; None is null."""
    match given:
        case None:
            return Value()
        case bool():
            return Value(bool_value=given)
        case int():
            return Value(int_value=given)
        case float():
            return Value(double_value=given)
        case str():
            return Value(string_value=given)
        case datetime():
            made = Value()
            made.timestamp_value.FromDatetime(given)
            return made
        case list():
            made = Value()
            made.string_list_value.values.extend(given)
            made.string_list_value.SetInParent()
            return made
    raise TypeError(type(given))


def event(
    event_id: str = "e1",
    *,
    name: str = "page_view",
    at: datetime = NOW,
    keys: Mapping[str, str] | None = None,
    properties: Mapping[str, object] | None = None,
    data: Mapping[str, object] | None = None,
    **fields: object,
) -> Event:
    """An event that is admitted unless an argument spoils it."""
    made = Event(event_id=event_id, **fields)  # type: ignore[arg-type]
    made.type.name = name
    made.occurred_at.FromDatetime(at)
    made.keys.update({"user_id": "u1"} if keys is None else keys)
    for target, given in ((made.properties, properties or {}), (made.data, data or {})):
        for key, content in given.items():
            target[key].CopyFrom(value(content))
    return made


def slow_batch(events: Iterable[Event], received_us: int = RECEIVED_US) -> pa.RecordBatch:
    """What the log should hold, by walking the messages in Python."""
    return build_batch(_row(message, received_us) for message in events)


def rows_of(batch: pa.RecordBatch) -> list[dict[str, object]]:
    """A batch as comparable rows, without fingerprints: the two ways hash differently."""
    return [{name: value for name, value in row.items() if name != "fingerprint"} for row in batch.to_pylist()]


def _row(message: Event, received_us: int) -> EventRow:
    deleted = message.operation == 3
    return EventRow(
        event_id=message.event_id,
        vendor=message.type.vendor,
        name=message.type.name,
        version=message.type.version,
        occurred_at_us=message.occurred_at.seconds * 1_000_000 + message.occurred_at.nanos // 1000,
        received_at_us=received_us,
        keys=dict(message.keys),
        properties={} if deleted else _plain(message.properties),
        data={} if deleted else _plain(message.data),
        entities=()
        if deleted
        else tuple(
            building.Entity(entity.vendor, entity.name, entity.major_version, _plain(entity.properties))
            for entity in message.entities
        ),
        operation=max(message.operation - 1, 0),
        revision=message.revision,
    )


def _plain(values: Mapping[str, Value]) -> dict[str, building.Scalar | None]:
    return {name: _scalar(content) for name, content in values.items()}


def _scalar(content: Value) -> building.Scalar | None:
    kind = content.WhichOneof("kind")
    if kind is None:
        return None
    if kind == "timestamp_value":
        instant = content.timestamp_value
        return EPOCH + timedelta(seconds=instant.seconds, microseconds=instant.nanos // 1000)
    if kind == "string_list_value":
        return list(content.string_list_value.values)
    scalar: building.Scalar = getattr(content, kind)
    return scalar


NAMES = st.sampled_from(["a", "b", "page_url", "größe", "x.y[0]", "名前", "long" * 20])
TEXTS = st.one_of(st.text(max_size=12), st.sampled_from(["", "same", "same again", "eight by", "x" * 100]))
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
    st.datetimes(timezones=st.just(UTC)),
    st.lists(TEXTS, max_size=3),
)
PROPERTIES = st.dictionaries(NAMES, VALUES.map(value), max_size=4)
ENTITIES = st.builds(
    Entity,
    vendor=st.sampled_from(["", "nl.basjes", "com.example"]),
    name=st.sampled_from(["yauaa_context", "web_page"]),
    major_version=st.integers(1, 2),
    properties=PROPERTIES,
)


@st.composite
def events(draw: st.DrawFn) -> Event:
    """An event that is admitted."""
    made = event(
        draw(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)),
        name=draw(st.sampled_from(["page_view", "purchase"])),
        at=draw(st.datetimes(datetime(1970, 1, 1), datetime(2261, 12, 31), timezones=st.just(UTC))),
        keys=draw(
            st.dictionaries(
                st.sampled_from(["user_id", "account_id", "k3"]),
                st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8),
                min_size=1,
            )
        ),
    )
    made.type.vendor = draw(st.sampled_from(["", "com.example"]))
    for name, content in draw(PROPERTIES).items():
        made.properties[name].CopyFrom(content)
    for name, content in draw(PROPERTIES).items():
        made.data[name].CopyFrom(content)
    made.entities.extend(draw(st.lists(ENTITIES, max_size=3)))
    made.operation, made.revision = draw(st.sampled_from([(0, 0), (1, 0), (2, 1), (2, 7), (3, 0), (3, 2)]))
    return made
