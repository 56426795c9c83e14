"""Reads messages of profiles as plain values."""

from typing import Any

from inkling.features.v1 import profile_pb2
from inkling.types.v1.value_pb2 import Value as ValueMessage
from services.features.proto_reader import instant_us, value_from_proto
from services.features.values import Status

Answers = dict[str, tuple[Any, ...]]


def read(data: bytes, *, with_fraction: bool = False) -> Answers:
    """The values of a Profile by name: value, status, time of the last event."""
    return read_values(profile_pb2.Profile.FromString(data), with_fraction=with_fraction)


def read_values(profile: profile_pb2.Profile, *, with_fraction: bool = False) -> Answers:
    """The same of a parsed message."""
    result: Answers = {}
    for each in profile.values:
        last = instant_us(each.last_event_time) if each.HasField("last_event_time") else None
        answer = (plain(each.value) if each.HasField("value") else None, Status(each.status), last)
        result[each.name] = (*answer, each.covered_fraction) if with_fraction else answer
    return result


def plain(message: ValueMessage) -> Any:
    """A value as a Python value: lists, and counts as dictionaries."""
    value = value_from_proto(message)
    if isinstance(value, tuple):
        return list(value)
    return dict(value.entries) if hasattr(value, "entries") else value
