"""The asynchronous client."""

from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import Literal, Self

from inkling.client.batching import BatchOptions
from inkling.client.collections import AsyncCollections
from inkling.client.datasets import AsyncDatasets
from inkling.client.dead_letters import AsyncDeadLetters
from inkling.client.definitions import Applied, AsyncDefinitions
from inkling.client.events import AsyncEvents
from inkling.client.exports import AsyncExports
from inkling.client.history import AsyncHistory
from inkling.client.insights import AsyncInsights
from inkling.client.profiles import AsyncProfiles
from inkling.client.project import AsyncProject
from inkling.client.properties import AsyncProperties
from inkling.client.rules import AsyncRules
from inkling.client.segments import AsyncSegments
from inkling.client.subjects import AsyncSubjects
from inkling.client.transport import RetryPolicy, ServiceName, TlsFiles, Transport
from inkling.definitions import Definition, StreamAttributeGroup
from inkling.errors import InvalidArgument, Violation
from inkling.values import AttributeValue

HOST = "127.0.0.1"
PORTS: dict[ServiceName, int] = {"ingest": 7001, "features": 7002, "insights": 7003}


class AsyncClient:
    """Speaks to the services of Inkling, as one project: the one that the API key belongs to.

        async with AsyncClient("127.0.0.1", api_key=...) as client:
            await client.events.send(CustomerEvent(name="purchase", occurred_at=..., keys={"user_id": "4711"}))
            written = await client.events.flush()
            profile = await client.profiles.get("4711", service="shop", min_position=written.position)

    The services are looked for on their usual ports of `host`; `ingest`, `features` and `insights` are whole addresses,
    for when they are elsewhere. `timeout` bounds each call with its retries, unless a call says otherwise; streams have
    no deadline of their own. All errors are `inkling.errors.InklingError`. One client serves any number of tasks of one
    event loop.
    """

    def __init__(
        self,
        host: str = HOST,
        *,
        api_key: str = "",
        ingest: str = "",
        features: str = "",
        insights: str = "",
        timeout: timedelta = timedelta(seconds=30),
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008  (frozen)
        compression: Literal["gzip"] | None = None,
        tls: TlsFiles | None = None,
        batching: BatchOptions = BatchOptions(),  # noqa: B008  (frozen)
    ) -> None:
        self._transport = Transport(
            {
                "ingest": ingest or usual_address("ingest", host),
                "features": features or usual_address("features", host),
                "insights": insights or usual_address("insights", host),
            },
            api_key=api_key,
            timeout=timeout,
            retry=retry,
            compression=compression,
            tls=tls,
        )
        self.events = AsyncEvents(self._transport, batching)
        self.collections = AsyncCollections(self._transport)
        self.dead_letters = AsyncDeadLetters(self._transport)
        self.project = AsyncProject(self._transport)
        self.definitions = AsyncDefinitions(self._transport)
        self.profiles = AsyncProfiles(self._transport)
        self.history = AsyncHistory(self._transport)
        self.exports = AsyncExports(self._transport)
        self.properties = AsyncProperties(self._transport)
        self.segments = AsyncSegments(self._transport)
        self.subjects = AsyncSubjects(self._transport)
        self.datasets = AsyncDatasets(self._transport)
        self.insights = AsyncInsights(self._transport)
        self.rules = AsyncRules(self._transport)

    async def publish(self, definitions: Sequence[Definition]) -> list[Applied]:
        """Publishes groups and services, and waits until the groups are filled from the log."""
        return await self.definitions.publish(definitions)

    async def test(
        self,
        attribute_group: StreamAttributeGroup,
        *,
        app_ids: Sequence[str] = (),
        key_values: Sequence[str] = (),
        sample_size: int = 5,
    ) -> list[dict[str, AttributeValue]]:
        """What a group would say of some profiles, publishing nothing: one row a profile, the key first.

        `app_ids` looks at events of these applications only. InvalidArgument names each mistake of the group.
        """
        wanted = attribute_group.restricted_to_apps(app_ids) if app_ids else attribute_group
        plan = await self.definitions.plan(wanted, sample_size=sample_size, key_values=key_values)
        if plan.problems:
            violations = [Violation(each.field, str(each).removeprefix(f"{each.field}: ")) for each in plan.problems]
            raise InvalidArgument(
                f"{attribute_group.name} has mistakes", reason="BAD_DEFINITION", violations=violations
            )
        key = attribute_group.attribute_key.name
        return [
            {key: sample.key_value, **{name: reading.value for name, reading in sample.new.items()}}
            for sample in plan.samples
        ]

    async def get_service_attributes(
        self, *, name: str, attribute_key: str, identifier: str
    ) -> dict[str, AttributeValue]:
        """The values that a service reads of one key: `{attribute_key: identifier, attribute: value, ...}`."""
        profile = await self.profiles.get(identifier, service=name, attribute_key=attribute_key)
        return {attribute_key: identifier, **profile.values}

    async def get_group_attributes(
        self, *, name: str, version: int, attribute_key: str, identifier: str, attributes: Sequence[str] = ()
    ) -> dict[str, AttributeValue]:
        """The values of one version of a group, or of some of its attributes, in the same form."""
        chosen = [f"{name}/{version}:{attribute}" for attribute in attributes]
        groups = () if chosen else (f"{name}/{version}",)
        profile = await self.profiles.get(identifier, groups=groups, attributes=chosen, attribute_key=attribute_key)
        return {attribute_key: identifier, **profile.values}

    async def close(self) -> None:
        """Delivers what waits in the buffer, then closes the channels."""
        try:
            await self.events.close()
        finally:
            await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def usual_address(service: ServiceName, host: str = HOST) -> str:
    """Where a service listens on a host unless it is told otherwise."""
    return f"{host}:{PORTS[service]}"
