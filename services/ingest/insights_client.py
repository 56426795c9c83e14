"""Insights, asked what some events changed: whatever becomes of the question, the events are in the log."""

import logging
from dataclasses import dataclass

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from inkling.insights.v1 import change_service_pb2 as messages
from inkling.insights.v1.change_service_pb2_grpc import ChangeServiceStub
from inkling.insights.v1.insight_pb2 import State
from services.ingest.asked import Asked

_LOGGER = logging.getLogger(__name__)
MAX_WAIT_US = 10_000_000
_SPARE_SECONDS = 0.5
"""What is left of a call's time for its answer."""
_TRAVEL_SECONDS = 0.25
"""How much longer than insights are told to wait their answer may take."""


@dataclass(frozen=True, slots=True)
class ChangedInsight:
    """An insight began or ceased to apply to a customer."""

    attribute_key: str
    customer: str
    insight: str
    identifier: str
    version: int
    state: str
    """APPLIES, NOT or ERROR."""
    since_us: int
    position: int


class InsightChanges:
    """Asks insights over a channel that shows the key of a service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = ChangeServiceStub(channel)

    async def changes(
        self, project: str, first: int, last: int, asked: Asked, remaining_seconds: float | None
    ) -> list[ChangedInsight] | None:
        """What the events of these positions changed for their customers; None when insights did not say so in time.

        `remaining_seconds` is what is left of the caller's time.
        """
        seconds = min(max(asked.wait_us, 0), MAX_WAIT_US) / 1e6
        if remaining_seconds is not None:
            seconds = max(min(seconds, remaining_seconds - _SPARE_SECONDS - _TRAVEL_SECONDS), 0.0)
        wait = Duration()
        wait.FromMicroseconds(round(seconds * 1e6))
        request = messages.AwaitChangesRequest(
            first_position=first,
            last_position=last,
            customers=[messages.Customers(attribute_key=key, values=values) for key, values in asked.customers.items()],
            wait_timeout=wait,
        )
        try:
            # Insights may be starting: who waits waits for that too.
            response = await self._stub.AwaitChanges(
                request,
                metadata=(("x-inkling-project", project),),
                timeout=seconds + _TRAVEL_SECONDS,
                wait_for_ready=True,
            )
        except grpc.aio.AioRpcError as error:
            _LOGGER.debug("insights did not answer", extra={"fields": {"code": error.code().name}})
            return None
        return [
            ChangedInsight(
                each.attribute_key,
                each.customer,
                each.insight,
                each.identifier,
                each.version,
                State.Name(each.state).removeprefix("STATE_") if each.state in State.values() else "",
                each.since_time.seconds * 1_000_000 + each.since_time.nanos // 1_000,
                each.position,
            )
            for each in response.changes
        ]
