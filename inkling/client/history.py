"""Lists profiles, reads them as they were, and says what is behind a value."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from inkling.client.profiles import Profile, Reading, read_profile, read_value, selection
from inkling.client.transport import Transport
from inkling.features.v1 import profile_history_pb2 as messages
from inkling.features.v1.profile_service_pb2_grpc import ProfileServiceStub
from inkling.values import AttributeValue, decode, duration, instant, timestamp

if TYPE_CHECKING:
    from inkling.features.v1.profile_service_pb2_grpc import ProfileServiceAsyncStub


@dataclass(frozen=True, slots=True)
class ExplainedEvent:
    """An event that a value looks at; `counted` says whether the value is made of it, `decisive` that it is alone."""

    event_id: str
    event_type: str
    occurred_time: datetime
    received_time: datetime
    term: AttributeValue
    in_window: bool
    counted: bool
    decisive: bool
    revision: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """A value and what it is made of: `counted` of `relevant` events, in the window up to `as_of_time` (exclusive).

    `window_start` is None for a lifetime. `events` are the newest ones asked for.
    """

    reading: Reading
    as_of_time: datetime
    window_start: datetime | None
    position: int
    relevant: int
    counted: int
    events: tuple[ExplainedEvent, ...]


class AsyncHistory:
    """What was known of a key, and why. Selections are those of `client.profiles`, without roll-ups and segments."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(
        self,
        *,
        service: str = "",
        groups: Sequence[str] = (),
        attributes: Sequence[str] = (),
        properties: Sequence[str] = (),
        everything: bool = False,
        attribute_key: str = "",
        page_size: int = 0,
    ) -> AsyncIterator[Profile]:
        """All profiles of an attribute key by key value, page by page; each page holds at one instant.

        Without a selection they have no values: then the attribute key must be given.
        """
        request = messages.ListProfilesRequest(attribute_key=attribute_key, page_size=page_size)
        if service or groups or attributes or properties or everything:
            request.selection.CopyFrom(selection(service, groups, attributes, properties, (), False, everything))
        while True:
            response = await self._transport.call(self._stub.ListProfiles, request)
            for profile in response.profiles:
                yield read_profile(profile)
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    async def at(
        self,
        key_value: str,
        as_of: Sequence[datetime],
        *,
        service: str = "",
        groups: Sequence[str] = (),
        attributes: Sequence[str] = (),
        properties: Sequence[str] = (),
        everything: bool = False,
        attribute_key: str = "",
        position: int = 0,
        timeout: timedelta | None = None,
    ) -> Sequence[Profile]:
        """A profile as of some instants, at most 1,000; what happened before each counts.

        With `position`, by what was in the log up to there alone: what was known then.
        """
        request = messages.GetProfileHistoryRequest(
            attribute_key=attribute_key,
            key_value=key_value,
            selection=selection(service, groups, attributes, properties, (), False, everything),
            as_of_times=[timestamp(each) for each in as_of],
            position=position,
        )
        response = await self._transport.call(self._stub.GetProfileHistory, request, timeout=timeout)
        return [read_profile(each) for each in response.profiles]

    async def range(
        self,
        key_value: str,
        start: datetime,
        end: datetime,
        step: timedelta,
        *,
        service: str = "",
        groups: Sequence[str] = (),
        attributes: Sequence[str] = (),
        properties: Sequence[str] = (),
        everything: bool = False,
        attribute_key: str = "",
        position: int = 0,
        timeout: timedelta | None = None,
    ) -> Sequence[Profile]:
        """The same in steps from a start up to an end."""
        request = messages.GetProfileHistoryRequest(
            attribute_key=attribute_key,
            key_value=key_value,
            selection=selection(service, groups, attributes, properties, (), False, everything),
            start_time=timestamp(start),
            end_time=timestamp(end),
            step=duration(step),
            position=position,
        )
        response = await self._transport.call(self._stub.GetProfileHistory, request, timeout=timeout)
        return [read_profile(each) for each in response.profiles]

    async def explain(
        self,
        key_value: str,
        value: str,
        *,
        as_of: datetime | None = None,
        attribute_key: str = "",
        position: int = 0,
        events: int = 1_000,
        timeout: timedelta | None = None,
    ) -> Explanation:
        """The events behind a value (`group:attribute`, `group/version:attribute` or `properties.name`), newest first.

        At most `events` of them are told.
        """
        request = messages.ExplainValueRequest(
            attribute_key=attribute_key,
            key_value=key_value,
            value=value,
            as_of_time=None if as_of is None else timestamp(as_of),
            position=position,
            page_size=min(max(events, 1), 1_000),
        )
        found: tuple[ExplainedEvent, ...] = ()
        while True:
            response = await self._transport.call(self._stub.ExplainValue, request, timeout=timeout)
            found += tuple(_read_event(each) for each in response.events)
            request.page_token = response.next_page_token
            if not request.page_token or len(found) >= events:
                break
        return Explanation(
            reading=read_value(response.value),
            as_of_time=instant(response.as_of_time),
            window_start=instant(response.window_start_time) if response.HasField("window_start_time") else None,
            position=response.position,
            relevant=response.relevant_count,
            counted=response.counted_count,
            events=found[:events],
        )

    @cached_property
    def _stub(self) -> "ProfileServiceAsyncStub":
        return ProfileServiceStub(self._transport.channel("features"))


def _read_event(message: messages.ExplainedEvent) -> ExplainedEvent:
    return ExplainedEvent(
        event_id=message.event_id,
        event_type=message.event_type,
        occurred_time=instant(message.occurred_time),
        received_time=instant(message.received_time),
        term=decode(message.term) if message.HasField("term") else None,
        in_window=message.in_window,
        counted=message.counted,
        decisive=message.decisive,
        revision=message.revision,
    )
