"""InsightService: converts requests, calls the insights, formats what they say."""

import copy
import hashlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty

from inkling.insights.v1 import evaluation_pb2, insight_pb2, insight_service_pb2_grpc
from inkling.insights.v1 import insight_service_pb2 as messages
from services.insights.asking import ask, dry_run
from services.insights.batches import MAX_PAIRS, evaluate_pairs
from services.insights.catalog import Checked
from services.insights.definitions import Insight
from services.insights.engine.plan import Plan
from services.insights.engine.states import Standing
from services.insights.language.tree import CheckedQuery
from services.insights.managing import Manager
from services.insights.messages import (
    change_message,
    diagnostic_message,
    dialect_message,
    dialect_of,
    evaluation_message,
    insight_message,
    instant_us,
    result_message,
    state_message,
    timestamp,
)
from services.insights.project import Project
from services.insights.projects import Projects
from services.insights.sources import CUSTOMER_KEY
from services.insights.store import Request
from services.insights.watching import watch
from services.runtime import fieldmasks
from services.runtime.auth import Role, current_caller
from services.runtime.errors import InvalidArgument, Violation
from services.runtime.paging import PageTokens, page_size

# The names of the methods are the protocol's.

SERVICE_NAME = "inkling.insights.v1.InsightService"
_DEFINITIONS = ("GetInsight", "ListInsights")
# What an insight says of a customer is what their rows say: who may not read these may not read it.
_CUSTOMERS = ("GetCustomerInsights", "EvaluateCustomer", "BatchEvaluateInsight", "ExplainInsight", "WatchInsights")
_WRITES = (
    *("CreateInsight", "UpdateInsight", "ActivateInsight", "DeactivateInsight", "DeleteInsight"),
    *("DeleteAllInsights", "DryRunQuery"),
)
POLICIES = {
    **{f"/{SERVICE_NAME}/{method}": frozenset({Role.READ, Role.DEFINE, Role.SERVICE}) for method in _DEFINITIONS},
    **{f"/{SERVICE_NAME}/{method}": frozenset({Role.READ, Role.SERVICE}) for method in _CUSTOMERS},
    **{f"/{SERVICE_NAME}/{method}": frozenset({Role.DEFINE}) for method in _WRITES},
}
ENDLESS = frozenset({f"/{SERVICE_NAME}/WatchInsights"})
MAX_REQUEST_ID, MAX_CUSTOMER = 128, 4_096
MAX_ROWS, DEFAULT_ROWS = 1_000, 100
MAX_DAYS, MAX_SAMPLE = 400, 100
MAX_WATCHED, MAX_WATCHED_INSIGHTS = 10_000, 1_000
DEFAULT_WAIT_SECONDS, MAX_WAIT_SECONDS = 5.0, 60.0
_FIELDS = ("query", "dialect", "active", "description")

Context = grpc.aio.ServicerContext[Any, Any]


