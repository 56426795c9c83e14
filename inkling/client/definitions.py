"""Plans, publishes and reads definitions."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from inkling.client.operations import Operations, Progress
from inkling.client.profiles import Reading, group_name, read_value, service_name
from inkling.client.transport import Transport
from inkling.definitions import Definition, Service, StreamAttributeGroup
from inkling.features.v1 import definition_service_pb2
from inkling.features.v1.attribute_group_pb2 import AttributeGroup
from inkling.features.v1.definition_service_pb2_grpc import DefinitionServiceStub
from inkling.features.v1.feature_service_pb2 import FeatureService
from inkling.selectors import Document

if TYPE_CHECKING:
    from inkling.features.v1.definition_service_pb2_grpc import DefinitionServiceAsyncStub


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake in a definition: where, what is wrong, what to do."""

    field: str
    description: str
    hint: str

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" + (f" ({self.hint})" if self.hint else "")


@dataclass(frozen=True, slots=True)
class Sample:
    """One profile: as served now, and as the new definition gives it from the log."""

    key_value: str
    old: dict[str, Reading]
    new: dict[str, Reading]


@dataclass(frozen=True, slots=True)
class Plan:
    """What publishing would do. With problems there are no samples.

    `changes` maps attribute to ADDED, CHANGED, UNCHANGED or REMOVED, against the latest published version.
    """

    problems: tuple[Problem, ...]
    changes: dict[str, str]
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Applied:
    """One definition that the service has now, by its resource name.

    `operation` names the publication of a group that was published here; it is empty otherwise.
    """

    name: str
    operation: str = ""

    @property
    def published(self) -> bool:
        """Whether it was published here."""
        return bool(self.operation)


class AsyncDefinitions:
    """The project's attribute groups and feature services."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._operations = Operations(transport, "features")

    async def plan(
        self, group: StreamAttributeGroup | Document | str, *, sample_size: int = 5, key_values: Sequence[str] = ()
    ) -> Plan:
        """What publishing a group would do: every mistake, every change, and sampled profiles before and after.

        `group` is a definition, a Signals JSON document (as text or object), or the name of a stored version.
        """
        request = definition_service_pb2.PlanAttributeGroupRequest(sample_size=sample_size, key_values=key_values)
        if isinstance(group, str) and not group.lstrip().startswith("{"):
            request.name = group_name(group)
        else:
            request.signals_json = to_json(group)
        response = await self._transport.call(self._stub.PlanAttributeGroup, request)
        return Plan(
            problems=tuple(Problem(each.field, each.description, each.hint) for each in response.problems),
            changes={
                each.attribute: definition_service_pb2.AttributeChange.Kind.Name(each.kind).removeprefix("KIND_")
                for each in response.changes
            },
            samples=tuple(
                Sample(
                    each.key_value,
                    {value.name: read_value(value) for value in each.old_values},
                    {value.name: read_value(value) for value in each.new_values},
                )
                for each in response.samples
            ),
        )

    async def apply(
        self,
        definition: Definition | Document | str,
        *,
        publish: bool = False,
        wait: bool = True,
        timeout: timedelta | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Applied:
        """Stores a definition or Signals JSON document; with `publish` a group is published and, unless `wait` is
        False, filled from the log before this returns. InvalidArgument names each mistake.
        """
        request = definition_service_pb2.ImportDefinitionRequest(signals_json=to_json(definition), publish=publish)
        response = await self._transport.call(self._stub.ImportDefinition, request)
        if response.HasField("publication") and wait:
            await self._operations.wait(response.publication, timeout=timeout, on_progress=on_progress)
        return Applied(response.name, response.publication.name)

    async def wait(
        self,
        applied: Applied,
        *,
        timeout: timedelta | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """Waits until what `apply` began without waiting is done; returns at once for what was not published."""
        if applied.operation:
            operation = await self._operations.get(applied.operation)
            await self._operations.wait(operation, timeout=timeout, on_progress=on_progress)

    async def publish(
        self,
        definitions: Sequence[Definition],
        *,
        wait: bool = True,
        timeout: timedelta | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> list[Applied]:
        """Publishes groups, then the services that read them, and returns what was applied, in the order given."""
        applied: dict[int, Applied] = {}
        for definition in sorted(definitions, key=lambda each: isinstance(each, Service)):
            applied[id(definition)] = await self.apply(
                definition,
                publish=isinstance(definition, StreamAttributeGroup),
                wait=wait,
                timeout=timeout,
                on_progress=on_progress,
            )
        return [applied[id(definition)] for definition in definitions]

    async def export(self, name: str) -> Document:
        """A group's version or a service, by resource name, as Signals has it in JSON."""
        request = definition_service_pb2.ExportDefinitionRequest(name=name)
        document: Document = json.loads((await self._transport.call(self._stub.ExportDefinition, request)).signals_json)
        return document

    async def get_group(self, group: str) -> AttributeGroup:
        """Reads one version of a group, by `group/version` or resource name."""
        request = definition_service_pb2.GetAttributeGroupRequest(name=group_name(group))
        return await self._transport.call(self._stub.GetAttributeGroup, request)

    async def list_groups(self) -> list[AttributeGroup]:
        """All versions of all groups."""
        request = definition_service_pb2.ListAttributeGroupsRequest(page_size=1_000)
        found: list[AttributeGroup] = []
        while True:
            response = await self._transport.call(self._stub.ListAttributeGroups, request)
            found += response.attribute_groups
            request.page_token = response.next_page_token
            if not request.page_token:
                return found

    async def delete_group(self, group: str) -> None:
        """Deletes a version with its state. FailedPrecondition while a service names it."""
        request = definition_service_pb2.DeleteAttributeGroupRequest(name=group_name(group))
        await self._transport.call(self._stub.DeleteAttributeGroup, request)

    async def get_service(self, service: str) -> FeatureService:
        """Reads a service."""
        request = definition_service_pb2.GetFeatureServiceRequest(name=service_name(service))
        return await self._transport.call(self._stub.GetFeatureService, request)

    async def list_services(self) -> list[FeatureService]:
        """All services."""
        request = definition_service_pb2.ListFeatureServicesRequest(page_size=1_000)
        found: list[FeatureService] = []
        while True:
            response = await self._transport.call(self._stub.ListFeatureServices, request)
            found += response.feature_services
            request.page_token = response.next_page_token
            if not request.page_token:
                return found

    async def delete_service(self, service: str) -> None:
        """Deletes a service; its groups stay."""
        request = definition_service_pb2.DeleteFeatureServiceRequest(name=service_name(service))
        await self._transport.call(self._stub.DeleteFeatureService, request)

    @cached_property
    def _stub(self) -> "DefinitionServiceAsyncStub":
        return DefinitionServiceStub(self._transport.channel("features"))


def to_json(definition: Definition | Document | str) -> str:
    """The JSON text of a definition, a document, or text that is JSON already."""
    if isinstance(definition, str):
        return definition
    return json.dumps(definition if isinstance(definition, dict) else definition.to_signals())
