"""Over gRPC: since when what time alone changed holds, and what is asked of rows that were let go."""

import asyncio

from inkling.insights.v1 import insight_service_pb2 as messages
from services.insights.settings import InsightsSettings
from services.runtime.clocks import ManualClock
from tests.features.memory_log import NOW_US, MemoryLog
from tests.insights.service.serving import DAY_US, Client, serving, transaction

WEEK = "INFER week FROM transactions WHERE DATETIME_FROM(date_time, 0, 0, 7)"
BEFORE = "INFER before FROM transactions WHERE DATETIME_FROM(date_time, 0, 0, 9) AND DATETIME_TO(date_time, 0, 0, 2)"
ALL = "INFER all_time FROM transactions HAVING ABS(SUM(amount)) > 35"


async def _since(client: Client, customer: str) -> int:
    request = messages.GetCustomerInsightsRequest(customer=customer)
    (found,) = (await client.insights.GetCustomerInsights(request)).insights
    return int(found.since_time.ToMicroseconds())


async def test_what_time_changed_while_nobody_looked_holds_since_then(
    settings: InsightsSettings, log: MemoryLog, clock: ManualClock
) -> None:
    async with serving(settings, log, clock) as client:
        await client.create(WEEK, "week")
        position = await log.append(transaction(1, "ada", NOW_US))
        assert await client.states("ada", position) == {"week": "APPLIES"}
    clock.set(NOW_US + 100 * DAY_US)
    async with serving(settings, log, clock) as client:
        assert await client.states("ada", position) == {"week": "NOT"}
        assert await _since(client, "ada") == NOW_US + 7 * DAY_US


async def test_what_began_and_ended_between_two_looks_at_the_clock_is_told(
    client: Client, log: MemoryLog, clock: ManualClock
) -> None:
    await client.create(BEFORE, "before")
    position = await log.append(transaction(1, "ada", NOW_US))
    assert await client.states("ada", position) == {"before": "NOT"}
    stream = client.insights.WatchInsights(messages.WatchInsightsRequest())
    await stream.read()
    clock.set(NOW_US + 100 * DAY_US)
    told: list[int] = []
    async with asyncio.timeout(10):
        while len(told) < 2:
            told += [each.change_time.ToMicroseconds() for each in (await stream.read()).changes]
    assert told == [NOW_US + 2 * DAY_US, NOW_US + 9 * DAY_US]
    stream.cancel()


async def test_an_insight_that_looks_at_rows_let_go_has_the_log_read_again(
    settings: InsightsSettings, log: MemoryLog, clock: ManualClock
) -> None:
    few = settings.model_copy(update={"memory_days": 10.0})
    async with serving(few, log, clock) as client:
        await client.create(WEEK, "week")
        rows = [transaction(days, "ada", NOW_US - days * DAY_US) for days in (1, 8, 100, 200)]
        position = await log.append(*rows)
        assert await client.states("ada", position) == {"week": "APPLIES"}
    async with serving(few, log, clock) as client:
        assert await client.states("ada", position) == {"week": "APPLIES"}
        tried = await client.insights.DryRunQuery(messages.DryRunQueryRequest(query=ALL))
        assert tried.applies_count == 0
        await client.create(ALL, "all")
        assert await client.states("ada", position) == {"all": "APPLIES", "week": "APPLIES"}