class InsightServicer(insight_service_pb2_grpc.InsightServiceServicer):
    """Defines insights, and says whom they apply to."""

    def __init__(self, projects: Projects, manager: Manager, tokens: PageTokens) -> None:
        self._projects = projects
        self._manager = manager
        self._tokens = tokens

    async def _project(self) -> Project:
        return await self._projects.get(current_caller().project)

    async def _message(self, checked: Checked) -> insight_pb2.Insight:
        project = await self._project()
        insights = project.insights if project.ready.is_set() else None
        return insight_message(checked, insights, project.catalog.key_of(checked.query))

    # Definitions.

    async def CreateInsight(self, request: messages.CreateInsightRequest, context: Context) -> insight_pb2.Insight:
        """Creates an insight."""
        given = request.insight
        insight = Insight(
            request.insight_id, given.query, dialect_of(given.dialect), not request.inactive, 1, given.description, 0, 0
        )
        project = current_caller().project
        return await self._message(
            await self._manager.create(project, insight, _request(request), validate_only=request.validate_only)
        )

    async def GetInsight(self, request: messages.GetInsightRequest, context: Context) -> insight_pb2.Insight:
        """Reads an insight."""
        catalog = (await self._project()).catalog
        return await self._message(catalog.known(catalog.get(request.name)))

    async def ListInsights(
        self, request: messages.ListInsightsRequest, context: Context
    ) -> messages.ListInsightsResponse:
        """Lists the insights, by id."""
        size = page_size(request.page_size)
        scope = (current_caller().project, "ListInsights")
        after = str(self._tokens.verify(request.page_token, *scope).get("i", ""))
        catalog = (await self._project()).catalog
        rest = [insight for insight in catalog.all if insight.insight_id > after]
        token = self._tokens.sign({"i": rest[size - 1].insight_id}, *scope) if len(rest) > size else ""
        page = [await self._message(catalog.known(insight)) for insight in rest[:size]]
        return messages.ListInsightsResponse(insights=page, next_page_token=token)

    async def UpdateInsight(self, request: messages.UpdateInsightRequest, context: Context) -> insight_pb2.Insight:
        """Changes an insight."""
        before = (await self._project()).catalog.get(request.insight.name)
        target = insight_pb2.Insight(
            query=before.query,
            dialect=dialect_message(before.dialect),
            active=before.active,
            description=before.description,
        )
        fieldmasks.apply(request.update_mask, request.insight, target, _FIELDS)
        changed = replace(
            before,
            query=target.query,
            dialect=dialect_of(target.dialect),
            active=target.active,
            description=target.description,
        )
        project, etag = current_caller().project, request.insight.etag
        return await self._message(
            await self._manager.update(project, changed, etag, validate_only=request.validate_only)
        )

    async def ActivateInsight(self, request: messages.ActivateInsightRequest, context: Context) -> insight_pb2.Insight:
        """Has an insight evaluated."""
        return await self._message(await self._manager.set_active(current_caller().project, request.name, True))

    async def DeactivateInsight(
        self, request: messages.DeactivateInsightRequest, context: Context
    ) -> insight_pb2.Insight:
        """Has an insight evaluated no more."""
        return await self._message(await self._manager.set_active(current_caller().project, request.name, False))

    async def DeleteInsight(self, request: messages.DeleteInsightRequest, context: Context) -> Empty:
        """Deletes an insight."""
        await self._manager.delete(current_caller().project, request.name, request.etag)
        return Empty()

    async def DeleteAllInsights(
        self, request: messages.DeleteAllInsightsRequest, context: Context
    ) -> messages.DeleteAllInsightsResponse:
        """Deletes all insights."""
        return messages.DeleteAllInsightsResponse(
            deleted_count=await self._manager.delete_all(current_caller().project)
        )

    # Customers.

    async def GetCustomerInsights(
        self, request: messages.GetCustomerInsightsRequest, context: Context
    ) -> messages.GetCustomerInsightsResponse:
        """What the active insights say of a customer."""
        _check_customer(request.customer, "customer")
        if request.min_position < 0:
            raise _out_of_range("min_position", "must not be negative")
        project = await self._project()
        insights = await project.current(request.min_position, _wait_seconds(request.wait_timeout))
        results = insights.results(request.attribute_key or CUSTOMER_KEY, request.customer)
        return messages.GetCustomerInsightsResponse(
            insights=[
                result_message(each, project.now_us)
                for each in results or ()
                if each.standing is Standing.APPLIES or not request.applied_only
            ],
            position=project.position,
            known=results is not None,
        )

    async def EvaluateCustomer(
        self, request: messages.EvaluateCustomerRequest, context: Context
    ) -> messages.EvaluateCustomerResponse:
        """Evaluates insights or a query about a customer at an instant."""
        _check_customer(request.customer, "customer")
        _check_range("row_limit", request.row_limit, MAX_ROWS)
        if request.query and request.insights:
            raise _bad_selection("query", "excludes insights: give one of them")
        project = await self._project()
        insights = await project.current(0, DEFAULT_WAIT_SECONDS)
        now_us = instant_us(request.now_time) if request.HasField("now_time") else project.now_us
        catalog = project.catalog
        asked: list[tuple[CheckedQuery, Insight | None, Plan]] = []
        if request.query:
            query, planned = await catalog.checked(request.query, dialect_of(request.dialect), "query")
            asked.append((query, None, planned))
        else:
            chosen = [catalog.get(name) for name in request.insights]
            for each in chosen or [insight for insight in catalog.all if insight.active]:
                known = catalog.known(each)
                asked.append((known.query, each, known.plan))
        key = request.attribute_key or CUSTOMER_KEY
        evaluations = []
        for query, insight, planned in asked:
            if catalog.key_of(query) != key:
                continue
            _check_retained(project, planned.sources)
            answer = ask(insights, query, insight, request.customer, now_us, request.row_limit)
            evaluations.append(evaluation_message(answer, catalog.catalogue.schemas[query.source].columns))
        return messages.EvaluateCustomerResponse(evaluations=evaluations)

    async def BatchEvaluateInsight(
        self, request: messages.BatchEvaluateInsightRequest, context: Context
    ) -> messages.BatchEvaluateInsightResponse:
        """Evaluates an insight about many customers, each at instants of its own."""
        _check_range("pairs", len(request.pairs), MAX_PAIRS)
        for index, pair in enumerate(request.pairs):
            _check_customer(pair.customer, f"pairs[{index}].customer")
        project = await self._project()
        known = project.catalog.known(project.catalog.get(request.name))
        key = project.catalog.key_of(known.query)
        if (request.attribute_key or CUSTOMER_KEY) != key:
            raise _bad_selection("attribute_key", f"is not {key}, which the insight is about")
        insights = await project.current(request.min_position, _wait_seconds(request.wait_timeout))
        _check_retained(project, known.plan.sources)
        position = project.position
        pairs = [(pair.customer, instant_us(pair.instant_time)) for pair in request.pairs]
        states = await evaluate_pairs(insights, known.query, pairs)
        return messages.BatchEvaluateInsightResponse(
            states=[state_message(each) for each in states], position=position, version=known.insight.version
        )

    async def ExplainInsight(
        self, request: messages.ExplainInsightRequest, context: Context
    ) -> evaluation_pb2.Evaluation:
        """Why an insight says what it says of a customer."""
        _check_customer(request.customer, "customer")
        _check_range("row_limit", request.row_limit, MAX_ROWS)
        project = await self._project()
        known = project.catalog.known(project.catalog.get(request.name))
        insights = await project.current(0, DEFAULT_WAIT_SECONDS)
        _check_retained(project, known.plan.sources)
        limit = request.row_limit or DEFAULT_ROWS
        answer = ask(insights, known.query, known.insight, request.customer, project.now_us, limit)
        return evaluation_message(answer, project.catalog.catalogue.schemas[known.query.source].columns)

    async def DryRunQuery(self, request: messages.DryRunQueryRequest, context: Context) -> messages.DryRunQueryResponse:
        """How many customers a query applies to."""
        _check_range("days", request.days, MAX_DAYS)
        _check_range("sample_size", request.sample_size, MAX_SAMPLE)
        project = await self._project()
        query, planned = await project.catalog.checked(request.query, dialect_of(request.dialect), "query")
        insights = await project.current(0, DEFAULT_WAIT_SECONDS)
        _check_retained(project, planned.sources)
        run = await dry_run(insights, planned, project.now_us, request.days, request.sample_size or 10)
        return messages.DryRunQueryResponse(
            applies_count=run.applies,
            customer_count=run.customers,
            error_count=run.errors,
            sample=run.sample,
            days=[
                messages.DryRunDay(
                    instant_time=timestamp(day.instant_us),
                    applies_count=day.applies,
                    applied_count=day.applied,
                    withdrawn_count=day.withdrawn,
                )
                for day in run.days
            ],
            warnings=[diagnostic_message(each) for each in query.warnings],
        )

    async def WatchInsights(
        self, request: messages.WatchInsightsRequest, context: Context
    ) -> AsyncGenerator[messages.WatchInsightsResponse, None]:
        """Tells whom insights begin or cease to apply to."""
        if len(request.customers) > MAX_WATCHED or len(request.insights) > MAX_WATCHED_INSIGHTS:
            raise _out_of_range("customers", f"are at most {MAX_WATCHED}, insights {MAX_WATCHED_INSIGHTS}")
        if request.resume_token and request.send_initial:
            raise _bad_selection("send_initial", "is not for a stream that is resumed")
        project = await self._project()
        insight_ids = frozenset(project.catalog.get(name).insight_id for name in request.insights)
        customers = frozenset(request.customers)
        content = "\0".join([*sorted(insight_ids), "", *sorted(customers)])
        scope = ("WatchInsights", project.name, hashlib.sha256(content.encode()).hexdigest())
        resume = self._place(request.resume_token, scope)
        await project.current(0, MAX_WAIT_SECONDS)
        stream = watch(project, project.journal, insight_ids, customers, resume, send_initial=request.send_initial)
        async for message in stream:
            yield messages.WatchInsightsResponse(
                changes=[change_message(each) for each in message.changes],
                resume_token="" if message.sequence is None else self._tokens.sign({"s": message.sequence}, *scope),
            )

    def _place(self, token: str, scope: Sequence[str]) -> int | None:
        if not token:
            return None
        try:
            return int(self._tokens.verify(token, *scope)["s"] or 0)
        except (InvalidArgument, KeyError, ValueError):
            text = "is not a token of this stream: start without one"
            violations = (Violation("resume_token", text, "BAD_TOKEN"),)
            raise InvalidArgument(f"resume_token {text}", reason="BAD_TOKEN", violations=violations) from None


