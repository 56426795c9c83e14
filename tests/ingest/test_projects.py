"""Project settings against a real process."""

from datetime import UTC, datetime

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from inkling.ingest.v1 import project_pb2 as pb
from inkling.ingest.v1.error_reason_pb2 import ErrorReason
from inkling.ingest.v1.project_service_pb2 import GetProjectSettingsRequest, UpdateProjectSettingsRequest
from tests.ingest.conftest import Project
from tests.ingest.events import event
from tests.ingest.statuses import failure, reason_of
from tests.ingest.test_ingest_calls import now

DAY = 86_400


async def get(project: Project) -> pb.ProjectSettings:
    found: pb.ProjectSettings = await project.projects.GetProjectSettings(
        GetProjectSettingsRequest(), metadata=project.metadata
    )
    return found


async def update(project: Project, *paths: str, **fields: object) -> pb.ProjectSettings:
    request = UpdateProjectSettingsRequest(
        settings=pb.ProjectSettings(**fields),  # type: ignore[arg-type]
        update_mask=FieldMask(paths=paths),
    )
    changed: pb.ProjectSettings = await project.projects.UpdateProjectSettings(request, metadata=project.metadata)
    return changed


async def test_settings_have_defaults_and_change_field_by_field(project: Project) -> None:
    before = await get(project)
    assert before.clock == pb.CLOCK_WALL
    assert (before.deduplication_horizon.seconds, before.max_lead.seconds) == (7 * DAY, 300)
    assert not before.HasField("retention")
    after = await update(project, retention=Duration(seconds=30 * DAY))
    assert (after.retention.seconds, after.max_lead.seconds) == (30 * DAY, 300)
    assert after.etag != before.etag
    assert await get(project) == after
    again = await update(project, "retention")
    assert again == before


async def test_an_old_etag_is_aborted(project: Project) -> None:
    before = await get(project)
    await update(project, max_lead=Duration(seconds=1), etag=before.etag)
    error = await failure(update(project, max_lead=Duration(seconds=2), etag=before.etag))
    assert error.code() is grpc.StatusCode.ABORTED


@pytest.mark.parametrize(
    "fields",
    [
        {"deduplication_horizon": Duration(seconds=3599)},
        {"retention": Duration(seconds=10)},
        {"retention": Duration(seconds=-DAY)},
        {"max_lead": Duration(seconds=DAY + 1)},
        {"max_lead": Duration(seconds=-1)},
        {"clock": 7},
        {"retention": Duration(seconds=2**62)},
    ],
    ids=str,
)
async def test_what_is_out_of_range_is_refused(project: Project, fields: dict[str, object]) -> None:
    error = await failure(update(project, **fields))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "OUT_OF_RANGE")


async def test_the_clock_changes_only_while_the_log_is_empty(project: Project) -> None:
    assert (await update(project, clock=pb.CLOCK_LOG)).clock == pb.CLOCK_LOG
    await project.send(event("e1", at=now()))
    error = await failure(update(project, clock=pb.CLOCK_WALL))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    await update(project, clock=pb.CLOCK_LOG, max_lead=Duration(seconds=1))


async def test_events_older_than_the_retention_are_too_late(project: Project) -> None:
    await update(project, retention=Duration(seconds=DAY))
    response = await project.send(event("new", at=now(hours=-23)), event("old", at=now(hours=-25)))
    assert [(each.index, ErrorReason.Name(each.reason)) for each in response.rejected] == [(1, "ERROR_REASON_TOO_LATE")]


async def test_retention_by_the_log_goes_by_the_newest_event(project: Project) -> None:
    await update(project, clock=pb.CLOCK_LOG, retention=Duration(seconds=DAY))
    await project.send(event("first", at=datetime(1997, 1, 10, tzinfo=UTC)))
    response = await project.send(
        event("late", at=datetime(1997, 1, 9, 12, tzinfo=UTC)), event("too late", at=datetime(1997, 1, 8, tzinfo=UTC))
    )
    assert [each.index for each in response.rejected] == [1]


async def test_the_lead_is_a_setting(project: Project) -> None:
    await update(project, max_lead=Duration(seconds=7200))
    response = await project.send(event("in an hour", at=now(hours=1)), event("in three", at=now(hours=3)))
    assert [each.index for each in response.rejected] == [1]
