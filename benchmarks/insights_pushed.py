"""How long after an event is acknowledged a watcher is told of the insight that it changed: through real processes."""

import asyncio
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.insights_questions import questions
from benchmarks.processes import running_suite
from benchmarks.tables import Table, percentile
from inkling.client import AsyncClient
from inkling.events import CustomerEvent

PUSHES, QUERIES = 200, 100
_QUERY = "INFER any FROM transactions WHERE DATETIME_FROM(date_time, 0, 1, 0)"


def pushed() -> Table:
    """Measures and tabulates."""
    table = Table(
        "From acknowledged to pushed, ms",
        ["p50", "p90", "p99"],
        f"One transaction of a new customer at a time, {QUERIES} insights, three processes on this machine: from the "
        "acknowledgement of a durable write until a watcher has the change, which is journaled before it is told.",
    )
    waits = asyncio.run(_measure())
    table.add(f"{PUSHES} events", *(percentile(waits, fraction) for fraction in (0.5, 0.9, 0.99)))
    return table


async def _measure() -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        names = ("ingest", "features", "insights")
        async with running_suite(Path(folder), names) as (suite, key):
            addresses = {name: suite.address(name) for name in names}
            async with AsyncClient(api_key=key, **addresses) as client:  # type: ignore[arg-type]
                await client.insights.create(_QUERY, insight_id="any")
                for question in questions(QUERIES - 1):
                    await client.insights.create(question.infer)
                return await _pushes(client)


async def _pushes(client: AsyncClient) -> list[float]:
    waits: list[float] = []
    stream = client.insights.watch(["any"])
    for number in range(PUSHES + 20):
        # The watcher waits before the event is sent.
        change = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.01)
        event = CustomerEvent(
            name="transaction",
            event_id=f"t{number}",
            occurred_at=datetime.now(UTC),
            keys={"customer_id": f"customer {number}"},
            properties={"amount": 10.0, "credit_debit_indicator": "debit", "category_l1": "category_1"},
        )
        await client.events.send(event)
        await client.events.flush()
        started = time.perf_counter()
        await change
        waits.append((time.perf_counter() - started) * 1e3)
    await stream.aclose()  # type: ignore[attr-defined]
    return waits[20:]
