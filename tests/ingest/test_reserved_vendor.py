"""The suite's own vendor: its services send events of it, and nobody else does."""

import grpc.aio
import pytest

from inkling.ingest.v1.collection_pb2 import STRICTNESS_STRICT, Collection
from inkling.ingest.v1.collection_service_pb2 import CreateCollectionRequest
from inkling.ingest.v1.dead_letter_service_pb2 import ListDeadLettersRequest
from inkling.ingest.v1.error_reason_pb2 import ERROR_REASON_RESERVED_VENDOR
from inkling.ingest.v1.event_pb2 import Event
from inkling.ingest.v1.ingest_service_pb2 import (
    CsvOptions,
    ImportCsvRequest,
    IngestRequest,
    IngestStreamRequest,
)
from tests.ingest.conftest import Project
from tests.ingest.events import event
from tests.ingest.processes import SERVICE_KEY, bearer
from tests.ingest.statuses import failure, reason_of
from tests.ingest.test_ingest_calls import now


def reserved(event_id: str, name: str = "set_properties") -> Event:
    """An event of the suite's vendor."""
    made = event(event_id, name=name, at=now(), properties={"plan": "pro"})
    made.type.vendor = "inkling"
    made.type.version = "1-0-0"
    return made


async def test_an_event_of_the_reserved_vendor_is_refused_alone_and_kept(project: Project) -> None:
    response = await project.send(event("e1", at=now()), reserved("e2"), event("e3", at=now()))
    assert response.accepted_count == 2
    (rejected,) = response.rejected
    assert (rejected.index, rejected.reason) == (1, ERROR_REASON_RESERVED_VENDOR)
    assert rejected.field == "events[1].type.vendor"
    letters = await project.dead_letters.ListDeadLetters(ListDeadLettersRequest(), metadata=project.metadata)
    assert [each.name for each in letters.dead_letters] == [rejected.dead_letter]
    assert [row["event_id"] for row in await project.rows()] == ["e1", "e3"]


async def test_a_vendor_that_only_looks_like_it_is_anybodys(project: Project) -> None:
    other = reserved("e1")
    other.type.vendor = "inklinG"
    assert (await project.send(other)).accepted_count == 1


async def test_a_service_sends_them_also_where_a_strict_collection_has_their_name(
    project: Project, channel: grpc.aio.Channel
) -> None:
    strict = Collection(strictness=STRICTNESS_STRICT)
    strict.event_type.name = "set_properties"
    create = CreateCollectionRequest(collection_id="strict", collection=strict)
    await project.collections.CreateCollection(create, metadata=project.metadata)
    response = await project.ingest.Ingest(
        IngestRequest(events=[reserved("e1")]), metadata=bearer(SERVICE_KEY, project.name)
    )
    assert response.accepted_count == 1
    assert [row["event_type"] for row in await project.rows()] == ["inkling/set_properties/1-0-0"]


async def test_streams_and_imports_have_no_way_around(project: Project) -> None:
    stream = project.ingest.IngestStream(
        iter([IngestStreamRequest(sequence=1, events=[reserved("e1")])]), metadata=project.metadata
    )
    (answer,) = [each async for each in stream]
    assert [each.reason for each in answer.result.rejected] == [ERROR_REASON_RESERVED_VENDOR]

    options = CsvOptions(occurred_at_column="at", key_columns={"user_id": "user"})
    options.event_type.vendor, options.event_type.name = "inkling", "set_properties"
    chunk = f"user,at,plan\nu1,{now().isoformat()},pro\n".encode()
    imported = project.ingest.ImportCsv(
        iter([ImportCsvRequest(options=options, chunk=chunk)]), metadata=project.metadata
    )
    answers = [each async for each in imported]
    assert answers[-1].accepted_count == 0
    assert [each.reason for one in answers for each in one.errors] == [ERROR_REASON_RESERVED_VENDOR]
    assert await project.rows() == []


@pytest.mark.parametrize("name", ["set_properties", "anything"])
async def test_a_collection_cannot_be_of_the_reserved_vendor(project: Project, name: str) -> None:
    collection = Collection()
    collection.event_type.vendor, collection.event_type.name = "inkling", name
    create = CreateCollectionRequest(collection_id="mine", collection=collection)
    error = await failure(project.collections.CreateCollection(create, metadata=project.metadata))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_DECLARATION")
