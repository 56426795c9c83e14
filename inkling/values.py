"""Python values and the `Value` messages that carry them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from inkling.types.v1.value_pb2 import ListValue, RecordValue, StringList
from inkling.types.v1.value_pb2 import Value as ValueMessage

PropertyValue = None | str | bool | int | float | datetime | list[str]
"""What a property of an event may be."""

AttributeValue = None | str | bool | int | float | datetime | list[str] | list[int] | list[float] | dict[str, int]
"""What an attribute may be."""

NestedValue = None | str | bool | int | float | datetime | Sequence["NestedValue"] | Mapping[str, "NestedValue"]
"""What a property of a profile may be: also lists and records of anything."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def encode(value: PropertyValue) -> ValueMessage:
    """The message of a value; TypeError for another kind. An int stays an integer and a float a double."""
    match value:
        case None:
            return ValueMessage()
        case str():
            return ValueMessage(string_value=value)
        case bool():
            return ValueMessage(bool_value=value)
        case int():
            return ValueMessage(int_value=value)
        case float():
            return ValueMessage(double_value=value)
        case datetime():
            return ValueMessage(timestamp_value=timestamp(value))
        case list() | tuple() if all(isinstance(each, str) for each in value):
            return ValueMessage(string_list_value=StringList(values=value))
        case _:
            kind = type(value).__name__
            raise TypeError(f"a value is None, str, bool, int, float, datetime or a list of str, not {kind}")


def encode_nested(value: NestedValue) -> ValueMessage:
    """The message of a property's value: lists and mappings may hold values of any kind. TypeError for another kind."""
    if isinstance(value, Mapping):
        return ValueMessage(
            record_value=RecordValue(fields={name: encode_nested(each) for name, each in value.items()})
        )
    if isinstance(value, list | tuple):
        return ValueMessage(list_value=ListValue(values=[encode_nested(each) for each in value]))
    return encode(value)  # type: ignore[arg-type]


def decode_nested(message: ValueMessage) -> NestedValue:
    """The value of a property; None when no kind is set."""
    match message.WhichOneof("kind"):
        case "list_value":
            return [decode_nested(each) for each in message.list_value.values]
        case "record_value":
            return {name: decode_nested(each) for name, each in message.record_value.fields.items()}
        case _:
            return decode(message)


def decode(message: ValueMessage) -> AttributeValue:
    """The value of a message; None when no kind is set."""
    match message.WhichOneof("kind"):
        case "string_value":
            return message.string_value
        case "int_value":
            return message.int_value
        case "double_value":
            return message.double_value
        case "bool_value":
            return message.bool_value
        case "timestamp_value":
            return instant(message.timestamp_value)
        case "string_list_value":
            return list(message.string_list_value.values)
        case "int_list_value":
            return list(message.int_list_value.values)
        case "double_list_value":
            return list(message.double_list_value.values)
        case "category_counts_value":
            return {entry.category: entry.count for entry in message.category_counts_value.entries}
        case _:
            return None


def timestamp(moment: datetime) -> Timestamp:
    """The message of an instant, to the microsecond; ValueError for a datetime without a time zone."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone: give one, such as tzinfo=UTC")
    since = moment - EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1_000)


def instant(message: Timestamp) -> datetime:
    """The instant of a message, in UTC, to the microsecond."""
    return EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1_000)


def duration(span: timedelta) -> Duration:
    """The message of a span of time, to the microsecond."""
    whole = span // timedelta(microseconds=1)
    seconds, micros = divmod(abs(whole), 1_000_000)
    sign = -1 if whole < 0 else 1
    return Duration(seconds=sign * seconds, nanos=sign * micros * 1_000)


def encode_all(values: Mapping[str, PropertyValue]) -> dict[str, ValueMessage]:
    """The messages of named values; nulls are left out, because absent and null mean the same."""
    return {name: encode(value) for name, value in values.items() if value is not None}
