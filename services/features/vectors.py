"""Served profiles as bytes: when they hold, and how two of them differ."""

from typing import NamedTuple

from inkling.features.v1 import profile_pb2
from inkling.features.v1.profile_pb2 import ValueStatus
from services.features.proto_reader import instant_us

_NOT_COMPARED = frozenset(
    {
        profile_pb2.VALUE_STATUS_BACKFILLING,
        profile_pb2.VALUE_STATUS_WRONG_KEY,
        # The log and the archive let go of old events by batches and by files: what is left of a window may differ.
        profile_pb2.VALUE_STATUS_LEFT_TRUNCATED,
    }
)


_Value = profile_pb2.AttributeValue | profile_pb2.PropertyValue


class Difference(NamedTuple):
    """A value that is not what it was."""

    name: str
    served_status: str
    recomputed_status: str


class Verdict(NamedTuple):
    """How a profile compares with its recomputation."""

    checked: int
    skipped: int
    differences: list[Difference]


def position_of(profile: bytes) -> int:
    """The position up to which a Profile holds."""
    return profile_pb2.Profile.FromString(profile).position


def instant_of(profile: bytes) -> int:
    """The instant up to which a Profile holds; the least one when it has none."""
    message = profile_pb2.Profile.FromString(profile)
    return instant_us(message.as_of_time) if message.HasField("as_of_time") else -(2**63)


def compare(served: bytes, recomputed: bytes) -> Verdict:
    """Compares values and properties one by one: value, status, last event; roll-ups and segments are of more than one
    key and are not compared.
    """
    left, right = profile_pb2.Profile.FromString(served), profile_pb2.Profile.FromString(recomputed)
    checked = skipped = 0
    differences: list[Difference] = []
    ours: list[_Value] = [*left.values, *left.properties]
    theirs: list[_Value] = [*right.values, *right.properties]
    for mine, other in zip(ours, theirs, strict=True):
        if mine.status in _NOT_COMPARED or other.status in _NOT_COMPARED:
            skipped += 1
            continue
        checked += 1
        if mine != other:
            statuses = (ValueStatus.Name(each.status).removeprefix("VALUE_STATUS_") for each in (mine, other))
            differences.append(Difference(mine.name, *statuses))
    return Verdict(checked, skipped, differences)
