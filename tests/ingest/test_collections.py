"""Collections against a real process: declared, listed, changed compatibly, and held to."""

from collections.abc import Callable

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2

from inkling.ingest.v1 import collection_pb2 as pb
from inkling.ingest.v1.collection_service_pb2 import (
    CreateCollectionRequest,
    GetCollectionRequest,
    ListCollectionsRequest,
    UpdateCollectionRequest,
)
from inkling.ingest.v1.error_reason_pb2 import ERROR_REASON_COLLECTION_MISMATCH
from inkling.ingest.v1.event_pb2 import EventType
from tests.ingest.conftest import Project
from tests.ingest.events import event
from tests.ingest.statuses import detail, failure, reason_of
from tests.ingest.test_ingest_calls import now


def transaction(**changes: object) -> pb.Collection:
    fields = [
        pb.Field(name="amount", type=pb.FIELD_TYPE_INTEGER, required=True),
        pb.Field(name="status", type=pb.FIELD_TYPE_STRING),
    ]
    return pb.Collection(**{"event_type": EventType(name="transaction"), "fields": fields, **changes})  # type: ignore[arg-type]


async def create(
    project: Project, collection: pb.Collection, name: str = "transaction", **fields: object
) -> pb.Collection:
    request = CreateCollectionRequest(collection_id=name, collection=collection, **fields)  # type: ignore[arg-type]
    made: pb.Collection = await project.collections.CreateCollection(request, metadata=project.metadata)
    return made


async def update(project: Project, collection: pb.Collection, *paths: str, **fields: object) -> pb.Collection:
    request = UpdateCollectionRequest(collection=collection, update_mask=FieldMask(paths=paths), **fields)  # type: ignore[arg-type]
    changed: pb.Collection = await project.collections.UpdateCollection(request, metadata=project.metadata)
    return changed


async def get(project: Project, name: str = "transaction") -> pb.Collection:
    request = GetCollectionRequest(name=f"collections/{name}")
    found: pb.Collection = await project.collections.GetCollection(request, metadata=project.metadata)
    return found


async def test_a_declared_collection_can_be_read(project: Project) -> None:
    given = transaction(key_fields={"customer_id": "customer"}, occurred_at_field="date_time", description="Payments")
    made = await create(project, given)
    assert made.name == "collections/transaction"
    assert (made.version, made.strictness) == (1, pb.STRICTNESS_LENIENT)
    assert made.HasField("create_time")
    assert made.etag
    assert await get(project) == made
    assert made.fields == given.fields
    assert dict(made.key_fields) == {"customer_id": "customer"}


