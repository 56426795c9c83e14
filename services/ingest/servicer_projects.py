"""ProjectService: converts requests, calls the projects, formats what they say."""

from typing import Any

import grpc.aio

from inkling.ingest.v1 import project_pb2, project_service_pb2_grpc
from inkling.ingest.v1 import project_service_pb2 as messages
from services.ingest.messages import settings_from, settings_message
from services.ingest.projects import Projects, ProjectSettings
from services.runtime import fieldmasks
from services.runtime.auth import Role, current_caller

# The names of the methods are the protocol's.

SERVICE_NAME = "inkling.ingest.v1.ProjectService"
POLICIES = {
    f"/{SERVICE_NAME}/GetProjectSettings": frozenset({Role.READ, Role.DEFINE, Role.SERVICE}),
    f"/{SERVICE_NAME}/UpdateProjectSettings": frozenset({Role.DEFINE}),
}
_CHANGEABLE = ("clock", "retention", "deduplication_horizon", "max_lead")

Context = grpc.aio.ServicerContext[Any, Any]


class ProjectServicer(project_service_pb2_grpc.ProjectServiceServicer):
    """The settings of the caller's project."""

    def __init__(self, projects: Projects) -> None:
        self._projects = projects

    async def GetProjectSettings(
        self, request: messages.GetProjectSettingsRequest, context: Context
    ) -> project_pb2.ProjectSettings:
        """Reads them."""
        return settings_message(await self._projects.get(current_caller().project))

    async def UpdateProjectSettings(
        self, request: messages.UpdateProjectSettingsRequest, context: Context
    ) -> project_pb2.ProjectSettings:
        """Changes them."""

        def change(before: ProjectSettings) -> ProjectSettings:
            target = settings_message(before)
            fieldmasks.apply(request.update_mask, request.settings, target, _CHANGEABLE)
            return settings_from(target)

        return settings_message(await self._projects.update(current_caller().project, request.settings.etag, change))
