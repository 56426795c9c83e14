"""A server of features over a log in memory, and a client of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from inkling.features.v1 import attribute_group_pb2 as groups_pb2
from inkling.features.v1 import definition_service_pb2 as definitions
from inkling.features.v1.dataset_service_pb2_grpc import DatasetServiceStub
from inkling.features.v1.definition_service_pb2_grpc import DefinitionServiceStub
from inkling.features.v1.profile_service_pb2_grpc import ProfileServiceStub
from inkling.features.v1.property_service_pb2_grpc import PropertyServiceStub
from inkling.features.v1.rollup_service_pb2_grpc import RollupServiceStub
from inkling.features.v1.segment_service_pb2_grpc import SegmentServiceStub
from services.features.app import open_app
from services.features.archive import Listings
from services.features.settings import FeaturesSettings
from services.runtime.clocks import ManualClock
from services.runtime.server import Server
from tests.features.memory_log import MemoryLog
from tests.features.memory_sink import MemorySink

DAY_US = 86_400_000_000
GROUP = "attributeGroups/shopping/versions/1"


class Client:
    """The stubs of one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.definitions = DefinitionServiceStub(channel)
        self.profiles = ProfileServiceStub(channel)
        self.properties = PropertyServiceStub(channel)
        self.rollups = RollupServiceStub(channel)
        self.segments = SegmentServiceStub(channel)
        self.datasets = DatasetServiceStub(channel)
        self.operations = operations_pb2_grpc.OperationsStub(channel)

    async def publish(self, name: str) -> groups_pb2.AttributeGroup:
        """Publishes, and waits until it is served."""
        operation = await self.definitions.PublishAttributeGroup(definitions.PublishAttributeGroupRequest(name=name))
        return await self.finished(operation)

    async def finished(self, operation: operations_pb2.Operation) -> groups_pb2.AttributeGroup:
        """The response of a publication."""
        request = operations_pb2.WaitOperationRequest(name=operation.name, timeout=Duration(seconds=30))
        done = await self.operations.WaitOperation(request)
        assert done.done, done
        assert not done.HasField("error"), done.error
        group = groups_pb2.AttributeGroup()
        assert done.response.Unpack(group)
        return group


@asynccontextmanager
async def serving(
    settings: FeaturesSettings, log: MemoryLog, clock: ManualClock, listings: Listings | None = None
) -> AsyncIterator[Client]:
    """A running server and a client of it."""
    async with (
        open_app(settings, log, clock, listings, MemorySink(log, clock)) as app,
        Server.open(settings, app.services, registry=app.registry) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        await app.projects.wait_ready()
        yield Client(channel)


def shopping(period_days: int = 7) -> groups_pb2.AttributeGroup:
    """A group of two attributes."""
    events = [groups_pb2.EventSelector(vendor="shop", name="buy")]
    price = groups_pb2.Property(atomic=groups_pb2.AtomicProperty(name="price"))
    period = Duration(seconds=period_days * 86_400)
    counter = groups_pb2.Attribute(
        name="buys",
        type=groups_pb2.VALUE_TYPE_INT32,
        events=events,
        aggregation=groups_pb2.AGGREGATION_FUNCTION_COUNTER,
        period=period,
    )
    spent = groups_pb2.Attribute(
        name="spent",
        type=groups_pb2.VALUE_TYPE_DOUBLE,
        events=events,
        aggregation=groups_pb2.AGGREGATION_FUNCTION_SUM,
        property=price,
        period=period,
    )
    return groups_pb2.AttributeGroup(attribute_key="user_id", attributes=[counter, spent])


async def create(client: Client, version: int = 0, **fields: object) -> groups_pb2.AttributeGroup:
    """Creates a draft of the group."""
    request = definitions.CreateAttributeGroupRequest(
        group_id="shopping",
        version=version,
        attribute_group=shopping(),
        **fields,  # type: ignore[arg-type]
    )
    return await client.definitions.CreateAttributeGroup(request)


async def refused(call: object) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """The code, the reason and the violations (by field) of a call that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    trailers = dict(caught.value.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])  # type: ignore[arg-type]
    reason, violations = "", {}
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            assert info.domain == "features.inkling"
            reason = info.reason
        elif detail.Unpack(bad):
            violations = {each.field: each.description for each in bad.field_violations}
    return caught.value.code(), reason, violations