def _request(message: messages.CreateInsightRequest) -> Request | None:
    """What makes a creation recognisable when it is sent again."""
    if not message.request_id:
        return None
    if len(message.request_id) > MAX_REQUEST_ID:
        raise _out_of_range("request_id", f"must be at most {MAX_REQUEST_ID} characters")
    content = copy.deepcopy(message)
    content.ClearField("request_id")
    content.ClearField("validate_only")
    return Request(message.request_id, hashlib.sha256(content.SerializeToString(deterministic=True)).hexdigest())


def _wait_seconds(wait: Duration) -> float:
    seconds: float = wait.seconds + wait.nanos / 1e9
    if not 0 <= seconds <= MAX_WAIT_SECONDS:
        raise _out_of_range("wait_timeout", f"must be from 0 to {MAX_WAIT_SECONDS:g} seconds")
    return seconds or DEFAULT_WAIT_SECONDS


def _check_customer(customer: str, field: str) -> None:
    if not 0 < len(customer) <= MAX_CUSTOMER:
        raise _out_of_range(field, f"must have 1 to {MAX_CUSTOMER:,} characters")


def _check_range(field: str, value: int, maximum: int) -> None:
    if not 0 <= value <= maximum:
        raise _out_of_range(field, f"must be from 0 to {maximum:,}")


def _check_retained(project: Project, sources: frozenset[str]) -> None:
    if not project.retains(sources):
        names = ", ".join(sorted(sources))
        raise _bad_selection("query", f"reads {names}, whose rows are retained once an active insight reads them")


def _bad_selection(field: str, description: str) -> InvalidArgument:
    violation = Violation(field, description, "BAD_SELECTION")
    return InvalidArgument(f"{field} {description}", reason="BAD_SELECTION", violations=(violation,))


def _out_of_range(field: str, description: str) -> InvalidArgument:
    violation = Violation(field, description, "OUT_OF_RANGE")
    return InvalidArgument(f"{field} {description}", reason="OUT_OF_RANGE", violations=(violation,))
