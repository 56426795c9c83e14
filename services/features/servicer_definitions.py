"""DefinitionService: converts requests, calls the catalog and the publisher, formats what they say."""

import copy
import hashlib
from typing import Any

import grpc.aio
from google.longrunning import operations_pb2
from google.protobuf.empty_pb2 import Empty

from inkling.features.v1 import attribute_group_pb2 as groups_pb2
from inkling.features.v1 import definition_service_pb2 as messages
from inkling.features.v1 import definition_service_pb2_grpc
from inkling.features.v1 import feature_service_pb2 as services_pb2
from services.features import proto_reader
from services.features.catalog import Catalog
from services.features.definitions import GroupState
from services.features.importing import Importer, export_document
from services.features.messages import stored_group_message, stored_service_message
from services.features.plan_answer import PlanAnswerer
from services.features.projects import Projects
from services.features.proto import group_to_proto, service_to_proto
from services.features.publishing import Publisher
from services.features.store import Request
from services.runtime import fieldmasks
from services.runtime.auth import Role, current_caller
from services.runtime.errors import FailedPrecondition, InvalidArgument, Violation
from services.runtime.operations import OperationRunner
from services.runtime.paging import PageTokens, page_size

# The names of the methods are the protocol's.

SERVICE_NAME = "inkling.features.v1.DefinitionService"
_READS = ("GetAttributeGroup", "ListAttributeGroups", "GetFeatureService", "ListFeatureServices", "ExportDefinition")
_WRITES = (
    *("CreateAttributeGroup", "UpdateAttributeGroup", "DeleteAttributeGroup", "PlanAttributeGroup"),
    *("PublishAttributeGroup", "CreateFeatureService", "UpdateFeatureService", "DeleteFeatureService"),
    "ImportDefinition",
)
POLICIES = {
    **{f"/{SERVICE_NAME}/{method}": frozenset({Role.READ, Role.DEFINE, Role.SERVICE}) for method in _READS},
    **{f"/{SERVICE_NAME}/{method}": frozenset({Role.DEFINE}) for method in _WRITES},
}
OPERATION_ROLES = frozenset({Role.DEFINE, Role.OPERATE})
MAX_REQUEST_ID = 128
_GROUP_FIELDS = ("description", "attribute_key", "owner", "attributes")
_SERVICE_FIELDS = ("description", "owner", "attribute_groups")

Context = grpc.aio.ServicerContext[Any, Any]


