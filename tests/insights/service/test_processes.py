"""Ingest, features and insights as real processes: insights follow what is sent, also through a kill."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from inkling.cli import make_app
from inkling.cli.suite import Suite
from inkling.client import AsyncClient, RetryPolicy
from inkling.events import CustomerEvent
from inkling.ingest.v1.collection_pb2 import FIELD_TYPE_NUMBER, FIELD_TYPE_STRING, Collection, Field
from inkling.ingest.v1.event_pb2 import EventType
from tests.running import key_of, running_suite

BIG = "INFER big_spender FROM transactions WHERE DATETIME_FROM(date_time, 0, 1, 0) HAVING ABS(SUM(amount)) > 200"


@pytest.fixture
async def suite(tmp_path: Path) -> AsyncIterator[Suite]:
    """The three services."""
    names = ("ingest", "features", "insights")
    async with running_suite(tmp_path, names=names, inkling_insights_tick_seconds="0.05") as running:
        yield running


def spent(number: int, customer: str, amount: float) -> CustomerEvent:
    """A transaction of an hour ago."""
    return CustomerEvent(
        name="transaction",
        event_id=f"t{number}",
        occurred_at=datetime.now(UTC) - timedelta(hours=1),
        keys={"customer_id": customer},
        properties={"amount": amount, "credit_debit_indicator": "debit", "currency": "GBP"},
    )


async def test_insights_follow_what_is_sent_through_a_kill(suite: Suite) -> None:
    key = await key_of(suite.data_dir, "bank")
    addresses = {name: suite.address(name) for name in ("ingest", "features", "insights")}
    async with AsyncClient(api_key=key, retry=RetryPolicy(attempts=20), **addresses) as client:  # type: ignore[arg-type]
        insight = await client.insights.create(BIG, insight_id="big")
        assert insight.version == 1
        await client.events.send(spent(1, "ada", 250.0))
        position = (await client.events.flush()).position
        (found,) = await client.insights.of("ada", min_position=position)
        assert found.applies
        assert found.until is not None
        watching = client.insights.watch(send_initial=True)
        first = await anext(watching)
        assert (first.customer, first.change) == ("ada", "present")
        await suite.kill("insights")
        await client.events.send(spent(2, "bob", 300.0))
        position = (await client.events.flush()).position
        await suite.start_one("insights", timeout=120)
        # The stream goes on by itself, and tells only what is new.
        async with asyncio.timeout(60):
            second = await anext(watching)
        assert (second.customer, second.change) == ("bob", "applied")
        await watching.aclose()
        assert [each.applies for each in await client.insights.of("ada", min_position=position)] == [True]
        explained = await client.insights.explain("big", "ada")
        assert [row.event_id for row in explained.rows] == ["t1"]
        await _check_collections(client)
    await asyncio.to_thread(_check_command_line, suite, key)


async def _check_collections(client: AsyncClient) -> None:
    """Any declared collection is a source, with rows from before the insight."""
    fields = [Field(name="page", type=FIELD_TYPE_STRING), Field(name="seconds", type=FIELD_TYPE_NUMBER)]
    collection = Collection(event_type=EventType(name="visit"), fields=fields, key_fields={"customer_id": "customer"})
    await client.collections.create("visits", collection)
    visit = CustomerEvent(
        name="visit",
        event_id="v1",
        occurred_at=datetime.now(UTC) - timedelta(minutes=1),
        keys={"customer_id": "ada"},
        properties={"page": "loans", "seconds": 30.0},
    )
    await client.events.send(visit)
    position = (await client.events.flush()).position
    await client.insights.create(
        'INFER reader FROM visits WHERE page = "loans" HAVING SUM(seconds) > 20', insight_id="reader"
    )
    found = await client.insights.of("ada", min_position=position, wait=timedelta(seconds=30))
    assert {each.insight: each.applies for each in found} == {"insights/big": True, "insights/reader": True}


def _check_command_line(suite: Suite, key: str) -> None:
    options = ["--api-key", key, "--data-dir", str(suite.data_dir)]
    for name in ("ingest", "features", "insights"):
        options += [f"--{name}", suite.address(name)]

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(make_app(), [*options, "insights", *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    assert "big_spender" in run("list")
    assert "APPLIES" in run("of", "ada")
    assert json.loads(run("dry-run", BIG, "--days", "2"))["applies_count"] == "2"
    assert json.loads(run("explain", "big", "bob"))["operands"][0]["left"]["double_value"] == 300.0
    changes = [json.loads(line) for line in run("watch", "big", "--present", "--limit", "2").splitlines()]
    assert [change["customer"] for change in changes] == ["ada", "bob"]
    assert json.loads(run("evaluate", "ada", "--query", BIG, "--now", "2020-01-01"))[0]["state"] == "STATE_APPLIES"
    assert "deleted" in run("delete", "--all")
