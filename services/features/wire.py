"""Writes profiles in protobuf's wire format, straight from values.

A profile of 19 attributes is some 60 nested messages; building them as objects costs several times the read itself.
What is written here equals what the generated classes write, field by field in rising order; tests hold it to that.
"""

import struct
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from services.features.definitions import CategoryCounts, Value, ValueType
from services.features.properties import PropertyType
from services.features.property_values import Nested, from_text
from services.features.values import Status
from services.kernel.expressions import Instant

_LENGTH_DELIMITED = 2
_DOUBLE = struct.Struct("<d").pack
_SMALL = tuple(bytes((i,)) for i in range(128))
_TAGS = tuple(bytes((field << 3 | _LENGTH_DELIMITED,)) for field in range(16))
_U64 = (1 << 64) - 1

Encoder = Callable[[Any], bytes]


def varint(number: int) -> bytes:
    """A whole number, 0 to 2^64 - 1, seven bits a byte, the lowest first; all but the last byte have the high bit."""
    if number < 128:
        return _SMALL[number]
    if number < 1 << 14:
        return bytes((number & 127 | 128, number >> 7))
    if 1 << 28 <= number < 1 << 35:
        # Seconds of our days, and most nanoseconds.
        return bytes(
            (
                number & 127 | 128,
                number >> 7 & 127 | 128,
                number >> 14 & 127 | 128,
                number >> 21 & 127 | 128,
                number >> 28,
            )
        )
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def delimited(field: int, content: bytes) -> bytes:
    """A field of bytes, text or a message."""
    length = len(content)
    return _TAGS[field] + (_SMALL[length] if length < 128 else varint(length)) + content


def integer_field(field: int, number: int) -> bytes:
    """An int64 field; zero, the default, is not written."""
    return _SMALL[field << 3] + varint(number & _U64) if number else b""


def timestamp(instant_us: int) -> bytes:
    """The content of a google.protobuf.Timestamp."""
    seconds, micros = divmod(instant_us, 1_000_000)
    return integer_field(1, seconds) + integer_field(2, micros * 1_000)


# Fields of inkling.types.v1.Value; those of a oneof are written also when they are the default.
_STRING, _FLOAT, _INT, _BOOL, _TIMESTAMP, _STRINGS, _COUNTS, _FLOATS, _INTS, _LIST, _RECORD = range(1, 12)
_FLOAT_TAG = _SMALL[_FLOAT << 3 | 1]
_INT_TAG = _SMALL[_INT << 3]
_SMALL_INTS = tuple(_INT_TAG + each for each in _SMALL)
_TRUE, _FALSE = _SMALL[_BOOL << 3] + b"\x01", _SMALL[_BOOL << 3] + b"\x00"


def _string(value: str) -> bytes:
    return delimited(_STRING, value.encode())


def _integer(value: int) -> bytes:
    return _SMALL_INTS[value] if 0 <= value < 128 else _INT_TAG + varint(value & _U64)


def _double(value: float) -> bytes:
    return _FLOAT_TAG + _DOUBLE(value)


def _boolean(value: bool) -> bytes:
    return _TRUE if value else _FALSE


def _strings(values: Iterable[str]) -> bytes:
    return delimited(_STRINGS, b"".join([delimited(1, value.encode()) for value in values]))


def _integers(values: Iterable[int]) -> bytes:
    packed = b"".join([varint(value & _U64) for value in values])
    return delimited(_INTS, delimited(1, packed) if packed else b"")


def _doubles(values: Iterable[float]) -> bytes:
    packed = b"".join([_DOUBLE(value) for value in values])
    return delimited(_FLOATS, delimited(1, packed) if packed else b"")


def _counts(value: CategoryCounts) -> bytes:
    entries = (
        (delimited(1, category.encode()) if category else b"") + integer_field(2, count)
        for category, count in value.entries
    )
    return delimited(_COUNTS, b"".join([delimited(1, entry) for entry in entries]))


ENCODERS: Mapping[ValueType, Encoder] = {
    ValueType.STRING: _string,
    ValueType.INT32: _integer,
    ValueType.INT64: _integer,
    ValueType.FLOAT: _double,
    ValueType.DOUBLE: _double,
    ValueType.BOOL: _boolean,
    ValueType.TIMESTAMP: lambda value: delimited(_TIMESTAMP, timestamp(value.us)),
    ValueType.STRING_LIST: _strings,
    ValueType.INT64_LIST: _integers,
    ValueType.DOUBLE_LIST: _doubles,
    ValueType.CATEGORY_COUNTS: _counts,
}
"""The content of an inkling.types.v1.Value, by the type of the value."""

