"""Every method refuses callers without the right key, and no project sees another."""

import time
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.message import Message

from inkling.ingest.v1 import (
    archive_service_pb2,
    collection_pb2,
    collection_service_pb2,
    dead_letter_service_pb2,
    ingest_service_pb2,
    project_service_pb2,
)
from inkling.ingest.v1.dead_letter_service_pb2 import (
    GetDeadLetterRequest,
    ListDeadLettersRequest,
    PurgeDeadLettersRequest,
    ReplayDeadLettersRequest,
)
from services.ingest import (
    servicer_archive,
    servicer_collections,
    servicer_dead_letters,
    servicer_ingest,
    servicer_projects,
)
from services.runtime.auth import Role
from tests.ingest.conftest import Project
from tests.ingest.events import event
from tests.ingest.processes import SERVICE_KEY, IngestProcess, bearer
from tests.ingest.statuses import failure, reason_of
from tests.ingest.test_ingest_calls import now

MODULES = (servicer_ingest, servicer_archive, servicer_collections, servicer_dead_letters, servicer_projects)
POLICIES = {method: roles for module in MODULES for method, roles in module.POLICIES.items()}
FILES = (
    ingest_service_pb2.DESCRIPTOR,
    archive_service_pb2.DESCRIPTOR,
    collection_service_pb2.DESCRIPTOR,
    dead_letter_service_pb2.DESCRIPTOR,
    project_service_pb2.DESCRIPTOR,
)
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.services_by_name.values()
    for method in service.methods
}
STREAMS = {"IngestStream": (True, True), "ImportCsv": (True, True), "Subscribe": (False, True)}


async def call(channel: grpc.aio.Channel, method: str, metadata: tuple[tuple[str, str], ...]) -> None:
    """Calls a method with an empty request and reads one answer."""
    name = method.rpartition("/")[2]
    streams_in, streams_out = STREAMS.get(name, (False, False))

    async def requests() -> AsyncIterator[bytes]:
        yield b""

    if streams_in:
        try:
            await channel.stream_stream(method)(requests(), metadata=metadata).read()
        except grpc.aio.AioRpcError as error:
            # The client library fails now and then when a refusal comes while it is sending: that says nothing.
            if error.details() != "Internal error from Core":
                raise
            await call(channel, method, metadata)
    elif streams_out:
        await channel.unary_stream(method)(b"", metadata=metadata).read()
    else:
        await channel.unary_unary(method)(b"", metadata=metadata)


def test_every_method_has_a_policy() -> None:
    assert set(POLICIES) == set(METHODS)
    assert all(POLICIES.values())


@pytest.mark.parametrize("method", sorted(METHODS))
async def test_without_a_right_key_a_method_is_refused(
    ingest_process: IngestProcess, channel: grpc.aio.Channel, method: str
) -> None:
    expired = await ingest_process.key("expired", POLICIES[method], time.time_ns() // 1000 + 200_000)
    lesser = await ingest_process.key("lesser", frozenset(Role) - POLICIES[method] - {Role.SERVICE})
    for metadata in ((), bearer("ink_" + "x" * 43), (("authorization", "Basic x"),)):
        error = await failure(call(channel, method, metadata))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    error = await failure(call(channel, method, bearer(lesser)))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.PERMISSION_DENIED, "MISSING_ROLE")
    time.sleep(0.25)  # noqa: ASYNC251
    error = await failure(call(channel, method, bearer(expired)))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    if Role.SERVICE not in POLICIES[method]:
        error = await failure(call(channel, method, bearer(SERVICE_KEY, "lesser")))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("method", sorted(METHODS))
async def test_one_of_the_roles_of_a_method_is_enough(
    ingest_process: IngestProcess, channel: grpc.aio.Channel, method: str
) -> None:
    for role in POLICIES[method] - {Role.SERVICE}:
        metadata = bearer(await ingest_process.key("enough", {role}))
        try:
            await call(channel, method, metadata)
        except grpc.aio.AioRpcError as error:
            assert error.code() not in (  # noqa: PT017
                grpc.StatusCode.UNAUTHENTICATED,
                grpc.StatusCode.PERMISSION_DENIED,
                grpc.StatusCode.INTERNAL,
                grpc.StatusCode.UNKNOWN,
            )


async def test_nobody_but_a_service_names_a_project(project: Project, other_project: Project) -> None:
    stolen = (*project.metadata, ("x-inkling-project", other_project.name))
    error = await failure(project.ingest.Ingest(ingest_service_pb2.IngestRequest(), metadata=stolen))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_two_projects_never_see_each_other(project: Project, other_project: Project) -> None:
    mine = collection_pb2.Collection(event_type=event().type)
    create = collection_service_pb2.CreateCollectionRequest(collection_id="mine", collection=mine)
    await project.collections.CreateCollection(create, metadata=project.metadata)
    response = await project.send(event("e1", at=now()), event("", at=now()))
    letter = response.rejected[0].dead_letter
    theirs = other_project.metadata

    assert await other_project.rows() == []
    assert (await other_project.parts())[0].head_position == 0
    listed = await project.collections.ListCollections(collection_service_pb2.ListCollectionsRequest(), metadata=theirs)
    assert not listed.collections
    letters = project.dead_letters
    assert not (await letters.ListDeadLetters(ListDeadLettersRequest(), metadata=theirs)).dead_letters
    hidden: list[tuple[object, Message]] = [
        (project.collections.GetCollection, collection_service_pb2.GetCollectionRequest(name="collections/mine")),
        (
            project.collections.UpdateCollection,
            collection_service_pb2.UpdateCollectionRequest(
                collection=collection_pb2.Collection(name="collections/mine")
            ),
        ),
        (letters.GetDeadLetter, GetDeadLetterRequest(name=letter)),
        (letters.ReplayDeadLetters, ReplayDeadLettersRequest(names=[letter])),
        (letters.ReplayDeadLetters, ReplayDeadLettersRequest(repairs={letter: event("e2", at=now())})),
    ]
    for method, request in hidden:
        error = await failure(method(request, metadata=theirs))  # type: ignore[operator]
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    for request in (PurgeDeadLettersRequest(names=[letter]), PurgeDeadLettersRequest(all=True)):
        assert (await letters.PurgeDeadLetters(request, metadata=theirs)).purged_count == 0
    kept = await letters.GetDeadLetter(GetDeadLetterRequest(name=letter), metadata=project.metadata)
    assert kept.name == letter
    create.collection.description = "theirs"
    await project.collections.CreateCollection(create, metadata=theirs)
    await other_project.send(event("e1", at=now()))
    assert [row["event_id"] for row in await project.rows()] == ["e1"]
