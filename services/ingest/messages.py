"""Between messages and the values of the domain."""

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from inkling.ingest.v1 import collection_pb2, dead_letter_service_pb2, ingest_service_pb2, project_pb2
from inkling.ingest.v1.error_reason_pb2 import ErrorReason
from inkling.ingest.v1.event_pb2 import Event, EventType
from services.ingest.appender import Outcome
from services.ingest.collections import Collection, Declaration, Field, FieldType
from services.ingest.compiled.faults import Refusal
from services.ingest.csv_columns import CsvOptions
from services.ingest.csv_import import Progress
from services.ingest.dead_letters import DeadLetter
from services.ingest.insights_client import ChangedInsight
from services.ingest.projects import DEFAULT_HORIZON_US, DEFAULT_LEAD_US, ProjectClock, ProjectSettings
from services.ingest.subscriptions import LogPart
from services.runtime.errors import InvalidArgument, NotFound, Violation

_INSIGHT_STATES = {
    name.removeprefix("STATE_"): number for name, number in ingest_service_pb2.ChangedInsight.State.items()
}
_MAX_ERRORS = 100
_MAX_DURATION_S = 292_000 * 365 * 86_400


def timestamp(instant_us: int) -> Timestamp:
    """An instant in microseconds as a message."""
    message = Timestamp()
    message.FromMicroseconds(instant_us)
    return message


def reason_value(reason: str) -> ErrorReason.ValueType:
    """The enum value of a reason."""
    return ErrorReason.Value(f"ERROR_REASON_{reason}")


def reason_name(value: ErrorReason.ValueType) -> str | None:
    """The reason of an enum value; None for UNSPECIFIED. Raises InvalidArgument for an unknown value."""
    if not value:
        return None
    if value not in ErrorReason.values():
        raise InvalidArgument("there is no such reason", reason="OUT_OF_RANGE")
    return ErrorReason.Name(value).removeprefix("ERROR_REASON_")


def resource_id(name: str, collection: str) -> str:
    """The last part of a resource name such as deadLetters/{id}; raises NotFound for anything else."""
    prefix, _, last = name.partition("/")
    if prefix != collection or not last or "/" in last:
        raise NotFound(f"a name is {collection}/ID", reason="NOT_FOUND")
    return last


def outcome_message(outcome: Outcome) -> ingest_service_pb2.IngestResponse:
    """What became of a batch."""
    return ingest_service_pb2.IngestResponse(
        position=outcome.position,
        accepted_count=outcome.accepted,
        rejected=[rejected_message(each.index, each.letter_id, each.refusal) for each in outcome.refused],
    )


def changed_message(changed: ChangedInsight) -> ingest_service_pb2.ChangedInsight:
    """What an insight says of a customer now."""
    message = ingest_service_pb2.ChangedInsight(
        attribute_key=changed.attribute_key,
        customer=changed.customer,
        insight=changed.insight,
        identifier=changed.identifier,
        version=changed.version,
        state=_INSIGHT_STATES.get(changed.state, ingest_service_pb2.ChangedInsight.STATE_UNSPECIFIED),
        position=changed.position,
    )
    message.since_time.FromMicroseconds(changed.since_us)
    return message


def rejected_message(index: int, letter_id: str, refusal: Refusal) -> ingest_service_pb2.RejectedEvent:
    """One refused event."""
    return ingest_service_pb2.RejectedEvent(
        index=index,
        reason=reason_value(refusal.reason),
        field=f"events[{index}].{refusal.field}" if refusal.field else f"events[{index}]",
        message=refusal.message,
        dead_letter=f"deadLetters/{letter_id}",
    )


def part_message(part: LogPart) -> ingest_service_pb2.SubscribeResponse:
    """A part of the log."""
    message = ingest_service_pb2.SubscribeResponse(
        first_position=part.first_position,
        last_position=part.last_position,
        record_batch=part.data,
        head_position=part.head,
        oldest_position=part.oldest,
    )
    if part.settings is not None:
        message.settings.CopyFrom(settings_message(part.settings))
    if part.complete_since_us is not None:
        message.complete_since_time.CopyFrom(timestamp(part.complete_since_us))
    return message


def settings_message(settings: ProjectSettings) -> project_pb2.ProjectSettings:
    """The settings of a project."""
    message = project_pb2.ProjectSettings(
        clock=project_pb2.Clock.Value(f"CLOCK_{settings.clock}"),
        deduplication_horizon=duration(settings.horizon_us),
        max_lead=duration(settings.max_lead_us),
        etag=settings.etag,
    )
    if settings.retention_us is not None:
        message.retention.CopyFrom(duration(settings.retention_us))
    return message


def settings_from(message: project_pb2.ProjectSettings) -> ProjectSettings:
    """Settings as a client gives them; what is absent is the default. Raises InvalidArgument."""
    clocks = {0: ProjectClock.WALL, 1: ProjectClock.WALL, 2: ProjectClock.LOG}
    if message.clock not in clocks:
        raise _invalid("settings.clock", "is CLOCK_WALL or CLOCK_LOG")
    retention_us = _microseconds(message, "retention", 0)
    return ProjectSettings(
        clocks[message.clock],
        retention_us or None,
        _microseconds(message, "deduplication_horizon", DEFAULT_HORIZON_US),
        _microseconds(message, "max_lead", DEFAULT_LEAD_US),
    )


