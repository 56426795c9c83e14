"""Declares properties and roll-ups, and sets properties: what other systems know about a key."""

import builtins
import itertools
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from google.protobuf.field_mask_pb2 import FieldMask

from inkling.client.streaming import ResumingStream
from inkling.client.transport import Transport
from inkling.events import new_event_id
from inkling.features.v1 import error_reason_pb2, rollup_service_pb2
from inkling.features.v1 import property_service_pb2 as messages
from inkling.features.v1.property_service_pb2_grpc import PropertyServiceStub
from inkling.features.v1.rollup_service_pb2 import Rollup
from inkling.features.v1.rollup_service_pb2_grpc import RollupServiceStub
from inkling.values import NestedValue, encode_nested, timestamp

if TYPE_CHECKING:
    from inkling.features.v1.property_service_pb2_grpc import PropertyServiceAsyncStub
    from inkling.features.v1.rollup_service_pb2_grpc import RollupServiceAsyncStub

PropertyType = Literal["boolean", "numeric", "string", "date", "array", "record"]
Visibility = Literal["visible", "hidden"]
Merge = Literal["first", "most_recent", "max", "sum"]
RollupFunction = Literal["sum", "min", "max", "mean", "count", "count_distinct"]
_CREATED = 100


@dataclass(frozen=True, slots=True)
class PropertySpec:
    """What to declare: see `property_service.proto` for what each means. `refers_to` makes it a reference."""

    name: str
    type: PropertyType
    description: str = ""
    source: str = ""
    visibility: Visibility = "visible"
    merge: Merge = "most_recent"
    refers_to: str = ""

    def to_message(self) -> messages.PropertyDeclaration:
        """The content of the declaration; ValueError for a word that is none."""
        return messages.PropertyDeclaration(
            type=messages.PropertyType.Value(f"PROPERTY_TYPE_{self.type.upper()}"),
            description=self.description,
            source=self.source,
            visibility=messages.PropertyVisibility.Value(f"PROPERTY_VISIBILITY_{self.visibility.upper()}"),
            merge_strategy=messages.MergeStrategy.Value(f"MERGE_STRATEGY_{self.merge.upper()}"),
            refers_to=self.refers_to,
        )


@dataclass(frozen=True, slots=True)
class PropertyWrite:
    """Properties of one profile, set and unset at one instant: now, unless `event_time` says when."""

    key_value: str
    values: Mapping[str, NestedValue] = field(default_factory=dict)
    unset: Sequence[str] = ()
    event_time: datetime | None = None
    write_id: str = ""

    def to_message(self) -> messages.PropertyWrite:
        """The message; TypeError for a value of a kind that no property has."""
        return messages.PropertyWrite(
            key_value=self.key_value,
            values={name: encode_nested(each) for name, each in self.values.items()},
            unset=self.unset,
            event_time=None if self.event_time is None else timestamp(self.event_time),
            write_id=self.write_id,
        )


