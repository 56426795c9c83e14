"""Ingest and IngestStream against a real process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from inkling.ingest.v1 import error_reason_pb2 as reasons
from inkling.ingest.v1.event_pb2 import Event
from inkling.ingest.v1.ingest_service_pb2 import IngestRequest, IngestStreamRequest, IngestStreamResponse
from tests.ingest.conftest import Project
from tests.ingest.events import event
from tests.ingest.statuses import failure, reason_of


def now(**lead: float) -> datetime:
    return datetime.now(UTC) + timedelta(**lead)


async def test_events_are_in_the_log_when_they_are_answered(project: Project) -> None:
    before = now()
    first = await project.send(event("e1", at=before, properties={"p": 1.5}), event("e2", at=before))
    assert (first.position, first.accepted_count, list(first.rejected)) == (2, 2, [])
    second = await project.send(event("e3", at=before))
    assert second.position == 3
    rows = await project.rows()
    assert [row["event_id"] for row in rows] == ["e1", "e2", "e3"]
    assert rows[0]["a.p:d"] == 1.5
    assert rows[0]["event_type"] == "/page_view/"
    received = [row["received_at"] for row in rows]
    assert received == sorted(received)  # type: ignore[type-var]
    assert before.timestamp() * 1e6 - 1 <= received[0] <= now().timestamp() * 1e6  # type: ignore[operator]


async def test_an_empty_batch_is_accepted_and_moves_nothing(project: Project) -> None:
    response = await project.send()
    assert (response.position, response.accepted_count) == (0, 0)


async def test_corrections_go_into_the_log(project: Project) -> None:
    at = now(hours=-1)
    await project.send(
        event("e1", at=at, properties={"p": 1}),
        event("e1", at=at, properties={"p": 2}, operation=2, revision=1),
        Event(event_id="e1", occurred_at=event(at=at).occurred_at, keys={"user_id": "u1"}, operation=3),
    )
    rows = await project.rows()
    assert [(row["operation"], row["revision"], row["a.p:i"]) for row in rows] == [(0, 0, 1), (1, 1, 2), (2, 0, None)]


def spoiled(**changes: object) -> Event:
    return event("bad", **{"at": now(), **changes})  # type: ignore[arg-type]


def without(field: str) -> Event:
    made = event("bad", at=now())
    made.ClearField(field)  # type: ignore[arg-type]
    return made


def with_entity(**fields: object) -> Event:
    made = event("bad", at=now())
    made.entities.add(**{"vendor": "v", "name": "n", "major_version": 1, **fields}).properties["p"].int_value = 1  # type: ignore[arg-type]
    return made


def with_type(**fields: str) -> Event:
    made = event("bad", at=now())
    for name, content in fields.items():
        setattr(made.type, name, content)
    return made


def with_value(kind: str) -> Event:
    made = event("bad", at=now())
    getattr(made.properties["p"], kind).SetInParent()
    return made


def at_seconds(seconds: int, nanos: int = 0) -> Event:
    made = event("bad")
    made.occurred_at.seconds, made.occurred_at.nanos = seconds, nanos
    return made


BAD: list[tuple[str, Callable[[], Event], str, str]] = [
    ("no id", lambda: event("", at=now()), "BAD_EVENT_ID", "event_id"),
    ("long id", lambda: event("ü" * 129, at=now()), "BAD_EVENT_ID", "event_id"),
    ("control in id", lambda: event("a\x85b", at=now()), "BAD_EVENT_ID", "event_id"),
    ("no type", lambda: without("type"), "BAD_EVENT_TYPE", "type.name"),
    ("slash in type", lambda: with_type(vendor="a/b"), "BAD_EVENT_TYPE", "type"),
    ("long version", lambda: with_type(version="1" * 129), "BAD_EVENT_TYPE", "type"),
    ("no time", lambda: without("occurred_at"), "BAD_TIME", "occurred_at"),
    ("before 1970", lambda: at_seconds(-1), "BAD_TIME", "occurred_at"),
    ("year 2262", lambda: at_seconds(9_214_646_400), "BAD_TIME", "occurred_at"),
    ("saturating time", lambda: at_seconds(2**62), "BAD_TIME", "occurred_at"),
    ("bad nanos", lambda: at_seconds(1, 1_000_000_000), "BAD_TIME", "occurred_at"),
    ("too early", lambda: event("bad", at=now(minutes=6)), "TOO_EARLY", "occurred_at"),
    ("no key", lambda: spoiled(keys={}), "BAD_KEY", "keys"),
    ("many keys", lambda: spoiled(keys={f"k{i}": "v" for i in range(9)}), "BAD_KEY", "keys"),
    ("key name", lambda: spoiled(keys={"User": "u"}), "BAD_KEY", "keys"),
    ("empty key value", lambda: spoiled(keys={"user_id": ""}), "BAD_KEY", "keys.user_id"),
    ("long key value", lambda: spoiled(keys={"user_id": "x" * 257}), "BAD_KEY", "keys.user_id"),
    ("control in key value", lambda: spoiled(keys={"user_id": "a\nb"}), "BAD_KEY", "keys.user_id"),
    ("colon in name", lambda: spoiled(properties={"og:title": "t"}), "BAD_PROPERTY", "properties"),
    ("empty name", lambda: spoiled(data={"": "t"}), "BAD_PROPERTY", "properties"),
    ("nan", lambda: spoiled(properties={"p": float("nan")}), "BAD_PROPERTY", "properties.p"),
    ("infinity", lambda: spoiled(data={"p": float("-inf")}), "BAD_PROPERTY", "data.p"),
    ("long text", lambda: spoiled(properties={"p": "x" * 32769}), "BAD_PROPERTY", "properties.p"),
    ("long list", lambda: spoiled(properties={"p": ["x"] * 1001}), "BAD_PROPERTY", "properties.p"),
    ("long text in list", lambda: spoiled(properties={"p": ["x" * 32769]}), "BAD_PROPERTY", "properties.p"),
    ("counts", lambda: with_value("category_counts_value"), "BAD_PROPERTY", "properties.p"),
    ("numbers", lambda: with_value("double_list_value"), "BAD_PROPERTY", "properties.p"),
    ("list of anything", lambda: with_value("list_value"), "BAD_PROPERTY", "properties.p"),
    ("record", lambda: with_value("record_value"), "BAD_PROPERTY", "properties.p"),
    ("many properties", lambda: spoiled(properties={f"p{i}": 1 for i in range(257)}), "BAD_PROPERTY", "properties"),
    ("many data", lambda: spoiled(data={f"p{i}": 1 for i in range(257)}), "BAD_PROPERTY", "data"),
    ("entity without name", lambda: with_entity(name=""), "BAD_PROPERTY", "entities"),
    ("entity's bracket", lambda: with_entity(name="a[0]"), "BAD_PROPERTY", "entities"),
    ("entity's version", lambda: with_entity(major_version=0), "BAD_PROPERTY", "entities"),
    ("revision of an addition", lambda: spoiled(revision=1), "BAD_CORRECTION", "revision"),
    ("replacement without revision", lambda: spoiled(operation=2), "BAD_CORRECTION", "revision"),
    ("unknown operation", lambda: spoiled(operation=9), "BAD_CORRECTION", "operation"),
    ("large", lambda: spoiled(properties={f"p{i}": "x" * 32768 for i in range(33)}), "TOO_LARGE", ""),
]


@pytest.mark.parametrize(("make", "reason", "field"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
async def test_a_bad_event_is_refused_alone(
    project: Project, make: Callable[[], Event], reason: str, field: str
) -> None:
    response = await project.send(event("good 1", at=now()), make(), event("good 2", at=now()))
    assert response.accepted_count == 2
    (rejected,) = response.rejected
    assert reasons.ErrorReason.Name(rejected.reason) == f"ERROR_REASON_{reason}"
    assert rejected.field == (f"events[1].{field}" if field else "events[1]")
    assert rejected.message
    assert rejected.dead_letter.startswith("deadLetters/")
    assert [row["event_id"] for row in await project.rows()] == ["good 1", "good 2"]
    assert response.position == 2


async def test_malformed_bytes_are_an_invalid_argument(project: Project, channel: grpc.aio.Channel) -> None:
    raw = channel.unary_unary("/inkling.ingest.v1.IngestService/Ingest")
    for content in (b"\x0a\x7f", b"\xff" * 20, b"\x0b\x0a\x00"):
        error = await failure(raw(content, metadata=project.metadata))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert reason_of(error) == "MALFORMED"


async def test_batches_have_limits(project: Project) -> None:
    events = [event(f"e{i}", at=now()) for i in range(10_001)]
    error = await failure(project.send(*events))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "TOO_LARGE")
    assert (await project.send(*events[:-1])).accepted_count == 10_000
    large = [event(f"l{i}", at=now(), properties={"p": "x" * 32_000}) for i in range(270)]
    error = await failure(project.send(*large))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "TOO_LARGE")


async def test_calls_that_come_together_are_answered_each_for_itself(
    project: Project, channel: grpc.aio.Channel
) -> None:
    raw = channel.unary_unary("/inkling.ingest.v1.IngestService/Ingest")

    async def one(number: int) -> tuple[int, int, list[int]] | str:
        if number % 7 == 3:
            return reason_of(await failure(raw(b"\x0a\x7f", metadata=project.metadata)))
        events = [event(f"{number}-{i}", at=now(), keys={"user_id": ""} if i == number % 3 else None) for i in range(3)]
        response = await project.send(*events)
        return response.accepted_count, response.position, [each.index for each in response.rejected]

    answers = await asyncio.gather(*(one(number) for number in range(40)))
    rows = await project.rows()
    positions = {row["event_id"]: place + 1 for place, row in enumerate(rows)}
    for number, answer in enumerate(answers):
        if number % 7 == 3:
            assert answer == "MALFORMED"
            continue
        last = max(i for i in range(3) if i != number % 3)
        assert answer == (2, positions[f"{number}-{last}"], [number % 3])
    assert len(rows) == 2 * sum(number % 7 != 3 for number in range(40))


async def stream(project: Project, requests: list[IngestStreamRequest], answers: list[IngestStreamResponse]) -> None:
    async def send() -> AsyncIterator[IngestStreamRequest]:
        for request in requests:
            yield request

    call = project.ingest.IngestStream(send(), metadata=project.metadata)
    while (answer := await call.read()) is not grpc.aio.EOF:
        answers.append(answer)


async def test_a_stream_is_acknowledged_in_order(project: Project) -> None:
    requests = [
        IngestStreamRequest(sequence=10 * i, events=[event(f"e{i}-{k}", at=now()) for k in range(1 + 97 * i % 50)])
        for i in range(60)
    ]
    answers: list[IngestStreamResponse] = []
    await stream(project, requests, answers)
    assert [answer.sequence for answer in answers] == [request.sequence for request in requests]
    assert [answer.result.accepted_count for answer in answers] == [len(request.events) for request in requests]
    positions = [answer.result.position for answer in answers]
    assert positions == sorted(positions)
    sent = [each.event_id for request in requests for each in request.events]
    assert [row["event_id"] for row in await project.rows()] == sent


async def test_a_stream_ends_with_the_error_of_its_first_bad_batch(project: Project) -> None:
    answers: list[IngestStreamResponse] = []
    requests = [IngestStreamRequest(sequence=i, events=[event(f"e{i}", at=now())]) for i in (1, 2, 2, 3)]
    error = await failure(stream(project, requests, answers))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "OUT_OF_RANGE")
    assert [answer.sequence for answer in answers] == [1, 2]
    await stream(project, [IngestStreamRequest(sequence=3, events=[event("e3", at=now())])], answers)
    assert [row["event_id"] for row in await project.rows()] == ["e1", "e2", "e3"]


async def test_a_refused_event_of_a_stream_does_not_end_it(project: Project) -> None:
    answers: list[IngestStreamResponse] = []
    requests = [IngestStreamRequest(sequence=i, events=[event("" if i == 1 else "e", at=now())]) for i in range(3)]
    await stream(project, requests, answers)
    assert [len(answer.result.rejected) for answer in answers] == [0, 1, 0]


async def test_the_request_is_retried_without_a_second_dead_letter(project: Project) -> None:
    bad = event("", at=now())
    first, second = await project.send(bad), await project.send(bad)
    assert first.rejected[0].dead_letter == second.rejected[0].dead_letter


async def test_unknown_fields_of_newer_clients_are_skipped(project: Project, channel: grpc.aio.Channel) -> None:
    raw = channel.unary_unary("/inkling.ingest.v1.IngestService/Ingest")
    request = IngestRequest(events=[event("e1", at=now())]).SerializeToString() + b"\xfa\x07\x03new"
    await raw(request, metadata=project.metadata)
    assert [row["event_id"] for row in await project.rows()] == ["e1"]
