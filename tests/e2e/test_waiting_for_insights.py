"""Who sends events may wait for what they change: the answer has it, and the write does not depend on it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from inkling import AsyncClient, CustomerEvent
from inkling.cli.suite import Suite
from inkling.ingest.v1 import ingest_service_pb2 as messages
from inkling.ingest.v1.ingest_service_pb2_grpc import IngestServiceStub
from tests.running import client_of, running_suite

pytestmark = pytest.mark.asyncio(loop_scope="module")
QUERY = "INFER spender FROM transactions HAVING SUM(amount) < -100"
WAIT = timedelta(seconds=10)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def suite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    folder: Path = tmp_path_factory.mktemp("suite")
    async with running_suite(folder, names=("ingest", "insights"), inkling_ingest_idle_seconds="0.2") as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(suite: Suite) -> AsyncIterator[AsyncClient]:
    async with client_of(suite, "bank") as opened:
        await opened.insights.create(QUERY, insight_id="spender")
        yield opened


def payment(event_id: str, customer: str, amount: float, *, deleted: bool = False) -> CustomerEvent:
    """A payment just now."""
    return CustomerEvent(
        event_id=event_id,
        vendor="bank",
        name="transaction",
        version="1-0-0",
        occurred_at=datetime.now(UTC),
        keys={"customer_id": customer, "account_id": f"account of {customer}"},
        properties={"amount": amount, "credit_debit_indicator": "debit"},
        deleted=deleted,
    )


async def test_the_answer_has_what_changed_for_the_customers_of_the_events(client: AsyncClient) -> None:
    sent = await client.events.ingest([payment("a1", "ada", 120.0), payment("b1", "bob", 20.0)], wait_for_insights=WAIT)
    assert (sent.accepted, sent.insights_evaluated) == (2, True)
    found = {each.customer: each for each in sent.changed_insights if each.state == "APPLIES"}
    assert set(found) == {"ada"}
    ada = found["ada"]
    assert (ada.attribute_key, ada.insight, ada.identifier, ada.version) == (
        "customer_id",
        "insights/spender",
        "spender",
        1,
    )
    assert ada.position >= sent.position
    assert abs(ada.since - datetime.now(UTC)) < timedelta(minutes=5)

    # Bob alone: what changed for Ada is not told again, and what does not change is not told.
    sent = await client.events.ingest([payment("b2", "bob", 20.0)], wait_for_insights=WAIT)
    assert (sent.insights_evaluated, sent.changed_insights) == (True, ())

    sent = await client.events.ingest([payment("a1", "ada", 120.0, deleted=True)], wait_for_insights=WAIT)
    assert [(each.customer, each.state) for each in sent.changed_insights] == [("ada", "NOT")]

    # Nobody asked: nothing is said.
    sent = await client.events.ingest([payment("b3", "bob", 200.0)])
    assert (sent.insights_evaluated, sent.changed_insights) == (None, ())


async def test_a_project_without_insights_has_nothing_to_wait_for(suite: Suite) -> None:
    async with client_of(suite, "empty") as client:
        sent = await client.events.ingest([payment("a1", "ada", 120.0)], wait_for_insights=WAIT)
        assert (sent.insights_evaluated, sent.changed_insights) == (True, ())


async def test_refused_events_and_strange_requests_are_answered_as_ever(suite: Suite, client: AsyncClient) -> None:
    nobody = payment("x1", "eve", 500.0).to_message()
    nobody.keys.clear()
    whole = messages.IngestRequest(events=[nobody, payment("e1", "eve", 500.0).to_message()])
    whole.wait_for_insights.FromSeconds(10)
    # The events in two parts with the wait between them, which is given twice: the protobuf library merges it.
    data = messages.IngestRequest(wait_for_insights=whole.wait_for_insights).SerializeToString()
    stub = IngestServiceStub(client._transport.channel("ingest"))
    metadata = client._transport.metadata()
    for request in (whole, messages.IngestRequest.FromString(data + whole.SerializeToString())):
        answer = await stub.Ingest(request, metadata=metadata)
        assert (answer.accepted_count, len(answer.rejected), answer.insights_evaluated) == (1, 1, True)
    nothing = messages.IngestRequest(events=[nobody])
    nothing.wait_for_insights.FromSeconds(10)
    answer = await stub.Ingest(nothing, metadata=metadata)
    assert (answer.accepted_count, answer.position, answer.insights_evaluated) == (0, 0, False)


async def test_events_are_accepted_whatever_insights_do(suite: Suite, client: AsyncClient) -> None:
    await suite.kill("insights")
    sent = await client.events.ingest([payment("c1", "cid", 300.0)], wait_for_insights=timedelta(seconds=1))
    assert (sent.accepted, sent.insights_evaluated, sent.changed_insights) == (1, False, ())
    await suite.start_one("insights")
    sent = await client.events.ingest([payment("c1", "cid", 300.0)], wait_for_insights=WAIT)
    assert (sent.accepted, sent.insights_evaluated) == (1, True)
    states = await client.insights.of("cid", min_position=sent.position)
    assert [each.state for each in states] == ["APPLIES"]
