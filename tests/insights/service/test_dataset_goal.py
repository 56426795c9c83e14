"""Training sets whose goal is an insight: three real services, and labels that know nothing of what came after."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import pytest_asyncio

from inkling import AsyncClient, CustomerEvent
from inkling.cli.suite import Suite
from inkling.errors import InvalidArgument, NotFound
from tests.running import client_of, running_suite

pytestmark = pytest.mark.asyncio(loop_scope="module")
START = datetime(2024, 3, 1, tzinfo=UTC)
QUERY = 'INFER gambler FROM transactions WHERE category_l1 = "gambling" AND DATETIME_FROM(date_time, 0, 0, 10)'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def suite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    async with running_suite(tmp_path_factory.mktemp("suite"), names=("ingest", "features", "insights")) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(suite: Suite) -> AsyncIterator[AsyncClient]:
    async with client_of(suite, "bank") as opened:
        await opened.project.set(clock="log")
        await opened.insights.create(QUERY, insight_id="gambler")
        await opened.events.ingest(
            [
                *(
                    bought(f"{name}-{day}", name, day, "groceries")
                    for name in ("ada", "bob")
                    for day in (0, 15, 30, 60)
                ),
                bought("bet-1", "ada", 20, "gambling"),
                bought("bet-2", "bob", 2, "gambling"),
            ]
        )
        yield opened


def bought(event_id: str, customer: str, day: int, category: str) -> CustomerEvent:
    """A payment so many days after the start."""
    return CustomerEvent(
        event_id=event_id,
        vendor="bank",
        name="transaction",
        version="1-0-0",
        occurred_at=START + timedelta(days=day),
        keys={"customer_id": customer},
        properties={"amount": 5.0, "credit_debit_indicator": "debit", "category_l1": category},
    )


def spec(insight: str, key: str = "customer_id") -> dict[str, object]:
    """Who gambles within ten days after the 16th day, the 13th and the 4th."""
    instants = [(START + timedelta(days=day)).isoformat().replace("+00:00", "Z") for day in (3, 12, 15)]
    return {
        "attribute_key": key,
        "features": {"properties": ["plan"]},
        "moments": {"instants": {"times": instants}},
        "goal": {"insight": {"insight": insight}, "label_window": "864000s"},
    }


async def test_labels_are_what_the_insight_said_at_each_instant(client: AsyncClient, tmp_path: Path) -> None:
    await client.properties.declare("plan", "string", attribute_key="customer_id")
    made = await client.datasets.create(spec("insights/gambler"))
    files = await client.datasets.download(made.name, tmp_path)
    rows = [row for file in files if file.suffix == ".parquet" for row in pq.read_table(file).to_pylist()]
    found = {(row["customer_id"], row["moment"]): row["goal"] for row in rows}
    day = {number: START + timedelta(days=number) for number in (3, 12, 15)}
    # Ada bets on day 20: known at days 13 + 10 and 15 + 10. Bob did on day 2, so that his earliest row is left out.
    assert found == {
        ("ada", day[3]): False,
        ("ada", day[12]): True,
        ("ada", day[15]): True,
        ("bob", day[12]): False,
        ("bob", day[15]): False,
    }


async def test_what_could_not_be_labelled_is_refused_at_once(client: AsyncClient) -> None:
    with pytest.raises(NotFound, match="insights/unknown"):
        await client.datasets.create(spec("insights/unknown"))
    await client.properties.declare("plan", "string", attribute_key="user_id")
    with pytest.raises(InvalidArgument, match="an insight about user_id"):
        await client.datasets.create(spec("insights/gambler", key="user_id"))
