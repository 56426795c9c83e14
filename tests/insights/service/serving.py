"""A server of insights over a log in memory, and a client of it."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2

from inkling.insights.v1 import insight_pb2
from inkling.insights.v1 import insight_service_pb2 as messages
from inkling.insights.v1.insight_service_pb2_grpc import InsightServiceStub
from inkling.insights.v1.query_service_pb2_grpc import QueryServiceStub
from services.insights.app import App, open_app
from services.insights.settings import InsightsSettings
from services.insights.sources import SourceReader
from services.kernel.building import EventRow
from services.runtime.clocks import ManualClock
from services.runtime.server import Server
from tests.features.memory_log import MemoryLog

DAY_US = 86_400_000_000
GAMBLER = (
    'INFER active_gambler FROM transactions WHERE category_l1 = "gambling_and_lotteries" '
    "AND DATETIME_FROM(date_time, 0, 1, 0)"
)


@dataclass
class Client:
    """The stubs of one channel, and the server behind it."""

    insights: InsightServiceStub
    queries: QueryServiceStub
    app: App

    async def create(self, query: str = GAMBLER, insight_id: str = "gambler", **more: Any) -> insight_pb2.Insight:
        """Creates an insight."""
        insight = insight_pb2.Insight(query=query, description=more.pop("description", ""))
        request = messages.CreateInsightRequest(insight_id=insight_id, insight=insight, **more)
        return await self.insights.CreateInsight(request)

    async def states(self, customer: str, position: int = 0) -> dict[str, str]:
        """What the insights say of a customer, by id."""
        request = messages.GetCustomerInsightsRequest(customer=customer, min_position=position)
        found = await self.insights.GetCustomerInsights(request)
        return {
            each.insight.removeprefix("insights/"): insight_pb2.State.Name(each.state).removeprefix("STATE_")
            for each in found.insights
        }


@asynccontextmanager
async def serving(
    settings: InsightsSettings, log: MemoryLog, clock: ManualClock, sources: SourceReader | None = None
) -> AsyncIterator[Client]:
    """A running server and a client of it."""
    async with (
        open_app(settings, log, clock, sources) as app,
        Server.open(settings, app.services, registry=app.registry) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        await app.projects.wait_ready()
        yield Client(InsightServiceStub(channel), QueryServiceStub(channel), app)


def transaction(
    number: int, customer: str, at_us: int, amount: float = 10.0, category: str = "gambling_and_lotteries", **more: Any
) -> EventRow:
    """A transaction as a client sends it: the amount without a sign."""
    properties = {
        "amount": amount,
        "credit_debit_indicator": "debit",
        "currency": "GBP",
        "category_l1": category,
        **more.pop("properties", {}),
    }
    return EventRow(
        event_id=f"t{number}",
        name="transaction",
        occurred_at_us=at_us,
        received_at_us=more.pop("received_us", at_us),
        keys={"customer_id": customer},
        vendor="bank",
        version="1-0-0",
        properties=properties,
        **more,
    )


async def refused(call: Awaitable[object]) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """The code, the reason and the violations (by field) of a call that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    trailers = dict(caught.value.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])  # type: ignore[arg-type]
    reason, violations = "", {}
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            assert info.domain == "insights.inkling"
            reason = info.reason
        elif detail.Unpack(bad):
            violations = {each.field: each.description for each in bad.field_violations}
    return caught.value.code(), reason, violations
