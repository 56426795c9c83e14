"""The settings of the caller's project."""

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from inkling.client.transport import Transport
from inkling.ingest.v1 import project_pb2, project_service_pb2
from inkling.ingest.v1.project_service_pb2_grpc import ProjectServiceStub
from inkling.values import duration

if TYPE_CHECKING:
    from inkling.ingest.v1.project_service_pb2_grpc import ProjectServiceAsyncStub

Clock = Literal["wall", "log"]


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """How a project's events are taken and kept; a retention of None keeps them for ever."""

    clock: Clock
    retention: timedelta | None
    deduplication_horizon: timedelta
    max_lead: timedelta
    etag: str


class AsyncProject:
    """Reads and changes the settings of the project that the key belongs to."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def get(self) -> ProjectSettings:
        """The settings now."""
        request = project_service_pb2.GetProjectSettingsRequest()
        return read_settings(await self._transport.call(self._stub.GetProjectSettings, request))

    async def set(
        self,
        *,
        clock: Clock | None = None,
        retention: timedelta | None = None,
        deduplication_horizon: timedelta | None = None,
        max_lead: timedelta | None = None,
        etag: str = "",
    ) -> ProjectSettings:
        """Changes what is given. A retention of zero keeps events for ever.

        FailedPrecondition for the clock of a project that has events; Aborted when the etag is not the present one.
        """
        given = {
            "clock": clock,
            "retention": retention,
            "deduplication_horizon": deduplication_horizon,
            "max_lead": max_lead,
        }
        settings = project_pb2.ProjectSettings(
            clock=project_pb2.Clock.Value(f"CLOCK_{(clock or 'unspecified').upper()}"),
            retention=None if retention is None else duration(retention),
            deduplication_horizon=None if deduplication_horizon is None else duration(deduplication_horizon),
            max_lead=None if max_lead is None else duration(max_lead),
            etag=etag,
        )
        mask = FieldMask(paths=[name for name, value in given.items() if value is not None])
        request = project_service_pb2.UpdateProjectSettingsRequest(settings=settings, update_mask=mask)
        return read_settings(await self._transport.call(self._stub.UpdateProjectSettings, request))

    @cached_property
    def _stub(self) -> "ProjectServiceAsyncStub":
        return ProjectServiceStub(self._transport.channel("ingest"))


def read_settings(message: project_pb2.ProjectSettings) -> ProjectSettings:
    """The settings of a message."""
    retention = read_duration(message.retention)
    return ProjectSettings(
        clock="log" if message.clock == project_pb2.CLOCK_LOG else "wall",
        retention=retention or None,
        deduplication_horizon=read_duration(message.deduplication_horizon),
        max_lead=read_duration(message.max_lead),
        etag=message.etag,
    )


def read_duration(message: Duration) -> timedelta:
    """The span of a message, to the microsecond."""
    return timedelta(seconds=message.seconds, microseconds=message.nanos // 1_000)