async def test_a_collection_is_declared_once_and_a_retry_answers_as_before(project: Project) -> None:
    made = await create(project, transaction(), request_id="r1")
    assert await create(project, transaction(), request_id="r1") == made
    error = await failure(create(project, transaction()))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
    error = await failure(create(project, transaction(description="other"), request_id="r1"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_dry_run_changes_nothing(project: Project) -> None:
    assert (await create(project, transaction(), validate_only=True)).version == 1
    assert (await failure(get(project))).code() is grpc.StatusCode.NOT_FOUND
    made = await create(project, transaction())
    changed = await update(project, pb.Collection(name=made.name, description="new"), validate_only=True)
    assert (changed.version, changed.description) == (2, "new")
    assert await get(project) == made


@pytest.mark.parametrize(
    ("collection", "name", "field"),
    [
        (transaction(), "Transaction", "collection_id"),
        (transaction(event_type=EventType()), "t", "collection.event_type.name"),
        (transaction(event_type=EventType(name="a/b")), "t", "collection.event_type.name"),
        (transaction(fields=[pb.Field(name="a:b", type=pb.FIELD_TYPE_STRING)]), "t", "collection.fields[0].name"),
        (transaction(fields=[pb.Field(name="a")]), "t", "collection.fields[0].type"),
        (transaction(fields=[pb.Field(name="a", type=pb.FIELD_TYPE_STRING)] * 2), "t", "collection.fields[1].name"),
        (transaction(key_fields={"User": "u"}), "t", "collection.key_fields"),
        (
            transaction(fields=[pb.Field(name=f"f{i}", type=pb.FIELD_TYPE_STRING) for i in range(257)]),
            "t",
            "collection.fields",
        ),
    ],
)
async def test_a_wrong_declaration_is_told_by_field(
    project: Project, collection: pb.Collection, name: str, field: str
) -> None:
    error = await failure(create(project, collection, name))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_DECLARATION")
    bad = detail(error, error_details_pb2.BadRequest())
    assert [violation.field for violation in bad.field_violations] == [field]


async def test_collections_are_listed_in_pages(project: Project) -> None:
    for name in "cab":
        await create(project, transaction(), name)
    names, token = [], ""
    while True:
        request = ListCollectionsRequest(page_size=2, page_token=token)
        page = await project.collections.ListCollections(request, metadata=project.metadata)
        names.append([each.name for each in page.collections])
        token = page.next_page_token
        if not token:
            break
    assert names == [["collections/a", "collections/b"], ["collections/c"]]
    error = await failure(
        project.collections.ListCollections(ListCollectionsRequest(page_size=-1), metadata=project.metadata)
    )
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_fields_may_be_added_made_optional_and_widened(project: Project) -> None:
    made = await create(project, transaction())
    fields = [
        pb.Field(name="amount", type=pb.FIELD_TYPE_NUMBER),
        pb.Field(name="status", type=pb.FIELD_TYPE_STRING, description="new words"),
        pb.Field(name="currency", type=pb.FIELD_TYPE_STRING),
    ]
    changed = await update(project, pb.Collection(name=made.name, fields=fields), "fields")
    assert (changed.version, list(changed.fields)) == (2, fields)
    assert changed.etag != made.etag
    assert changed.event_type == made.event_type


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.fields.pop(),
        lambda c: c.fields.add(name="new", type=pb.FIELD_TYPE_STRING, required=True),
        lambda c: setattr(c.fields[0], "type", pb.FIELD_TYPE_STRING),
        lambda c: setattr(c.fields[1], "required", True),
        lambda c: setattr(c.event_type, "name", "other"),
    ],
    ids=["taken away", "new and required", "narrowed", "made required", "of other events"],
)
async def test_an_incompatible_change_is_refused(project: Project, change: Callable[[pb.Collection], object]) -> None:
    made = await create(project, transaction())
    changed = pb.Collection.FromString(made.SerializeToString())
    change(changed)
    error = await failure(update(project, changed, "fields", "event_type"))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_DECLARATION")
    assert await get(project) == made


async def test_an_update_with_an_old_etag_is_aborted(project: Project) -> None:
    made = await create(project, transaction())
    await update(project, pb.Collection(name=made.name, description="first", etag=made.etag), "description")
    second = pb.Collection(name=made.name, description="second", etag=made.etag)
    assert (await failure(update(project, second, "description"))).code() is grpc.StatusCode.ABORTED
    error = await failure(update(project, pb.Collection(name=made.name), "version"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_strict_collection_refuses_events_that_do_not_fit(project: Project) -> None:
    await create(project, transaction(strictness=pb.STRICTNESS_STRICT))
    at = now()

    def sent(event_id: str, name: str = "transaction", **properties: object) -> object:
        return event(event_id, name=name, at=at, properties=properties)

    response = await project.send(
        sent("fits", amount=1),
        sent("fits too", amount=0, status=""),
        sent("missing", status="ok"),
        sent("null", amount=None),
        sent("other type", amount=1.5),
        sent("undeclared", amount=1, typo=1),
        sent("other event", name="other", anything=True),
        event("own data are free", name="transaction", at=at, properties={"amount": 1}, data={"typo": 1}),
    )
    refused = {each.index: (each.reason, each.field) for each in response.rejected}
    mismatch = ERROR_REASON_COLLECTION_MISMATCH
    assert refused == {
        2: (mismatch, "events[2].properties.amount"),
        3: (mismatch, "events[3].properties.amount"),
        4: (mismatch, "events[4].properties.amount"),
        5: (mismatch, "events[5].properties.typo"),
    }
    kept = [row["event_id"] for row in await project.rows()]
    assert kept == ["fits", "fits too", "other event", "own data are free"]


async def test_integers_fit_a_field_that_was_widened(project: Project) -> None:
    made = await create(project, transaction(strictness=pb.STRICTNESS_STRICT))
    made.fields[0].type = pb.FIELD_TYPE_NUMBER
    await update(project, made, "fields")
    at = now()
    response = await project.send(
        event("e1", name="transaction", at=at, properties={"amount": 1}),
        event("e2", name="transaction", at=at, properties={"amount": 1.5}),
    )
    assert response.accepted_count == 2
