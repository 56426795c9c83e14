"""Declares what events look like."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from google.protobuf.field_mask_pb2 import FieldMask

from inkling.client.transport import Transport
from inkling.events import new_event_id
from inkling.ingest.v1 import collection_service_pb2
from inkling.ingest.v1.collection_pb2 import Collection
from inkling.ingest.v1.collection_service_pb2_grpc import CollectionServiceStub

if TYPE_CHECKING:
    from inkling.ingest.v1.collection_service_pb2_grpc import CollectionServiceAsyncStub


class AsyncCollections:
    """The declared schemas of the project's events; they are the messages of `collection.proto`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def create(self, collection_id: str, collection: Collection, *, validate_only: bool = False) -> Collection:
        """Declares a collection. InvalidArgument names each mistake; AlreadyExists when it is there."""
        request = collection_service_pb2.CreateCollectionRequest(
            collection_id=collection_id,
            collection=collection,
            request_id=new_event_id(),
            validate_only=validate_only,
        )
        return await self._transport.call(self._stub.CreateCollection, request)

    async def get(self, collection: str) -> Collection:
        """Reads one by its id or name."""
        request = collection_service_pb2.GetCollectionRequest(name=collection_name(collection))
        return await self._transport.call(self._stub.GetCollection, request)

    async def list(self) -> list[Collection]:
        """All collections, by name."""
        request = collection_service_pb2.ListCollectionsRequest(page_size=1_000)
        found: list[Collection] = []
        while True:
            response = await self._transport.call(self._stub.ListCollections, request)
            found += response.collections
            request.page_token = response.next_page_token
            if not request.page_token:
                return found

    async def update(
        self, collection: Collection, *, fields: Sequence[str] = (), validate_only: bool = False
    ) -> Collection:
        """Changes one compatibly; no `fields` means all that are set. Aborted when its etag is not the present one."""
        request = collection_service_pb2.UpdateCollectionRequest(
            collection=collection, update_mask=FieldMask(paths=fields), validate_only=validate_only
        )
        return await self._transport.call(self._stub.UpdateCollection, request)

    @cached_property
    def _stub(self) -> "CollectionServiceAsyncStub":
        return CollectionServiceStub(self._transport.channel("ingest"))


def collection_name(collection: str) -> str:
    """collections/{collection}, from that or the id alone."""
    return collection if collection.startswith("collections/") else f"collections/{collection}"