_VALUE_TAG = _TAGS[2]
_FRACTION_TAG = _SMALL[5 << 3 | 1]
_STATUS_FIELDS = (b"", *(_SMALL[3 << 3] + _SMALL[status] for status in Status))


def last_event_field(instant_us: int | None) -> bytes:
    """The field `last_event_time` of an AttributeValue."""
    return b"" if instant_us is None else delimited(4, timestamp(instant_us))


def cached_last_event_field() -> Callable[[int | None], bytes]:
    """The same with a memory: attributes of one profile mostly share their last event."""
    return lru_cache(maxsize=8192)(last_event_field)


class AttributeWriter:
    """Writes the values of one attribute as entries of `Profile.values`."""

    def __init__(
        self,
        name: str,
        value_type: ValueType,
        last_event: Callable[[int | None], bytes] = last_event_field,
        profile_field: int = 3,
        group: str = "",
    ) -> None:
        """`group` is written too, unless empty; `profile_field` is where the values stand in Profile."""
        self._name = delimited(1, name.encode())
        self._field = profile_field
        self._group = text_field(6, group)
        self._encode = ENCODERS[value_type]
        self._last_event = last_event

    def write(
        self, value: Value | None, status: Status, last_event_us: int | None = None, covered_fraction: float = 0.0
    ) -> bytes:
        """One AttributeValue with its tag and length."""
        tail = _STATUS_FIELDS[status] + self._last_event(last_event_us)
        if covered_fraction:
            tail += _FRACTION_TAG + _DOUBLE(covered_fraction)
        tail += self._group
        if value is None:
            return delimited(self._field, self._name + tail)
        data = self._encode(value)
        length = len(data)
        return delimited(
            self._field, self._name + _VALUE_TAG + (_SMALL[length] if length < 128 else varint(length)) + data + tail
        )


class PropertyWriter:
    """Writes the values of one property as entries of `Profile.properties`."""

    def __init__(self, name: str, kind: PropertyType, last_event: Callable[[int | None], bytes]) -> None:
        self._name = delimited(1, name.encode())
        self._encode = PROPERTY_ENCODERS[kind]
        self._last_event = last_event

    def write(self, value: Any, status: Status, event_us: int | None, source: str) -> bytes:
        """One PropertyValue with its tag and length, from a value of the kernel."""
        data = b"" if value is None else delimited(2, self._encode(value))
        tail = _STATUS_FIELDS[status] + self._last_event(event_us) + text_field(5, source)
        return delimited(6, self._name + data + tail)


def nested(value: Nested) -> bytes:
    """The content of a Value that may hold others; empty for null."""
    if value is None:
        return b""
    if isinstance(value, list):
        return delimited(_LIST, b"".join([delimited(1, nested(each)) for each in value]))
    if isinstance(value, dict):
        entries = (delimited(1, name.encode()) + delimited(2, nested(each)) for name, each in value.items())
        return delimited(_RECORD, b"".join([delimited(1, entry) for entry in entries]))
    if isinstance(value, Instant):
        return delimited(_TIMESTAMP, timestamp(value.us))
    return _SCALARS[type(value)](value)


_SCALARS: Mapping[type, Encoder] = {str: _string, bool: _boolean, int: _integer, float: _double}
PROPERTY_ENCODERS: Mapping[PropertyType, Encoder] = {
    PropertyType.BOOLEAN: _boolean,
    PropertyType.NUMERIC: _double,
    PropertyType.STRING: _string,
    PropertyType.DATE: lambda us: delimited(_TIMESTAMP, timestamp(us)),
    PropertyType.ARRAY: lambda text: nested(from_text(text)),
    PropertyType.RECORD: lambda text: nested(from_text(text)),
}
"""The content of a Value from a value of the kernel, by the type of the property."""


def profile(attribute_key: bytes, key_value: str, values: bytes, position: int, as_of: bytes) -> bytes:
    """A Profile from its parts, of which `attribute_key` (field 1) and `as_of` (field 5) are written already."""
    return b"".join((attribute_key, delimited(2, key_value.encode()), values, integer_field(4, position), as_of))


def text_field(field: int, text: str) -> bytes:
    """A string field; the empty text, the default, is not written."""
    return delimited(field, text.encode()) if text else b""
