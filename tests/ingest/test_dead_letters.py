"""Dead letters against a real process: kept, listed, repaired, replayed, purged."""

import time

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from inkling.ingest.v1 import error_reason_pb2 as reasons
from inkling.ingest.v1.dead_letter_service_pb2 import (
    DeadLetter,
    GetDeadLetterRequest,
    ListDeadLettersRequest,
    PurgeDeadLettersRequest,
    ReplayDeadLettersRequest,
    ReplayDeadLettersResponse,
)
from inkling.ingest.v1.event_pb2 import Event
from tests.ingest.conftest import Project
from tests.ingest.events import event
from tests.ingest.statuses import failure
from tests.ingest.test_ingest_calls import now


async def listed(project: Project, **fields: object) -> list[DeadLetter]:
    request = ListDeadLettersRequest(**fields)  # type: ignore[arg-type]
    response = await project.dead_letters.ListDeadLetters(request, metadata=project.metadata)
    return list(response.dead_letters)


async def get(project: Project, name: str) -> DeadLetter:
    letter: DeadLetter = await project.dead_letters.GetDeadLetter(
        GetDeadLetterRequest(name=name), metadata=project.metadata
    )
    return letter


async def replay(project: Project, **fields: object) -> ReplayDeadLettersResponse:
    request = ReplayDeadLettersRequest(**fields)  # type: ignore[arg-type]
    response: ReplayDeadLettersResponse = await project.dead_letters.ReplayDeadLetters(
        request, metadata=project.metadata
    )
    return response


async def refuse(project: Project, *events: Event) -> list[str]:
    """Sends bad events: the names of their letters."""
    response = await project.send(*events)
    assert response.accepted_count == 0
    return [each.dead_letter for each in response.rejected]


async def test_a_refused_event_is_kept_with_its_reason_and_payload(project: Project) -> None:
    bad = event("e1", at=now(), properties={"p": float("nan"), "secret": "s"})
    (name,) = await refuse(project, bad)
    (letter,) = await listed(project)
    assert (letter.name, letter.reason, letter.event_id) == (name, reasons.ERROR_REASON_BAD_PROPERTY, "e1")
    assert letter.field == "properties.p"
    assert letter.message
    assert not letter.HasField("event")
    kept = await get(project, name)
    assert kept.event.properties["secret"].string_value == "s"
    assert abs(kept.create_time.ToSeconds() - time.time()) < 60


async def test_malformed_events_are_kept_too(project: Project, channel: grpc.aio.Channel) -> None:
    raw = channel.unary_unary("/inkling.ingest.v1.IngestService/Ingest")
    await raw(b"\x0a\x03\x0a\x01\xff", metadata=project.metadata)
    (letter,) = await listed(project)
    assert letter.reason == reasons.ERROR_REASON_MALFORMED
    assert not (await get(project, letter.name)).HasField("event")
    answer = await replay(project, names=[letter.name])
    assert [each.reason for each in answer.rejected] == [reasons.ERROR_REASON_MALFORMED]


async def test_letters_are_listed_newest_first_in_pages_and_by_reason(project: Project) -> None:
    for i in range(5):
        await refuse(project, event(f"e{i}", at=now(), keys={} if i % 2 else {"user_id": ""}))
        await refuse(project, event("", at=now(), properties={"n": i}))
    letters = await listed(project)
    assert len(letters) == 10
    times = [letter.create_time.ToNanoseconds() for letter in letters]
    assert times == sorted(times, reverse=True)
    found, token = [], ""
    while True:
        request = ListDeadLettersRequest(page_size=2, page_token=token, reason=reasons.ERROR_REASON_BAD_KEY)
        page = await project.dead_letters.ListDeadLetters(request, metadata=project.metadata)
        found += [letter.event_id for letter in page.dead_letters]
        token = page.next_page_token
        if not token:
            break
    assert found == ["e4", "e3", "e2", "e1", "e0"]


async def test_a_letter_is_repaired_and_replayed(project: Project) -> None:
    repaired, hopeless, untouched = await refuse(
        project,
        event("e1", at=now(), keys={}),
        event("e2", at=now(), keys={}),
        event("e3", at=now(), keys={}),
    )
    answer = await replay(
        project,
        names=[hopeless],
        repairs={repaired: event("e1", at=now()), untouched: event("", at=now())},
    )
    assert (answer.accepted_count, answer.position) == (1, 1)
    order = [hopeless, *sorted([repaired, untouched])]
    assert {each.index: each.dead_letter for each in answer.rejected} == {
        order.index(hopeless): hopeless,
        order.index(untouched): untouched,
    }
    assert [row["event_id"] for row in await project.rows()] == ["e1"]
    assert {letter.name for letter in await listed(project)} == {hopeless, untouched}
    assert (await get(project, untouched)).reason == reasons.ERROR_REASON_BAD_EVENT_ID
    assert (await get(project, untouched)).event.event_id == "e3"


async def test_letters_of_a_reason_are_replayed_when_the_cause_is_gone(project: Project) -> None:
    await refuse(project, *(event(f"e{i}", at=now(seconds=300.7)) for i in range(3)))
    answer = await replay(project, reason=reasons.ERROR_REASON_TOO_EARLY)
    while answer.accepted_count < 3:
        answer.accepted_count += (await replay(project, reason=reasons.ERROR_REASON_TOO_EARLY)).accepted_count
    assert await listed(project) == []
    assert len(await project.rows()) == 3


async def test_letters_are_purged_by_name_by_time_or_all(project: Project) -> None:
    names = await refuse(project, *(event(f"e{i}", at=now(), keys={}) for i in range(4)))

    async def purge(**fields: object) -> int:
        request = PurgeDeadLettersRequest(**fields)  # type: ignore[arg-type]
        return int((await project.dead_letters.PurgeDeadLetters(request, metadata=project.metadata)).purged_count)

    assert await purge(names=names[:1]) == 1
    assert await purge(names=names[:1]) == 0
    assert await purge(before_time=Timestamp(seconds=int(time.time()) - 3600)) == 0
    assert len(await listed(project)) == 3
    assert await purge(all=True) == 3
    assert (await failure(purge())).code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("name", ["deadLetters/none", "deadLetters/", "letters/x", "", "deadLetters/a/b"])
async def test_an_unknown_letter_is_not_found(project: Project, name: str) -> None:
    assert (await failure(get(project, name))).code() is grpc.StatusCode.NOT_FOUND
    assert (await failure(replay(project, names=[name]))).code() is grpc.StatusCode.NOT_FOUND
