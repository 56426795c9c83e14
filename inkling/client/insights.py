"""Defines insights (INFER queries), reads whom they apply to, and follows how that changes."""

import asyncio
import builtins
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from inkling.client.transport import Transport
from inkling.errors import from_rpc_error
from inkling.events import new_event_id
from inkling.insights.v1 import evaluation_pb2, insight_pb2, query_service_pb2
from inkling.insights.v1 import insight_service_pb2 as messages
from inkling.insights.v1.insight_service_pb2_grpc import InsightServiceStub
from inkling.insights.v1.query_service_pb2_grpc import QueryServiceStub
from inkling.values import duration, instant, timestamp

if TYPE_CHECKING:
    from inkling.insights.v1.insight_service_pb2_grpc import InsightServiceAsyncStub
    from inkling.insights.v1.query_service_pb2_grpc import QueryServiceAsyncStub

Dialect = Literal["strict", "extended"]
_DIALECTS = {"strict": insight_pb2.DIALECT_STRICT, "extended": insight_pb2.DIALECT_EXTENDED}


@dataclass(frozen=True, slots=True)
class CustomerInsight:
    """What an insight says of a customer."""

    insight: str
    """insights/{insight}"""
    identifier: str
    """The name that the query gives it."""
    state: str
    """APPLIES, NOT or ERROR."""
    since: datetime | None
    """Since when; None: since the insight or the customer is known."""
    until: datetime | None
    """The next instant at which time alone can change it; None: never."""
    evaluated_at: datetime
    version: int

    @property
    def applies(self) -> bool:
        """Whether it applies."""
        return self.state == "APPLIES"


@dataclass(frozen=True, slots=True)
class InsightChange:
    """An insight began or ceased to apply to a customer."""

    insight: str
    customer: str
    change: str
    """applied, withdrawn, failed or present."""
    at: datetime | None
    position: int
    version: int
    resume_token: str
    """Goes on after the message that this change came in."""