def duration(microseconds: int) -> Duration:
    """A length of time in microseconds as a message."""
    message = Duration()
    message.FromMicroseconds(microseconds)
    return message


def _microseconds(message: project_pb2.ProjectSettings, name: str, default: int) -> int:
    given: Duration = getattr(message, name)
    if not message.HasField(name):  # type: ignore[arg-type]
        return default
    if not 0 <= given.seconds <= _MAX_DURATION_S or not 0 <= given.nanos < 1_000_000_000:
        raise _invalid(f"settings.{name}", "is not a duration of 0 or more")
    return given.seconds * 1_000_000 + given.nanos // 1_000


def _invalid(field: str, text: str) -> InvalidArgument:
    return InvalidArgument(f"{field} {text}", reason="OUT_OF_RANGE", violations=(Violation(field, text),))


def collection_message(collection: Collection) -> collection_pb2.Collection:
    """A collection as the API shows it."""
    declared = collection.declaration
    return collection_pb2.Collection(
        name=f"collections/{collection.collection_id}",
        description=declared.description,
        event_type=EventType(vendor=declared.event_vendor, name=declared.event_name, version=declared.event_version),
        fields=[
            collection_pb2.Field(
                name=each.name,
                type=collection_pb2.FieldType.Value(f"FIELD_TYPE_{each.type}"),
                required=each.required,
                description=each.description,
            )
            for each in declared.fields
        ],
        key_fields=declared.key_fields,
        occurred_at_field=declared.occurred_at_field,
        event_id_field=declared.event_id_field,
        strictness=collection_pb2.STRICTNESS_STRICT if declared.strict else collection_pb2.STRICTNESS_LENIENT,
        version=collection.version,
        create_time=timestamp(collection.create_time_us),
        update_time=timestamp(collection.update_time_us),
        etag=collection.etag,
    )


def declaration_from(message: collection_pb2.Collection) -> Declaration:
    """What a client says about a collection."""
    return Declaration(
        event_name=message.event_type.name,
        event_vendor=message.event_type.vendor,
        event_version=message.event_type.version,
        fields=tuple(
            Field(each.name, field_type(each.type), each.required, each.description) for each in message.fields
        ),
        key_fields=dict(message.key_fields),
        occurred_at_field=message.occurred_at_field,
        event_id_field=message.event_id_field,
        strict=message.strictness == collection_pb2.STRICTNESS_STRICT,
        description=message.description,
    )


def field_type(value: int) -> FieldType | None:
    """The type of a field; None when it is not given or unknown."""
    if not value or value not in collection_pb2.FieldType.values():
        return None
    name = collection_pb2.FieldType.Name(value)  # type: ignore[arg-type]
    return FieldType(name.removeprefix("FIELD_TYPE_"))


def letter_message(letter: DeadLetter) -> dead_letter_service_pb2.DeadLetter:
    """A dead letter. A payload that cannot be read as an event is left out."""
    message = dead_letter_service_pb2.DeadLetter(
        name=f"deadLetters/{letter.letter_id}",
        reason=reason_value(letter.refusal.reason),
        field=letter.refusal.field,
        message=letter.refusal.message,
        create_time=timestamp(letter.create_time_us),
        event_id=letter.event_id,
        csv_line=(letter.csv_line or b"").decode(errors="replace"),
    )
    if letter.event is not None:
        try:
            message.event.CopyFrom(Event.FromString(letter.event))
        except DecodeError:
            message.ClearField("event")
    return message


def csv_options_from(message: ingest_service_pb2.CsvOptions, declaration: Declaration | None) -> CsvOptions:
    """The options of an import; `declaration` is that of the collection they name."""
    types = {column: field_type(value) for column, value in message.column_types.items()}
    untyped = [column for column, kind in types.items() if kind is None]
    if untyped:
        raise _invalid(f"options.column_types[{untyped[0][:64]}]", "needs a type")
    kind, columns = message.event_type, message.event_type_columns
    return CsvOptions(
        declaration,
        {column: given for column, given in types.items() if given is not None},
        message.event_id_column,
        message.occurred_at_column,
        dict(message.key_columns),
        (kind.vendor, kind.name, kind.version),
        (columns.vendor, columns.name, columns.version),
        message.delimiter or ",",
    )


def progress_messages(progress: Progress, *, done: bool) -> Iterable[ingest_service_pb2.ImportCsvResponse]:
    """How far an import is: one message, or more when there are many errors, which are told once."""
    errors, progress.errors = progress.errors, []
    while True:
        now, errors = errors[:_MAX_ERRORS], errors[_MAX_ERRORS:]
        yield ingest_service_pb2.ImportCsvResponse(
            line_count=progress.lines,
            accepted_count=progress.accepted,
            rejected_count=progress.rejected,
            errors=[
                ingest_service_pb2.CsvError(
                    line=each.line,
                    column=each.column,
                    reason=reason_value(each.refusal.reason),
                    message=each.refusal.message,
                )
                for each in now
            ],
            position=progress.position,
            done=done and not errors,
        )
        if not errors:
            return