class DefinitionServicer(definition_service_pb2_grpc.DefinitionServiceServicer):
    """Defines attributes and what is read together."""

    def __init__(
        self,
        projects: Projects,
        publisher: Publisher,
        runner: OperationRunner,
        importer: Importer,
        planner: PlanAnswerer,
        tokens: PageTokens,
    ) -> None:
        self._projects = projects
        self._publisher = publisher
        self._runner = runner
        self._importer = importer
        self._planner = planner
        self._tokens = tokens

    async def _catalog(self) -> Catalog:
        return (await self._projects.get(current_caller().project)).catalog

    # Groups.

    async def CreateAttributeGroup(
        self, request: messages.CreateAttributeGroupRequest, context: Context
    ) -> groups_pb2.AttributeGroup:
        """Creates a draft group."""
        if request.version < 0:
            raise _out_of_range("version", "must not be negative: 0 takes the next")
        group, problems = proto_reader.group_from_proto(request.attribute_group, request.group_id, request.version)
        stored = await (await self._catalog()).create_group(
            group, problems, _request(request), validate_only=request.validate_only
        )
        return stored_group_message(stored)

    async def GetAttributeGroup(
        self, request: messages.GetAttributeGroupRequest, context: Context
    ) -> groups_pb2.AttributeGroup:
        """Reads one version of a group."""
        return stored_group_message((await self._catalog()).group(request.name))

    async def ListAttributeGroups(
        self, request: messages.ListAttributeGroupsRequest, context: Context
    ) -> messages.ListAttributeGroupsResponse:
        """Lists groups, all versions, by id, then version."""
        size = page_size(request.page_size)
        scope = (current_caller().project, "ListAttributeGroups")
        cursor = self._tokens.verify(request.page_token, *scope)
        after = (str(cursor.get("g", "")), int(cursor.get("v") or 0))
        stored = (await self._catalog()).groups
        rest = [each for each in stored if (each.group.group_id, each.group.version) > after]
        token = ""
        if len(rest) > size:
            last = rest[size - 1].group
            token = self._tokens.sign({"g": last.group_id, "v": last.version}, *scope)
        page = [stored_group_message(each) for each in rest[:size]]
        return messages.ListAttributeGroupsResponse(attribute_groups=page, next_page_token=token)

    async def UpdateAttributeGroup(
        self, request: messages.UpdateAttributeGroupRequest, context: Context
    ) -> groups_pb2.AttributeGroup:
        """Changes a draft."""
        catalog = await self._catalog()
        source = request.attribute_group
        before = catalog.group(source.name).group
        target = group_to_proto(before)
        fieldmasks.apply(request.update_mask, source, target, _GROUP_FIELDS)
        group, problems = proto_reader.group_from_proto(target, before.group_id, before.version)
        stored = await catalog.update_group(group, problems, source.etag, validate_only=request.validate_only)
        return stored_group_message(stored)

    async def DeleteAttributeGroup(self, request: messages.DeleteAttributeGroupRequest, context: Context) -> Empty:
        """Deletes a version with its state at once."""
        project = await self._projects.get(current_caller().project)
        await project.catalog.delete_group(request.name)
        await project.abandon(request.name)
        return Empty()

    async def PlanAttributeGroup(
        self, request: messages.PlanAttributeGroupRequest, context: Context
    ) -> messages.PlanAttributeGroupResponse:
        """Says what publishing would do."""
        return await self._planner.answer(current_caller().project, request)

    async def PublishAttributeGroup(
        self, request: messages.PublishAttributeGroupRequest, context: Context
    ) -> operations_pb2.Operation:
        """Publishes a draft."""
        stored = (await self._catalog()).group(request.name)
        if stored.state is not GroupState.DRAFT:
            raise FailedPrecondition(f"{request.name} is published already", reason="PUBLISHED_IMMUTABLE")
        if request.validate_only:
            return operations_pb2.Operation(done=True)
        return await self._publisher.publish(self._runner, current_caller().project, request.name)

    # Services.

    async def CreateFeatureService(
        self, request: messages.CreateFeatureServiceRequest, context: Context
    ) -> services_pb2.FeatureService:
        """Creates a service."""
        service, problems = proto_reader.service_from_proto(request.feature_service, request.feature_service_id)
        stored = await (await self._catalog()).create_service(
            service, problems, _request(request), validate_only=request.validate_only
        )
        return stored_service_message(stored)

    async def GetFeatureService(
        self, request: messages.GetFeatureServiceRequest, context: Context
    ) -> services_pb2.FeatureService:
        """Reads a service."""
        return stored_service_message((await self._catalog()).service(request.name))

    async def ListFeatureServices(
        self, request: messages.ListFeatureServicesRequest, context: Context
    ) -> messages.ListFeatureServicesResponse:
        """Lists the services, by id."""
        size = page_size(request.page_size)
        scope = (current_caller().project, "ListFeatureServices")
        after = str(self._tokens.verify(request.page_token, *scope).get("s", ""))
        rest = [each for each in (await self._catalog()).services if each.service.service_id > after]
        token = self._tokens.sign({"s": rest[size - 1].service.service_id}, *scope) if len(rest) > size else ""
        page = [stored_service_message(each) for each in rest[:size]]
        return messages.ListFeatureServicesResponse(feature_services=page, next_page_token=token)

    async def UpdateFeatureService(
        self, request: messages.UpdateFeatureServiceRequest, context: Context
    ) -> services_pb2.FeatureService:
        """Changes a service."""
        catalog = await self._catalog()
        source = request.feature_service
        before = catalog.service(source.name).service
        target = service_to_proto(before)
        fieldmasks.apply(request.update_mask, source, target, _SERVICE_FIELDS)
        service, problems = proto_reader.service_from_proto(target, before.service_id)
        stored = await catalog.update_service(service, problems, source.etag, validate_only=request.validate_only)
        return stored_service_message(stored)

    async def DeleteFeatureService(self, request: messages.DeleteFeatureServiceRequest, context: Context) -> Empty:
        """Deletes a service."""
        await (await self._catalog()).delete_service(request.name)
        return Empty()

    # Documents of Signals.

    async def ImportDefinition(
        self, request: messages.ImportDefinitionRequest, context: Context
    ) -> messages.ImportDefinitionResponse:
        """Takes a Signals JSON document."""
        project = current_caller().project
        name, publish = await self._importer.take(
            (await self._projects.get(project)).catalog, request.signals_json, validate_only=request.validate_only
        )
        response = messages.ImportDefinitionResponse(name=name)
        if request.publish and publish is not None and not request.validate_only:
            start = self._publisher.publish if publish is GroupState.DRAFT else self._publisher.follow
            response.publication.CopyFrom(await start(self._runner, project, name))
        return response

    async def ExportDefinition(
        self, request: messages.ExportDefinitionRequest, context: Context
    ) -> messages.ExportDefinitionResponse:
        """Gives a Signals JSON document."""
        return messages.ExportDefinitionResponse(signals_json=export_document(await self._catalog(), request.name))


def _request(message: messages.CreateAttributeGroupRequest | messages.CreateFeatureServiceRequest) -> Request | None:
    """What makes a creation recognisable when it is sent again."""
    if not message.request_id:
        return None
    if len(message.request_id) > MAX_REQUEST_ID:
        raise _out_of_range("request_id", f"must be at most {MAX_REQUEST_ID} characters")
    content = copy.deepcopy(message)
    content.ClearField("request_id")
    content.ClearField("validate_only")
    digest = hashlib.sha256(content.DESCRIPTOR.full_name.encode() + content.SerializeToString(deterministic=True))
    return Request(message.request_id, digest.hexdigest())


def _out_of_range(field: str, description: str) -> InvalidArgument:
    return InvalidArgument(
        f"{field} {description}", reason="OUT_OF_RANGE", violations=(Violation(field, description, "OUT_OF_RANGE"),)
    )
