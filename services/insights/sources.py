"""The data sources of a project: transactions, and every collection that is declared in ingest."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import grpc.aio

from inkling.ingest.v1 import collection_pb2, collection_service_pb2
from inkling.ingest.v1.collection_service_pb2_grpc import CollectionServiceStub
from services.insights.engine.entering import Binding
from services.insights.language.sources import Sources, SourceSchema, sources_of, transactions
from services.insights.language.types import Type
from services.kernel.expressions import EventTypeIs
from services.runtime.errors import Unavailable

TRANSACTIONS, CUSTOMER_KEY = "transactions", "customer_id"
_TIME = "date_time"
_TYPES = {
    collection_pb2.FIELD_TYPE_STRING: "string",
    collection_pb2.FIELD_TYPE_NUMBER: "numeric",
    collection_pb2.FIELD_TYPE_INTEGER: "numeric",
    collection_pb2.FIELD_TYPE_BOOLEAN: "boolean",
    collection_pb2.FIELD_TYPE_TIMESTAMP: "datetime",
    collection_pb2.FIELD_TYPE_STRING_LIST: "stringArray",
}


@dataclass(frozen=True)
class Catalogue:
    """The sources there are, and which events their rows are."""

    bindings: Mapping[str, Binding]

    @property
    def schemas(self) -> Sources:
        """What queries may read."""
        return sources_of(binding.schema for binding in self.bindings.values())


class SourceReader(Protocol):
    """Where the declared collections are."""

    async def read(self, project: str) -> Catalogue:
        """The sources of a project, transactions among them. Raises Unavailable."""
        ...


def transactions_binding() -> Binding:
    """Events named `transaction` of any vendor, about a `customer_id`; their properties are the columns."""
    schema = transactions()
    places = {name: f"a.{name}" for name in schema.columns if name != schema.time_column}
    signed = ("amount", "credit_debit_indicator")
    return Binding(schema, CUSTOMER_KEY, EventTypeIs(None, "transaction", None), places, signed)


class OnlyTransactions:
    """Where no collections can be declared."""

    async def read(self, project: str) -> Catalogue:
        """See SourceReader."""
        return Catalogue({TRANSACTIONS: transactions_binding()})


class IngestSources:
    """The collections that ingest holds."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = CollectionServiceStub(channel)

    async def read(self, project: str) -> Catalogue:
        """See SourceReader."""
        found: list[collection_pb2.Collection] = []
        request = collection_service_pb2.ListCollectionsRequest(page_size=1_000)
        metadata = (("x-inkling-project", project),)
        try:
            while True:
                response = await self._stub.ListCollections(request, metadata=metadata, timeout=10)
                found += response.collections
                request.page_token = response.next_page_token
                if not request.page_token:
                    return catalogue(found)
        except grpc.aio.AioRpcError as error:
            raise Unavailable("the declared collections cannot be read now", reason="NOT_READY") from error


def catalogue(collections: Iterable[collection_pb2.Collection]) -> Catalogue:
    """The sources that collections are; one without an attribute key is none."""
    bindings = {TRANSACTIONS: transactions_binding()}
    for collection in collections:
        name = collection.name.removeprefix("collections/")
        if name not in bindings and collection.key_fields:
            bindings[name] = _binding(name, collection)
    return Catalogue(bindings)


def _binding(name: str, collection: collection_pb2.Collection) -> Binding:
    keys = sorted(collection.key_fields)
    attribute_key = CUSTOMER_KEY if CUSTOMER_KEY in keys else keys[0]
    time = collection.occurred_at_field or _TIME
    fields = {field.name: Type.named(_TYPES[field.type]) for field in collection.fields if field.type in _TYPES}
    columns = {time: Type.named("datetime")} | {name: kind for name, kind in fields.items() if name != time}
    kind = collection.event_type
    return Binding(
        SourceSchema(name, columns, time_column=time),
        attribute_key,
        EventTypeIs(kind.vendor or None, kind.name or None, kind.version or None),
        {column: f"a.{column}" for column in columns if column != time},
    )
