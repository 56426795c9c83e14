"""Reads and watches profiles."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

import grpc

from inkling.client.transport import Transport
from inkling.errors import from_rpc_error
from inkling.features.v1 import profile_pb2, profile_service_pb2
from inkling.features.v1.profile_service_pb2_grpc import ProfileServiceStub
from inkling.values import AttributeValue, NestedValue, decode, decode_nested, duration, instant

if TYPE_CHECKING:
    from inkling.features.v1.profile_service_pb2_grpc import ProfileServiceAsyncStub


class Status(StrEnum):
    """How a value came about; the meanings are those of `ValueStatus` in the protos."""

    UNSPECIFIED = "UNSPECIFIED"
    PRESENT = "PRESENT"
    EMPTY_WINDOW = "EMPTY_WINDOW"
    NEVER_SEEN = "NEVER_SEEN"
    NULL = "NULL"
    EXPIRED = "EXPIRED"
    BACKFILLING = "BACKFILLING"
    LEFT_TRUNCATED = "LEFT_TRUNCATED"
    TRUNCATED = "TRUNCATED"
    WRONG_KEY = "WRONG_KEY"
    OUT_OF_RANGE = "OUT_OF_RANGE"


STATUSES = {
    number: Status(name.removeprefix("VALUE_STATUS_"))
    for name, number in profile_pb2.ValueStatus.items()
    if name.removeprefix("VALUE_STATUS_") in Status.__members__
}
"""By their numbers on the wire."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The value of one attribute, how it came about, and the time of the last event that the attribute looks at.

    `covered_fraction`, from 0 to 1, says with LEFT_TRUNCATED how much of the window the log still covers.
    """

    value: AttributeValue
    status: Status
    last_event_time: datetime | None = None
    covered_fraction: float = 0.0


@dataclass(frozen=True, slots=True)
class PropertyReading:
    """The value of one property, the event time of its last write, and who set it (`api`, `rule:…`, `model:…`)."""

    value: NestedValue
    status: Status
    event_time: datetime | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of one key: readings by attribute name, in the order of their definitions.

    Where everything was asked for, an attribute that several groups have is named `group:attribute`.

    They hold up to `position` of the log, and up to the instant `as_of_time` (exclusive): None while the clock of a log
    without events has not begun.
    """

    attribute_key: str
    key_value: str
    readings: Mapping[str, Reading]
    position: int
    as_of_time: datetime | None
    properties: Mapping[str, PropertyReading] = field(default_factory=dict)
    rollups: Mapping[str, Reading] = field(default_factory=dict)
    segments: tuple[str, ...] = ()

    def __getitem__(self, attribute: str) -> AttributeValue:
        return self.readings[attribute].value

    @property
    def values(self) -> dict[str, AttributeValue]:
        """The values alone."""
        return {name: reading.value for name, reading in self.readings.items()}

    @property
    def statuses(self) -> dict[str, Status]:
        """The statuses alone."""
        return {name: reading.status for name, reading in self.readings.items()}


@dataclass(frozen=True, slots=True)
class ProfileChanges:
    """Profiles that changed, each with all watched values. `resume_token` goes on after them, also in a new process."""

    profiles: tuple[Profile, ...]
    resume_token: str