@dataclass(frozen=True, slots=True)
class RejectedWrite:
    """One refused write: its place in everything that was sent, from 0, and why."""

    index: int
    reason: str
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of writes: `position` is that of the last accepted one in the log."""

    position: int = 0
    accepted: int = 0
    rejected: tuple[RejectedWrite, ...] = ()


class AsyncProperties:
    """The project's properties and roll-ups; declarations are the messages of the protos."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    # Declarations.

    async def declare(
        self,
        name: str,
        kind: PropertyType,
        *,
        attribute_key: str,
        description: str = "",
        source: str = "",
        visibility: Visibility = "visible",
        merge: Merge = "most_recent",
        refers_to: str = "",
    ) -> messages.PropertyDeclaration:
        """Declares a property. InvalidArgument names each mistake; AlreadyExists when it is there."""
        spec = PropertySpec(name, kind, description, source, visibility, merge, refers_to)
        request = messages.CreatePropertyRequest(
            attribute_key=attribute_key, property_id=name, property=spec.to_message()
        )
        return await self._transport.call(self._stub.CreateProperty, request)

    async def declare_many(
        self, specs: Sequence[PropertySpec], *, attribute_key: str
    ) -> builtins.list[messages.PropertyDeclaration]:
        """Declares properties of one attribute key, up to 100 all or none: they share their state."""
        declared: builtins.list[messages.PropertyDeclaration] = []
        for start in range(0, len(specs), _CREATED):
            requests = [
                messages.CreatePropertyRequest(
                    attribute_key=attribute_key, property_id=spec.name, property=spec.to_message()
                )
                for spec in specs[start : start + _CREATED]
            ]
            request = messages.BatchCreatePropertiesRequest(requests=requests)
            declared += (await self._transport.call(self._stub.BatchCreateProperties, request)).properties
        return declared

    async def get(self, name: str, *, attribute_key: str = "") -> messages.PropertyDeclaration:
        """Reads a declaration by its resource name, or by its id with the attribute key."""
        request = messages.GetPropertyRequest(name=property_name(name, attribute_key))
        return await self._transport.call(self._stub.GetProperty, request)

    async def list(self, attribute_key: str = "") -> builtins.list[messages.PropertyDeclaration]:
        """All declarations (of one attribute key), by key, then name."""
        request = messages.ListPropertiesRequest(attribute_key=attribute_key, page_size=1_000)
        found: builtins.list[messages.PropertyDeclaration] = []
        while True:
            response = await self._transport.call(self._stub.ListProperties, request)
            found += response.properties
            request.page_token = response.next_page_token
            if not request.page_token:
                return found

    async def update(
        self, declaration: messages.PropertyDeclaration, *, fields: Sequence[str] = ()
    ) -> messages.PropertyDeclaration:
        """Changes a declaration; no `fields` means all that are set. Type and merge strategy stay."""
        request = messages.UpdatePropertyRequest(property=declaration, update_mask=FieldMask(paths=fields))
        return await self._transport.call(self._stub.UpdateProperty, request)

    async def delete(self, name: str, *, attribute_key: str = "") -> None:
        """Deletes a declaration. Its values stay in the log: declared again, it has them again."""
        request = messages.DeletePropertyRequest(name=property_name(name, attribute_key))
        await self._transport.call(self._stub.DeleteProperty, request)

    # Values.

    async def set(
        self,
        key_value: str,
        values: Mapping[str, NestedValue] | None = None,
        *,
        attribute_key: str,
        unset: Sequence[str] = (),
        event_time: datetime | None = None,
        write_id: str = "",
        source: str = "",
    ) -> int:
        """Sets and unsets properties of one profile, durably; returns the position to read them with.

        Retries add nothing, also those of the caller with the same `write_id`.
        """
        write = PropertyWrite(key_value, values or {}, unset, event_time, write_id or new_event_id())
        request = messages.SetPropertiesRequest(attribute_key=attribute_key, write=write.to_message(), source=source)
        return (await self._transport.call(self._stub.SetProperties, request)).position

    async def stream(
        self,
        writes: Iterable[PropertyWrite],
        *,
        attribute_key: str,
        source: str = "",
        batch_id: str = "",
        chunk_size: int = 1_000,
        window: int = 4,
    ) -> AsyncIterator[WriteResult]:
        """Sets any number of properties over one stream, and yields what became of each chunk, in order.

        After a break it connects again and repeats what was not acknowledged. The same writes sent again under the same
        `batch_id` (at most 64 characters) add nothing.
        """
        stub, batch = self._stub, batch_id or new_event_id()

        async def requests() -> AsyncIterator[messages.BatchSetPropertiesRequest]:
            iterator = iter(writes)
            for sequence in itertools.count(1):
                chunk = [each.to_message() for each in itertools.islice(iterator, chunk_size)]
                if not chunk:
                    return
                for place, each in enumerate(chunk, (sequence - 1) * chunk_size):
                    each.write_id = each.write_id or f"{batch}:{place}"
                yield messages.BatchSetPropertiesRequest(
                    sequence=sequence, attribute_key=attribute_key, writes=chunk, source=source
                )

        def read(
            request: messages.BatchSetPropertiesRequest, response: messages.BatchSetPropertiesResponse
        ) -> WriteResult:
            first = (request.sequence - 1) * chunk_size
            rejected = tuple(
                RejectedWrite(
                    first + each.index,
                    error_reason_pb2.ErrorReason.Name(each.reason).removeprefix("ERROR_REASON_"),
                    each.field,
                    each.message,
                )
                for each in response.rejected
            )
            return WriteResult(response.position, response.accepted_count, rejected)

        stream = ResumingStream(
            lambda: stub.BatchSetProperties(metadata=self._transport.metadata()),
            self._transport.retry,
            window,
            read,
        )
        async for result in stream.run(requests()):
            yield result

    async def set_many(
        self, writes: Iterable[PropertyWrite], *, attribute_key: str, source: str = "", batch_id: str = ""
    ) -> WriteResult:
        """Sets any number of properties over one stream: see `stream`."""
        position, accepted = 0, 0
        rejected: builtins.list[RejectedWrite] = []
        async for result in self.stream(writes, attribute_key=attribute_key, source=source, batch_id=batch_id):
            position = max(position, result.position)
            accepted += result.accepted
            rejected += result.rejected
        return WriteResult(position, accepted, tuple(rejected))

    # Roll-ups.

    async def declare_rollup(
        self,
        name: str,
        function: RollupFunction,
        *,
        attribute_key: str,
        reference: str,
        attribute: str = "",
        description: str = "",
    ) -> Rollup:
        """Declares a roll-up of `group:attribute` or `properties.name` to the profiles that `reference` refers to.

        `reference` is the resource name of a property, or `key:property` such as `user_id:account`.
        """
        key, _, property_id = reference.partition(":")
        content = Rollup(
            reference=property_name(property_id, key) if property_id else reference,
            attribute=attribute,
            function=rollup_service_pb2.RollupFunction.Value(f"ROLLUP_FUNCTION_{function.upper()}"),
            description=description,
        )
        request = rollup_service_pb2.CreateRollupRequest(attribute_key=attribute_key, rollup_id=name, rollup=content)
        return await self._transport.call(self._rollups.CreateRollup, request)

    async def list_rollups(self, attribute_key: str = "") -> builtins.list[Rollup]:
        """All declared roll-ups (of one attribute key), by key, then name."""
        request = rollup_service_pb2.ListRollupsRequest(attribute_key=attribute_key, page_size=1_000)
        found: builtins.list[Rollup] = []
        while True:
            response = await self._transport.call(self._rollups.ListRollups, request)
            found += response.rollups
            request.page_token = response.next_page_token
            if not request.page_token:
                return found

    async def delete_rollup(self, name: str, *, attribute_key: str = "") -> None:
        """Deletes a roll-up by its resource name, or by its id with the attribute key."""
        full = name if "/" in name else f"attributeKeys/{attribute_key}/rollups/{name}"
        await self._transport.call(self._rollups.DeleteRollup, rollup_service_pb2.DeleteRollupRequest(name=full))

    @cached_property
    def _stub(self) -> "PropertyServiceAsyncStub":
        return PropertyServiceStub(self._transport.channel("features"))

    @cached_property
    def _rollups(self) -> "RollupServiceAsyncStub":
        return RollupServiceStub(self._transport.channel("features"))


def property_name(name: str, attribute_key: str = "") -> str:
    """attributeKeys/{attribute_key}/properties/{property}, from that or from the id and the key."""
    return name if name.startswith("attributeKeys/") else f"attributeKeys/{attribute_key}/properties/{name}"
