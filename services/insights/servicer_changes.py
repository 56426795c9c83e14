"""ChangeService and SubjectService: what other services of the suite ask of insights."""

from typing import Any

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from inkling.insights.v1 import (
    change_service_pb2,
    change_service_pb2_grpc,
    insight_pb2,
    subject_service_pb2,
    subject_service_pb2_grpc,
)
from inkling.types.v1 import erasure_pb2
from services.insights.awaiting import KeyedChange, changes_since
from services.insights.evaluation import APPLIED, FAILED, WITHDRAWN
from services.insights.forgetting import Forgetter
from services.insights.messages import identifier_of, timestamp
from services.insights.projects import Projects
from services.runtime.auth import Role, current_caller
from services.runtime.erasures import Erased
from services.runtime.errors import InvalidArgument, Violation
from services.runtime.server import Service

# The names of the methods are the protocol's.

CHANGES, SUBJECTS = "inkling.insights.v1.ChangeService", "inkling.insights.v1.SubjectService"
POLICIES = {
    f"/{CHANGES}/AwaitChanges": frozenset({Role.SERVICE}),
    f"/{SUBJECTS}/ForgetSubject": frozenset({Role.SERVICE}),
}
_MAX_WAIT_SECONDS, _MAX_FORGET_SECONDS = 10.0, 60.0
_STATES = {APPLIED: insight_pb2.STATE_APPLIES, WITHDRAWN: insight_pb2.STATE_NOT, FAILED: insight_pb2.STATE_ERROR}

Context = grpc.aio.ServicerContext[Any, Any]


class ChangeServicer(change_service_pb2_grpc.ChangeServiceServicer):
    """Tells what changed."""

    def __init__(self, projects: Projects) -> None:
        self._projects = projects

    async def AwaitChanges(
        self, request: change_service_pb2.AwaitChangesRequest, context: Context
    ) -> change_service_pb2.AwaitChangesResponse:
        """Waits until a position is applied; answers with what changed."""
        seconds = _seconds(request.wait_timeout, _MAX_WAIT_SECONDS)
        project = await self._projects.get(current_caller().project)
        if not any(insight.active for insight in project.catalog.all):
            return change_service_pb2.AwaitChangesResponse()
        await project.current(request.last_position, seconds)
        customers = {each.attribute_key: frozenset(each.values) for each in request.customers}
        changes = await changes_since(project, request.first_position, customers)
        return change_service_pb2.AwaitChangesResponse(
            changes=[_change_message(each) for each in changes], position=project.position
        )


class SubjectServicer(subject_service_pb2_grpc.SubjectServiceServicer):
    """Forgets subjects."""

    def __init__(self, forgetter: Forgetter) -> None:
        self._forgetter = forgetter

    async def ForgetSubject(
        self, request: subject_service_pb2.ForgetSubjectRequest, context: Context
    ) -> subject_service_pb2.ForgetSubjectResponse:
        """Leaves nothing of a subject."""
        seconds = _seconds(request.wait_timeout, _MAX_FORGET_SECONDS)
        project, key, value = current_caller().project, request.attribute_key, request.key_value
        if request.hold_only:
            erased = [Erased("rule_actions", await self._forgetter.hold(project, key, value), "actions of rules")]
        else:
            erased = await self._forgetter.forget(project, key, value, request.position, seconds)
        stores = [erasure_pb2.ErasedStore(store=each.store, count=each.count, unit=each.unit) for each in erased]
        return subject_service_pb2.ForgetSubjectResponse(stores=stores)


def internal_service(projects: Projects, forgetter: Forgetter, domain: str) -> Service:
    """Both, to be served."""

    def register(server: grpc.aio.Server) -> None:
        change_service_pb2_grpc.add_ChangeServiceServicer_to_server(ChangeServicer(projects), server)
        subject_service_pb2_grpc.add_SubjectServiceServicer_to_server(SubjectServicer(forgetter), server)

    return Service(
        name="insights",
        domain=domain,
        register=register,
        health_names=(CHANGES, SUBJECTS),
        policies=POLICIES,
        descriptors=(change_service_pb2.DESCRIPTOR, subject_service_pb2.DESCRIPTOR),
    )


def _change_message(change: KeyedChange) -> change_service_pb2.CustomerChange:
    seen = change.seen
    return change_service_pb2.CustomerChange(
        attribute_key=change.attribute_key,
        customer=seen.customer,
        insight=f"insights/{seen.insight_id}",
        identifier=identifier_of(change.query),
        version=seen.version,
        state=_STATES.get(seen.change, insight_pb2.STATE_UNSPECIFIED),
        since_time=timestamp(seen.instant_us),
        position=seen.position,
    )


def _seconds(wait: Duration, maximum: float) -> float:
    seconds: float = wait.seconds + wait.nanos / 1e9
    if not 0 <= seconds <= maximum:
        text = f"must be from 0 to {maximum:g} seconds"
        violation = Violation("wait_timeout", text, "OUT_OF_RANGE")
        raise InvalidArgument(f"wait_timeout {text}", reason="OUT_OF_RANGE", violations=(violation,))
    return seconds