class AsyncInsights:
    """The project's insights; definitions, evaluations and plans are the messages of the protos."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    # Definitions.

    async def create(
        self,
        query: str,
        *,
        insight_id: str = "",
        dialect: Dialect = "strict",
        active: bool = True,
        description: str = "",
        validate_only: bool = False,
    ) -> insight_pb2.Insight:
        """Creates an insight; an active one is evaluated for all customers. InvalidArgument names each mistake."""
        request = messages.CreateInsightRequest(
            insight_id=insight_id,
            insight=insight_pb2.Insight(query=query, dialect=_DIALECTS[dialect], description=description),
            inactive=not active,
            request_id=new_event_id(),
            validate_only=validate_only,
        )
        return await self._transport.call(self._stub.CreateInsight, request)

    async def get(self, insight: str) -> insight_pb2.Insight:
        """Reads one by its id or name."""
        return await self._transport.call(self._stub.GetInsight, messages.GetInsightRequest(name=insight_name(insight)))

    async def list(self) -> AsyncIterator[insight_pb2.Insight]:
        """All insights, by id."""
        request = messages.ListInsightsRequest(page_size=1_000)
        while True:
            response = await self._transport.call(self._stub.ListInsights, request)
            for insight in response.insights:
                yield insight
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    async def update(
        self, insight: insight_pb2.Insight, *, fields: Sequence[str] = (), validate_only: bool = False
    ) -> insight_pb2.Insight:
        """Changes one; no `fields` means all that are set. Another query or dialect makes a new version."""
        request = messages.UpdateInsightRequest(
            insight=insight, update_mask=FieldMask(paths=fields), validate_only=validate_only
        )
        return await self._transport.call(self._stub.UpdateInsight, request)

    async def activate(self, insight: str) -> insight_pb2.Insight:
        """Has one evaluated from now on."""
        request = messages.ActivateInsightRequest(name=insight_name(insight))
        return await self._transport.call(self._stub.ActivateInsight, request)

    async def deactivate(self, insight: str) -> insight_pb2.Insight:
        """Has one evaluated no more: it is withdrawn from everyone."""
        request = messages.DeactivateInsightRequest(name=insight_name(insight))
        return await self._transport.call(self._stub.DeactivateInsight, request)

    async def delete(self, insight: str) -> None:
        """Deletes one with all its versions."""
        request = messages.DeleteInsightRequest(name=insight_name(insight))
        await self._transport.call(self._stub.DeleteInsight, request)

    async def delete_all(self) -> int:
        """Deletes all of the project; returns how many there were."""
        response = await self._transport.call(self._stub.DeleteAllInsights, messages.DeleteAllInsightsRequest())
        return response.deleted_count

    # Customers.

    async def of(
        self,
        customer: str,
        *,
        attribute_key: str = "",
        applied_only: bool = False,
        min_position: int = 0,
        wait: timedelta | None = None,
    ) -> builtins.list[CustomerInsight]:
        """What the active insights say of a customer, once a position is applied; nothing of an unknown one."""
        request = messages.GetCustomerInsightsRequest(
            customer=customer,
            attribute_key=attribute_key,
            applied_only=applied_only,
            min_position=min_position,
            wait_timeout=None if wait is None else duration(wait),
        )
        response = await self._transport.call(self._stub.GetCustomerInsights, request)
        return [_customer_insight(each) for each in response.insights]

    async def evaluate(
        self,
        customer: str,
        *,
        now: datetime | None = None,
        insights: Sequence[str] = (),
        query: str = "",
        dialect: Dialect = "strict",
        attribute_key: str = "",
        rows: int = 0,
    ) -> builtins.list[evaluation_pb2.Evaluation]:
        """Evaluates insights (none named: all active ones) or a query about a customer at an instant."""
        request = messages.EvaluateCustomerRequest(
            customer=customer,
            attribute_key=attribute_key,
            now_time=None if now is None else timestamp(now),
            insights=[insight_name(each) for each in insights],
            query=query,
            dialect=_DIALECTS[dialect],
            row_limit=rows,
        )
        return builtins.list((await self._transport.call(self._stub.EvaluateCustomer, request)).evaluations)

    async def explain(self, insight: str, customer: str, *, rows: int = 0) -> evaluation_pb2.Evaluation:
        """Why an insight says what it says of a customer: the rows that WHERE keeps, the values HAVING compared."""
        request = messages.ExplainInsightRequest(name=insight_name(insight), customer=customer, row_limit=rows)
        return await self._transport.call(self._stub.ExplainInsight, request)

    async def watch(
        self,
        insights: Sequence[str] = (),
        *,
        customers: Sequence[str] = (),
        resume_token: str = "",
        send_initial: bool = False,
    ) -> AsyncIterator[InsightChange]:
        """Follows insights (none named: all) without end, each change once; after a break it resumes by itself."""
        attempt = 0
        while True:
            request = messages.WatchInsightsRequest(
                insights=[insight_name(each) for each in insights],
                customers=customers,
                resume_token=resume_token,
                send_initial=send_initial and not resume_token,
            )
            call = self._stub.WatchInsights(request, metadata=self._transport.metadata())
            try:
                async for message in call:
                    attempt = 0
                    resume_token = message.resume_token or resume_token
                    for change in message.changes:
                        yield _change(change, resume_token)
                # A server that drains ends the stream; it goes on with the next one.
                delay = self._transport.retry.first_delay
            except grpc.RpcError as failed:
                error = from_rpc_error(failed)
                attempt += 1
                if not self._transport.retry.retries(attempt, error):
                    raise error from failed
                delay = self._transport.retry.delay(attempt, error)
            finally:
                call.cancel()
            await asyncio.sleep(delay)

    # Queries.

    async def validate(self, query: str, *, dialect: Dialect = "strict") -> query_service_pb2.ValidateQueryResponse:
        """Everything that is wrong with a query, and what is doubtful."""
        request = query_service_pb2.ValidateQueryRequest(query=query, dialect=_DIALECTS[dialect])
        return await self._transport.call(self._queries.ValidateQuery, request)

    async def plan(self, query: str, *, dialect: Dialect = "strict") -> evaluation_pb2.QueryPlan:
        """How a query would be kept true, and what that costs."""
        request = query_service_pb2.ExplainQueryRequest(query=query, dialect=_DIALECTS[dialect])
        return await self._transport.call(self._queries.ExplainQuery, request)

    async def dry_run(
        self, query: str, *, days: int = 0, dialect: Dialect = "strict", sample_size: int = 0
    ) -> messages.DryRunQueryResponse:
        """How many customers a query applies to now, and applied to at the end of each of the last days."""
        request = messages.DryRunQueryRequest(
            query=query, dialect=_DIALECTS[dialect], days=days, sample_size=sample_size
        )
        return await self._transport.call(self._stub.DryRunQuery, request, timeout=timedelta(minutes=5))

    async def templates(self) -> builtins.list[query_service_pb2.Template]:
        """The templates there are."""
        request = query_service_pb2.ListTemplatesRequest()
        return builtins.list((await self._transport.call(self._queries.ListTemplates, request)).templates)

    async def render(self, template_id: str, identifier: str, parameters: Mapping[str, str]) -> str:
        """The query that a template makes. InvalidArgument names each mistake."""
        request = query_service_pb2.RenderTemplateRequest(
            template_id=template_id, identifier=identifier, parameters=parameters
        )
        return (await self._transport.call(self._queries.RenderTemplate, request)).query

    @cached_property
    def _stub(self) -> "InsightServiceAsyncStub":
        return InsightServiceStub(self._transport.channel("insights"))

    @cached_property
    def _queries(self) -> "QueryServiceAsyncStub":
        return QueryServiceStub(self._transport.channel("insights"))


def insight_name(insight: str) -> str:
    """insights/{insight}, from that or the id alone."""
    return insight if insight.startswith("insights/") else f"insights/{insight}"


def _customer_insight(message: insight_pb2.CustomerInsight) -> CustomerInsight:
    return CustomerInsight(
        insight=message.insight,
        identifier=message.identifier,
        state=insight_pb2.State.Name(message.state).removeprefix("STATE_"),
        since=instant(message.since_time) if message.HasField("since_time") else None,
        until=instant(message.until_time) if message.HasField("until_time") else None,
        evaluated_at=instant(message.evaluate_time),
        version=message.version,
    )


def _change(message: messages.InsightChange, token: str) -> InsightChange:
    return InsightChange(
        insight=message.insight,
        customer=message.customer,
        change=messages.InsightChange.Kind.Name(message.kind).removeprefix("KIND_").lower(),
        at=instant(message.change_time) if message.HasField("change_time") else None,
        position=message.position,
        version=message.version,
        resume_token=token,
    )