class AsyncProfiles:
    """What is known of a key, now.

    A selection is a `service`, or `groups` (with `/version`, else the latest published), or single `attributes`
    (`group:attribute` or `group/version:attribute`); and beside these `properties` and `rollups` by name (`*` for all)
    and `segments`. Or it is `everything` known of an attribute key.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def get(
        self,
        key_value: str,
        *,
        service: str = "",
        groups: Sequence[str] = (),
        attributes: Sequence[str] = (),
        properties: Sequence[str] = (),
        rollups: Sequence[str] = (),
        segments: bool = False,
        everything: bool = False,
        attribute_key: str = "",
        min_position: int = 0,
        wait: timedelta | None = None,
        timeout: timedelta | None = None,
    ) -> Profile:
        """Reads one profile. An unknown key value has nulls with NEVER_SEEN; an unknown service is NotFound.

        With `min_position` (from the result of a write) it answers once that is applied, or fails after `wait`.
        """
        request = profile_service_pb2.GetProfileRequest(
            attribute_key=attribute_key,
            key_value=key_value,
            selection=selection(service, groups, attributes, properties, rollups, segments, everything),
            min_position=min_position,
            wait_timeout=None if wait is None else duration(wait),
        )
        return read_profile(await self._transport.call(self._stub.GetProfile, request, timeout=timeout))

    async def batch_get(
        self,
        key_values: Sequence[str],
        *,
        service: str = "",
        groups: Sequence[str] = (),
        attributes: Sequence[str] = (),
        properties: Sequence[str] = (),
        rollups: Sequence[str] = (),
        segments: bool = False,
        everything: bool = False,
        attribute_key: str = "",
        min_position: int = 0,
        wait: timedelta | None = None,
        timeout: timedelta | None = None,
    ) -> list[Profile]:
        """Reads profiles in the order asked; more than 1,000 in several calls, each at one instant."""
        profiles: list[Profile] = []
        for start in range(0, len(key_values), 1_000):
            request = profile_service_pb2.BatchGetProfilesRequest(
                attribute_key=attribute_key,
                key_values=key_values[start : start + 1_000],
                selection=selection(service, groups, attributes, properties, rollups, segments, everything),
                min_position=min_position,
                wait_timeout=None if wait is None else duration(wait),
            )
            response = await self._transport.call(self._stub.BatchGetProfiles, request, timeout=timeout)
            profiles += [read_profile(each) for each in response.profiles]
        return profiles

    async def watch(
        self,
        key_values: Sequence[str] = (),
        *,
        service: str = "",
        groups: Sequence[str] = (),
        attributes: Sequence[str] = (),
        properties: Sequence[str] = (),
        rollups: Sequence[str] = (),
        segments: bool = False,
        everything: bool = False,
        attribute_key: str = "",
        resume_token: str = "",
        min_interval: timedelta | None = None,
        send_initial: bool = False,
    ) -> AsyncIterator[ProfileChanges]:
        """Follows profiles (no key values: all) without end; after a break it resumes by itself.

        Changes of one profile closer together than `min_interval` come as one.
        """
        attempt = 0
        while True:
            request = profile_service_pb2.WatchProfilesRequest(
                attribute_key=attribute_key,
                selection=selection(service, groups, attributes, properties, rollups, segments, everything),
                key_values=key_values,
                resume_token=resume_token,
                min_interval=None if min_interval is None else duration(min_interval),
                send_initial=send_initial and not resume_token,
            )
            call = self._stub.WatchProfiles(request, metadata=self._transport.metadata())
            try:
                async for message in call:
                    attempt = 0
                    resume_token = message.resume_token or resume_token
                    if message.profiles:
                        yield ProfileChanges(tuple(read_profile(each) for each in message.profiles), resume_token)
                # A server that drains ends the stream; it goes on with the next one.
                delay = self._transport.retry.first_delay
            except grpc.RpcError as failed:
                error = from_rpc_error(failed)
                attempt += 1
                if not self._transport.retry.retries(attempt, error):
                    raise error from failed
                delay = self._transport.retry.delay(attempt, error)
            finally:
                call.cancel()
            await asyncio.sleep(delay)

    @cached_property
    def _stub(self) -> "ProfileServiceAsyncStub":
        return ProfileServiceStub(self._transport.channel("features"))


def selection(
    service: str,
    groups: Sequence[str],
    attributes: Sequence[str],
    properties: Sequence[str] = (),
    rollups: Sequence[str] = (),
    segments: bool = False,
    everything: bool = False,
) -> profile_pb2.Selection:
    """What to read; short names become resource names: `web` or `web/2` a group, `web_service` a service."""
    return profile_pb2.Selection(
        feature_service=service_name(service) if service else "",
        attribute_groups=[group_name(each) for each in groups],
        attributes=attributes,
        properties=properties,
        rollups=rollups,
        segments=segments,
        everything=everything,
    )


def service_name(service: str) -> str:
    """featureServices/{service}, from that or the id alone."""
    return service if service.startswith("featureServices/") else f"featureServices/{service}"


def group_name(group: str) -> str:
    """attributeGroups/{group}[/versions/{version}], from that or from `group` or `group/version`."""
    if group.startswith("attributeGroups/"):
        return group
    name, _, version = group.partition("/")
    return f"attributeGroups/{name}/versions/{version}" if version else f"attributeGroups/{name}"


def read_profile(message: profile_pb2.Profile) -> Profile:
    """The profile of a message."""
    return Profile(
        attribute_key=message.attribute_key,
        key_value=message.key_value,
        readings={name: read_value(each) for name, each in zip(_names(message), message.values, strict=True)},
        position=message.position,
        as_of_time=instant(message.as_of_time) if message.HasField("as_of_time") else None,
        properties={each.name: read_property(each) for each in message.properties},
        rollups={each.name: read_value(each) for each in message.rollups},
        segments=tuple(message.segments),
    )


def _names(message: profile_pb2.Profile) -> list[str]:
    """The names of the values: with their group where the name alone is another one's too."""
    counts = Counter(each.name for each in message.values)
    return [
        f"{each.attribute_group.split('/')[1]}:{each.name}"
        if each.attribute_group and counts[each.name] > 1
        else each.name
        for each in message.values
    ]


def read_property(message: profile_pb2.PropertyValue) -> PropertyReading:
    """The reading of a property's message."""
    return PropertyReading(
        value=decode_nested(message.value) if message.HasField("value") else None,
        status=STATUSES.get(message.status, Status.UNSPECIFIED),
        event_time=instant(message.event_time) if message.HasField("event_time") else None,
        source=message.source,
    )


def read_value(message: profile_pb2.AttributeValue) -> Reading:
    """The reading of a message; a status that this client does not know yet is UNSPECIFIED."""
    return Reading(
        value=decode(message.value) if message.HasField("value") else None,
        status=STATUSES.get(message.status, Status.UNSPECIFIED),
        last_event_time=instant(message.last_event_time) if message.HasField("last_event_time") else None,
        covered_fraction=message.covered_fraction,
    )
