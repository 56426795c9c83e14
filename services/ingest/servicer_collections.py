"""CollectionService: converts requests, calls the collections, formats what they say."""

from typing import Any

import grpc.aio

from inkling.ingest.v1 import collection_pb2, collection_service_pb2_grpc
from inkling.ingest.v1 import collection_service_pb2 as messages
from services.ingest.collections import Collections
from services.ingest.messages import collection_message, declaration_from, resource_id
from services.runtime import fieldmasks
from services.runtime.auth import Role, current_caller
from services.runtime.paging import PageTokens, page_size

# The names of the methods are the protocol's.

SERVICE_NAME = "inkling.ingest.v1.CollectionService"
_READERS = frozenset({Role.READ, Role.DEFINE, Role.SERVICE})
POLICIES = {
    f"/{SERVICE_NAME}/CreateCollection": frozenset({Role.DEFINE}),
    f"/{SERVICE_NAME}/UpdateCollection": frozenset({Role.DEFINE}),
    f"/{SERVICE_NAME}/GetCollection": _READERS,
    f"/{SERVICE_NAME}/ListCollections": _READERS,
}
_CHANGEABLE = (
    "description",
    "event_type",
    "fields",
    "key_fields",
    "occurred_at_field",
    "event_id_field",
    "strictness",
)

Context = grpc.aio.ServicerContext[Any, Any]


class CollectionServicer(collection_service_pb2_grpc.CollectionServiceServicer):
    """Declares what events look like."""

    def __init__(self, collections: Collections, tokens: PageTokens) -> None:
        self._collections = collections
        self._tokens = tokens

    async def CreateCollection(
        self, request: messages.CreateCollectionRequest, context: Context
    ) -> collection_pb2.Collection:
        """Declares a collection."""
        made = await self._collections.create(
            current_caller().project,
            request.collection_id,
            declaration_from(request.collection),
            request_id=request.request_id,
            validate_only=request.validate_only,
        )
        return collection_message(made)

    async def GetCollection(
        self, request: messages.GetCollectionRequest, context: Context
    ) -> collection_pb2.Collection:
        """Reads one."""
        collection_id = resource_id(request.name, "collections")
        return collection_message(await self._collections.get(current_caller().project, collection_id))

    async def ListCollections(
        self, request: messages.ListCollectionsRequest, context: Context
    ) -> messages.ListCollectionsResponse:
        """Lists them by name."""
        project = current_caller().project
        size = page_size(request.page_size)
        scope = (project, "ListCollections")
        after = str(self._tokens.verify(request.page_token, *scope).get("after", ""))
        found = await self._collections.all(project)
        rest = sorted(collection_id for collection_id in found if collection_id > after)
        page = [collection_message(found[collection_id]) for collection_id in rest[:size]]
        token = self._tokens.sign({"after": rest[size - 1]}, *scope) if len(rest) > size else ""
        return messages.ListCollectionsResponse(collections=page, next_page_token=token)

    async def UpdateCollection(
        self, request: messages.UpdateCollectionRequest, context: Context
    ) -> collection_pb2.Collection:
        """Changes one compatibly."""
        project = current_caller().project
        before = await self._collections.get(project, resource_id(request.collection.name, "collections"))
        target = collection_message(before)
        fieldmasks.apply(request.update_mask, request.collection, target, _CHANGEABLE)
        after = await self._collections.update(
            project,
            before,
            declaration_from(target),
            etag=request.collection.etag,
            validate_only=request.validate_only,
        )
        return collection_message(after)
