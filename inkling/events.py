"""Events as a sender writes them, and what became of them.

`inkling.Event` names a *kind* of event in a definition, as the Signals SDK has it; what is sent is a `CustomerEvent`.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from inkling.errors import EventRejected
from inkling.ingest.v1 import error_reason_pb2, event_pb2, ingest_service_pb2
from inkling.values import PropertyValue, encode_all, instant, timestamp


def new_event_id() -> str:
    """A fresh id. Given before the first attempt, it makes a retry count once."""
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """Something that an event refers to, with typed data of its own (Snowplow's context)."""

    vendor: str
    name: str
    major_version: int = 1
    properties: Mapping[str, PropertyValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerEvent:
    """Something that a customer did.

    `keys` says whom it concerns (attribute key to value, at least one), `properties` are atomic, `data` is the event's
    own self-describing data by path. `occurred_at` needs a time zone. Without an id it gets a fresh one.
    `revision` above 0 replaces the event of the same id; `deleted` takes it back.
    """

    name: str
    occurred_at: datetime
    keys: Mapping[str, str]
    vendor: str = ""
    version: str = ""
    properties: Mapping[str, PropertyValue] = field(default_factory=dict)
    data: Mapping[str, PropertyValue] = field(default_factory=dict)
    entities: Sequence[Entity] = ()
    event_id: str = field(default_factory=new_event_id)
    revision: int = 0
    deleted: bool = False

    def to_message(self) -> event_pb2.Event:
        """The message of it. TypeError or ValueError for a value that no message can carry."""
        if self.deleted:
            operation = event_pb2.OPERATION_DELETE
        else:
            operation = event_pb2.OPERATION_REPLACE if self.revision else event_pb2.OPERATION_ADD
        return event_pb2.Event(
            event_id=self.event_id,
            type=event_pb2.EventType(vendor=self.vendor, name=self.name, version=self.version),
            occurred_at=timestamp(self.occurred_at),
            keys=self.keys,
            properties=encode_all(self.properties),
            data=encode_all(self.data),
            entities=[
                event_pb2.Entity(
                    vendor=entity.vendor,
                    name=entity.name,
                    major_version=entity.major_version,
                    properties=encode_all(entity.properties),
                )
                for entity in self.entities
            ],
            operation=operation,
            revision=self.revision,
        )


@dataclass(frozen=True, slots=True)
class Receipt:
    """One event is durable. Send `position` as `min_position` to read what it changed."""

    event_id: str
    position: int


@dataclass(frozen=True, slots=True)
class Rejection:
    """One event was refused, and why; the service keeps it under `dead_letter`."""

    event_id: str
    reason: str
    field: str
    message: str
    dead_letter: str = ""

    def to_error(self) -> EventRejected:
        """The same as an exception."""
        return EventRejected(
            f"event {self.event_id}: {self.message}", reason=self.reason, metadata={"dead_letter": self.dead_letter}
        )


@dataclass(frozen=True, slots=True)
class ChangedInsight:
    """An insight began or ceased to apply to a customer."""

    attribute_key: str
    customer: str
    insight: str
    """insights/{insight}"""
    identifier: str
    """The name that the query gives it."""
    version: int
    state: str
    """APPLIES, NOT or ERROR."""
    since: datetime
    position: int


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What became of some events: how many were accepted (repeated ids among them), and who was refused."""

    position: int = 0
    accepted: int = 0
    rejected: tuple[Rejection, ...] = ()
    insights_evaluated: bool | None = None
    """Whether insights were evaluated with all these events in time; None when nobody asked."""
    changed_insights: tuple[ChangedInsight, ...] = ()
    """What insights changed for the customers of these events, in order."""

    def __add__(self, other: "IngestResult") -> "IngestResult":
        asked = [each.insights_evaluated for each in (self, other) if each.insights_evaluated is not None]
        return IngestResult(
            max(self.position, other.position),
            self.accepted + other.accepted,
            self.rejected + other.rejected,
            all(asked) if asked else None,
            self.changed_insights + other.changed_insights,
        )


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The acknowledgement of one batch of a stream, in the order of the batches. `sequence` counts from 1."""

    sequence: int
    result: IngestResult


def read_result(
    response: ingest_service_pb2.IngestResponse, events: Sequence[event_pb2.Event], *, waited: bool = False
) -> IngestResult:
    """The answer to a batch; `events` are those that were sent, for the ids of the refused ones. `waited`: for
    insights.
    """
    return IngestResult(
        position=response.position,
        accepted=response.accepted_count,
        rejected=tuple(
            Rejection(
                event_id=events[each.index].event_id,
                reason=error_reason_pb2.ErrorReason.Name(each.reason).removeprefix("ERROR_REASON_"),
                field=each.field,
                message=each.message,
                dead_letter=each.dead_letter,
            )
            for each in response.rejected
        ),
        insights_evaluated=response.insights_evaluated if waited else None,
        changed_insights=tuple(
            ChangedInsight(
                each.attribute_key,
                each.customer,
                each.insight,
                each.identifier,
                each.version,
                ingest_service_pb2.ChangedInsight.State.Name(each.state).removeprefix("STATE_"),
                instant(each.since_time),
                each.position,
            )
            for each in response.changed_insights
        ),
    )
