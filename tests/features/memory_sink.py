"""Writes of properties into a log in memory: the seam where ingest takes events."""

from dataclasses import dataclass, field
from datetime import timedelta

from inkling.ingest.v1.event_pb2 import Event
from inkling.ingest.v1.ingest_service_pb2 import IngestRequest
from inkling.types.v1.value_pb2 import Value
from services.features.property_sink import RefusedEvent, Stored
from services.kernel.building import EPOCH, EventRow, Scalar
from services.runtime.clocks import Clock
from tests.features.memory_log import MemoryLog

LEAD_US = 300_000_000


@dataclass
class MemorySink:
    """Appends to a log what ingest would admit: events at most five minutes ahead."""

    log: MemoryLog
    clock: Clock
    requests: list[IngestRequest] = field(default_factory=list)

    async def append(self, project: str, request: bytes) -> Stored:
        """See EventSink."""
        message = IngestRequest.FromString(request)
        self.requests.append(message)
        rows, refused = [], []
        for index, event in enumerate(message.events):
            if _time_us(event) > self.clock.now_us() + LEAD_US:
                refused.append(RefusedEvent(index, "TOO_EARLY", "occurred_at", "Too early."))
            else:
                rows.append(row_of(event, self.clock.now_us()))
        position = await self.log.append(*rows)
        return Stored(position if rows else 0, len(rows), tuple(refused))


def row_of(event: Event, received_us: int) -> EventRow:
    """An event as it stands in the log."""
    return EventRow(
        event_id=event.event_id,
        name=event.type.name,
        occurred_at_us=_time_us(event),
        received_at_us=received_us,
        keys=dict(event.keys),
        vendor=event.type.vendor,
        version=event.type.version,
        properties={name: _scalar(value) for name, value in event.properties.items()},
        data={name: _scalar(value) for name, value in event.data.items()},
    )


def _time_us(event: Event) -> int:
    return event.occurred_at.seconds * 1_000_000 + event.occurred_at.nanos // 1_000


def _scalar(value: Value) -> Scalar:
    kind = value.WhichOneof("kind")
    assert kind in ("string_value", "bool_value", "double_value", "int_value", "timestamp_value"), kind
    if kind == "timestamp_value":
        time = value.timestamp_value
        return EPOCH + timedelta(seconds=time.seconds, microseconds=time.nanos // 1_000)
    scalar: Scalar = getattr(value, kind)
    return scalar
