"""Writes of properties as events of the log: checked against the declarations, and encoded for ingest.

The events are written in protobuf's wire format, straight from the values as they came: a write of five properties is
some thirty nested messages. Tests hold it to what the generated classes write.
"""

import hashlib
import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from inkling.features.v1 import property_service_pb2 as messages
from inkling.types.v1.value_pb2 import Value as ValueMessage
from services.features import wire
from services.features.definitions import ValueType, suggestion
from services.features.properties import EVENT_NAME, EVENT_VERSION, Merge, PropertyDefinition, PropertyType
from services.features.property_values import BadValueError, Nested, to_text
from services.kernel.columns import RESERVED_VENDOR
from services.kernel.expressions import Instant

MAX_VALUES = 100
"""Of one write."""
MAX_KEY_VALUE, MAX_WRITE_ID, MAX_TEXT_BYTES = 256, 100, 32 * 1024
MAX_INTEGER = 2**53
_TEXT = wire.ENCODERS[ValueType.STRING]
_TRUE = b"\x20\x01"
"""A Value that is true."""
_TYPE = wire.delimited(
    2,
    wire.text_field(1, RESERVED_VENDOR) + wire.text_field(2, EVENT_NAME) + wire.text_field(3, EVENT_VERSION),
)
_KINDS = {
    "string_value": PropertyType.STRING,
    "bool_value": PropertyType.BOOLEAN,
    "double_value": PropertyType.NUMERIC,
    "int_value": PropertyType.NUMERIC,
    "timestamp_value": PropertyType.DATE,
    "list_value": PropertyType.ARRAY,
    "string_list_value": PropertyType.ARRAY,
    "double_list_value": PropertyType.ARRAY,
    "int_list_value": PropertyType.ARRAY,
    "record_value": PropertyType.RECORD,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one write is refused: `reason` is a value of ErrorReason without its prefix."""

    index: int
    reason: str
    field: str
    """Within the write, such as values.plan."""
    message: str


@dataclass(slots=True)
class Encoded:
    """A chunk of writes, ready for ingest."""

    request: bytes
    """An IngestRequest."""
    places: list[int]
    """For each of its events the place of the write."""
    refused: list[Refusal] = field(default_factory=list)


class _RefusedError(Exception):
    def __init__(self, reason: str, place: str, message: str) -> None:
        self.reason, self.place, self.message = reason, place, message


class WriteEncoder:
    """Encodes chunks of writes of one attribute key."""

    def __init__(self, definitions: Iterable[PropertyDefinition], attribute_key: str, source: str) -> None:
        """`definitions` are those of the attribute key."""
        self._attribute_key = attribute_key
        self._key = wire.text_field(1, attribute_key)
        self._declared = {each.property_id: (each, wire.text_field(1, each.property_id)) for each in definitions}
        value = wire.delimited(2, _TEXT(source))
        self._source_text = source
        self._source = wire.delimited(6, wire.text_field(1, "source") + value)

    def encode(self, writes: Sequence[messages.PropertyWrite], chunk_id: str, now_us: int) -> Encoded:
        """The events of the writes. Those without an event time get `now_us`, and a microsecond more for each earlier
        one of the same profile: see `ticks`.
        """
        events: list[bytes] = []
        encoded = Encoded(b"", [])
        seen: dict[str, int] = {}
        for index, write in enumerate(writes):
            default_us = now_us + seen.get(write.key_value, 0)
            try:
                event = self._event(write, f"{chunk_id}:{index}" if chunk_id else "", default_us)
            except _RefusedError as error:
                encoded.refused.append(Refusal(index, error.reason, error.place, error.message))
                continue
            if not write.HasField("event_time"):
                seen[write.key_value] = seen.get(write.key_value, 0) + 1
            events.append(wire.delimited(1, event))
            encoded.places.append(index)
        encoded.request = b"".join(events)
        return encoded

    def _event(self, write: messages.PropertyWrite, derived_id: str, default_us: int) -> bytes:
        key_value = write.key_value
        if not 0 < len(key_value) <= MAX_KEY_VALUE:
            raise _RefusedError("OUT_OF_RANGE", "key_value", f"has 1 to {MAX_KEY_VALUE} characters.")
        if len(write.write_id) > MAX_WRITE_ID:
            raise _RefusedError("OUT_OF_RANGE", "write_id", f"has at most {MAX_WRITE_ID} characters.")
        count = len(write.values) + len(write.unset)
        if not 1 <= count <= MAX_VALUES:
            raise _RefusedError("OUT_OF_RANGE", "values", f"A write sets and unsets 1 to {MAX_VALUES} properties.")
        parts = []
        for name, value in write.values.items():
            found = self._declared.get(name)
            if found is None:
                raise self._undeclared(f"values.{name[:128]}", name)
            try:
                content = value_bytes(found[0], value)
            except BadValueError as error:
                raise _RefusedError("BAD_VALUE", f"values.{name}", f"The value {error}.") from None
            parts.append(wire.delimited(5, found[1] + wire.delimited(2, content)))
        parts += [self._unset(write, name) for name in write.unset]
        time = write.event_time.SerializeToString() if write.HasField("event_time") else wire.timestamp(default_us)
        content = b"".join(
            (
                _TYPE,
                wire.delimited(3, time),
                wire.delimited(4, self._key + wire.text_field(2, key_value)),
                *parts,
                self._source,
            )
        )
        return wire.text_field(1, self._event_id(write, derived_id)) + content

    def _unset(self, write: messages.PropertyWrite, name: str) -> bytes:
        found = self._declared.get(name)
        if found is None:
            raise self._undeclared("unset", name)
        if name in write.values:
            raise _RefusedError("BAD_VALUE", "unset", f"{name} is both set and unset: do one of them.")
        if found[0].merge is not Merge.MOST_RECENT:
            text = f"{name} merges by {found[0].merge}, where nothing can be taken back: correct it with another write."
            raise _RefusedError("BAD_VALUE", "unset", text)
        return wire.delimited(6, wire.text_field(1, f"unset.{name}") + wire.delimited(2, _TRUE))

    def _undeclared(self, place: str, name: str) -> _RefusedError:
        hint = suggestion(name, self._declared)
        return _RefusedError("UNDECLARED_PROPERTY", place, f"{self._attribute_key} has no such property: {hint}")

    def _event_id(self, write: messages.PropertyWrite, derived_id: str) -> str:
        """The write's own id, else the chunk's with its place, else from the content if that says when it was."""
        if write.write_id or derived_id:
            return f"set:{write.write_id or derived_id}"
        if not write.HasField("event_time"):
            return f"set:{secrets.token_hex(16)}"
        head = f"{self._attribute_key}\n{self._source_text}\n".encode()
        return f"set:{hashlib.sha256(head + write.SerializeToString(deterministic=True)).hexdigest()[:32]}"


def ticks(writes: Sequence[messages.PropertyWrite]) -> int:
    """How many microseconds the default event times of writes take."""
    counts: dict[str, int] = {}
    for write in writes:
        if not write.HasField("event_time"):
            counts[write.key_value] = counts.get(write.key_value, 0) + 1
    return max(counts.values(), default=0)


def value_bytes(definition: PropertyDefinition, value: ValueMessage) -> bytes:
    """A value as the Value message that goes into the log; raises BadValueError when it does not fit the property."""
    kind = value.WhichOneof("kind")
    expected = definition.type
    if kind is None:
        raise BadValueError("is missing: name the property in `unset` to take its value away")
    found = _KINDS.get(kind)
    if found is not expected:
        raise BadValueError(f"is not {_article(expected)}: send what the property was declared as")
    if expected is PropertyType.ARRAY or expected is PropertyType.RECORD:
        return _TEXT(to_text(nested(value)))
    if kind == "double_value":
        if not math.isfinite(value.double_value):
            raise BadValueError("is NaN or infinite: leave it out")
    elif kind == "int_value":
        if abs(value.int_value) > MAX_INTEGER:
            raise BadValueError("is beyond 2^53, where numbers are not exact: declare a string")
    elif kind == "string_value":
        limit = MAX_KEY_VALUE if definition.refers_to else MAX_TEXT_BYTES
        if len(value.string_value) * 4 > limit and _too_long(definition, value.string_value):
            text = "has more than 256 characters, as no key has" if definition.refers_to else "is longer than 32 KiB"
            raise BadValueError(f"{text}: shorten it")
    return value.SerializeToString()


def nested(value: ValueMessage) -> Nested:
    """A Value of any kind that a property may hold; raises BadValueError."""
    match value.WhichOneof("kind"):
        case None:
            return None
        case "timestamp_value":
            time = value.timestamp_value
            return Instant(time.seconds * 1_000_000 + time.nanos // 1_000)
        case "list_value":
            return [nested(each) for each in value.list_value.values]
        case "record_value":
            return {name: nested(each) for name, each in value.record_value.fields.items()}
        case "string_list_value" | "double_list_value" | "int_list_value" as kind:
            return list(getattr(value, kind).values)
        case "string_value" | "bool_value" | "double_value" | "int_value" as kind:
            scalar: Nested = getattr(value, kind)
            return scalar
        case _:
            raise BadValueError("holds counts by category: send a record")


def _too_long(definition: PropertyDefinition, text: str) -> bool:
    return len(text) > MAX_KEY_VALUE if definition.refers_to else len(text.encode()) > MAX_TEXT_BYTES


def _article(expected: PropertyType | None) -> str:
    articles: Mapping[PropertyType | None, str] = {PropertyType.ARRAY: "an array"}
    return articles.get(expected, f"a {expected}")
