"""All services on PostgreSQL: what they answer stands in its databases, and is the same after everybody was killed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from sqlalchemy import make_url

from inkling import AsyncClient, Attribute, AttributeKey, CustomerEvent, Event, Service, StreamAttributeGroup
from inkling.cli.suite import Suite
from inkling.insights.v1 import rule_pb2
from services.runtime.auth import MIGRATIONS, KeyStore
from services.runtime.database import Database
from tests.running import ROLES, running_suite

pytestmark = pytest.mark.asyncio(loop_scope="module")
SERVICES = ("ingest", "features", "insights")
KEY = AttributeKey(name="customer_id")
START = datetime(2024, 3, 1, tzinfo=UTC)
WAIT = timedelta(seconds=20)


@dataclass
class Running:
    """The services, and a client of them."""

    suite: Suite
    client: AsyncClient
    folder: Path


def databases(server: str, names: tuple[str, ...]) -> dict[str, str]:
    """A new database for each name: its URL."""
    with psycopg.connect(server, autocommit=True) as connection:
        for name in names:
            connection.execute(f"DROP DATABASE IF EXISTS inkling_{name} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE inkling_{name}")
    url = make_url(server)
    return {name: url.set(database=f"inkling_{name}").render_as_string(hide_password=False) for name in names}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """The suite on PostgreSQL."""
    folder = tmp_path_factory.mktemp("suite")
    urls = databases(postgres_server, (*SERVICES, "log", "keys"))
    settings = {f"inkling_{name}_database_url": urls[name] for name in SERVICES}
    settings |= {f"inkling_{name}_auth_database_url": urls["keys"] for name in SERVICES}
    settings |= {"inkling_ingest_log_url": urls["log"], "inkling_ingest_idle_seconds": "0.2"}
    async with running_suite(folder, names=SERVICES, **settings) as suite:
        async with Database.open(urls["keys"], MIGRATIONS) as database:
            _, key = await KeyStore(database).create("bank", ROLES)
        ingest, features, insights = (suite.address(name) for name in SERVICES)
        async with AsyncClient(api_key=key, ingest=ingest, features=features, insights=insights) as client:
            yield Running(suite, client, folder)
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        for name in urls:
            connection.execute(f"DROP DATABASE inkling_{name} WITH (FORCE)")


def payment(number: int, customer: str) -> CustomerEvent:
    """A payment, so many hours after the start."""
    return CustomerEvent(
        event_id=f"p{number}",
        vendor="bank",
        name="transaction",
        version="1-0-0",
        occurred_at=START + timedelta(hours=number),
        keys={"customer_id": customer},
        properties={"amount": 30.0, "credit_debit_indicator": "debit"},
    )


async def properties(client: AsyncClient, customer: str, position: int) -> list[tuple[object, str]]:
    """The properties of a customer: value and source."""
    profile = await client.profiles.get(
        customer, attribute_key="customer_id", everything=True, min_position=position, wait=WAIT
    )
    return [(each.value, each.source) for each in profile.properties.values()]


async def answers(client: AsyncClient, position: int) -> dict[str, object]:
    """What the services say of everything that the test has made."""
    found: dict[str, object] = {}
    for customer in ("ada", "bob"):
        profile = await client.profiles.get(
            customer, attribute_key="customer_id", everything=True, min_position=position, wait=WAIT
        )
        insights = await client.insights.of(customer, min_position=position, wait=WAIT)
        results = await client.rules.results(customer, user_key="customer_id", min_position=position)
        found[customer] = (
            profile.values,
            {name: each.value for name, each in profile.properties.items()},
            profile.segments,
            [(each.insight, each.state, each.since, each.version) for each in insights],
            [(each.rule, each.count, each.holds) for each in results.results],
        )
    found["members"] = [each.key_value async for each in client.segments.members("payers")]
    found["definitions"] = [each.name async for each in client.insights.list()]
    found["rules"] = [each.name async for each in client.rules.list()]
    found["project"] = await client.project.get()
    return found


async def test_everything_is_answered_the_same_after_all_were_killed(running: Running) -> None:
    client = running.client
    await client.project.set(clock="log")
    count = Attribute(
        name="payments", type="int32", events=[Event(vendor="bank", name="transaction")], aggregation="counter"
    )
    group = StreamAttributeGroup(
        name="paying", version=1, attribute_key=KEY, owner="me@example.org", attributes=[count]
    )
    await client.publish([group, Service(name="all", owner="me@example.org", attribute_groups=[group])])
    await client.properties.declare("plan", "string", attribute_key="customer_id")
    await client.segments.create("payers", "payments >= 3", attribute_key="customer_id")
    await client.insights.create("INFER spender FROM transactions HAVING SUM(amount) < -100", insight_id="spender")
    paid = rule_pb2.RuleCondition(operator=rule_pb2.RULE_OPERATOR_GREATER_OR_EQUAL, target="4")
    await client.rules.create("payer", rule_pb2.Rule(event_name="transaction", count=paid, user_key="customer_id"))

    payments = [payment(number, "ada" if number % 3 else "bob") for number in range(8)]
    sent = await client.events.ingest(payments, wait_for_insights=timedelta(seconds=10))
    assert sent.insights_evaluated
    assert [(each.customer, each.state) for each in sent.changed_insights if each.state == "APPLIES"] == [
        ("ada", "APPLIES")
    ]
    position = await client.properties.set("ada", {"plan": "pro"}, attribute_key="customer_id")

    # The rule has set its property, through the log.
    async with asyncio.timeout(60):
        while "rule:payer" not in {source for _, source in await properties(client, "ada", position)}:  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    before = await answers(client, position)
    assert before["members"] == ["ada", "bob"]
    assert before["ada"][0] == {"payments": 5}  # type: ignore[index]
    assert before["ada"][1]["plan"] == "pro"  # type: ignore[index]
    assert not list(running.folder.rglob("*.db"))

    for name in reversed(SERVICES):
        await running.suite.kill(name)
    for name in SERVICES:
        await running.suite.start_one(name)
    assert await answers(client, position) == before

    # The log goes on where it was.
    sent = await client.events.ingest([payment(100, "bob")], wait_for_insights=timedelta(seconds=10))
    assert sent.position > position
    assert [(each.customer, each.state) for each in sent.changed_insights] == [("bob", "APPLIES")]
