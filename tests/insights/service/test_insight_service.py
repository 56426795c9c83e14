"""The insights service over gRPC."""

import asyncio

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from inkling.insights.v1 import insight_pb2
from inkling.insights.v1 import insight_service_pb2 as messages
from inkling.insights.v1 import query_service_pb2 as queries
from services.insights.messages import timestamp
from services.insights.settings import InsightsSettings
from services.kernel.columns import DELETE, REPLACE
from services.runtime.clocks import ManualClock
from tests.features.memory_log import NOW_US, MemoryLog
from tests.insights.service.serving import DAY_US, GAMBLER, Client, refused, serving, transaction


async def test_an_insight_applies_as_soon_as_its_rows_are_there(client: Client, log: MemoryLog) -> None:
    await client.create()
    position = await log.append(transaction(1, "ada", NOW_US - DAY_US), transaction(2, "bob", NOW_US, category="food"))
    assert await client.states("ada", position) == {"gambler": "APPLIES"}
    assert await client.states("bob", position) == {"gambler": "NOT"}
    assert await client.states("nobody") == {}


async def test_a_new_insight_is_evaluated_over_what_was_retained(client: Client, log: MemoryLog) -> None:
    position = await log.append(transaction(1, "ada", NOW_US - DAY_US))
    assert await client.states("ada", position) == {}
    made = await client.create()
    assert made.applies_count == 1
    assert made.identifier == "active_gambler"
    assert made.attribute_key == "customer_id"
    assert await client.states("ada") == {"gambler": "APPLIES"}


async def test_time_alone_withdraws_an_insight(client: Client, log: MemoryLog, clock: ManualClock) -> None:
    await client.create()
    position = await log.append(transaction(1, "ada", NOW_US - DAY_US))
    request = messages.GetCustomerInsightsRequest(customer="ada", min_position=position)
    (found,) = (await client.insights.GetCustomerInsights(request)).insights
    until_us = found.until_time.ToMicroseconds()
    assert NOW_US < until_us < NOW_US + 32 * DAY_US
    clock.set(until_us - 1)
    await asyncio.sleep(0.1)
    assert await client.states("ada") == {"gambler": "APPLIES"}
    clock.set(until_us)
    await _until(client, "ada", {"gambler": "NOT"})


async def _until(client: Client, customer: str, expected: dict[str, str]) -> None:
    for _ in range(500):
        if await client.states(customer) == expected:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{customer} is not {expected}")


async def test_corrections_and_deletions_count(client: Client, log: MemoryLog) -> None:
    await client.create("INFER big FROM transactions HAVING ABS(SUM(amount)) > 100", "big")
    position = await log.append(transaction(1, "ada", NOW_US, 150.0))
    assert await client.states("ada", position) == {"big": "APPLIES"}
    position = await log.append(transaction(1, "ada", NOW_US, 50.0, operation=REPLACE, revision=1))
    assert await client.states("ada", position) == {"big": "NOT"}
    position = await log.append(transaction(2, "ada", NOW_US, 60.0))
    assert await client.states("ada", position) == {"big": "APPLIES"}
    position = await log.append(transaction(2, "ada", NOW_US, operation=DELETE, revision=1))
    assert await client.states("ada", position) == {"big": "NOT"}


async def test_amounts_are_signed_by_their_indicator(client: Client, log: MemoryLog) -> None:
    await client.create("INFER out FROM transactions HAVING SUM(amount) < 0", "out")
    await client.create("INFER in_ FROM transactions HAVING SUM(amount) > 0", "in")
    credit = {"credit_debit_indicator": "credit", "amount": None}
    position = await log.append(
        transaction(1, "ada", NOW_US, 3.0), transaction(2, "bob", NOW_US, properties={**credit, "amount": 3.0})
    )
    assert await client.states("ada", position) == {"in": "NOT", "out": "APPLIES"}
    assert await client.states("bob", position) == {"in": "APPLIES", "out": "NOT"}


async def test_every_mistake_of_a_query_is_named(client: Client) -> None:
    query = 'INFER a FROM transactions WHERE colour = "red" AND shape = 1'
    code, reason, violations = await refused(client.create(query))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_QUERY")
    assert violations
    answer = await client.queries.ValidateQuery(queries.ValidateQueryRequest(query=query))
    assert [each.code for each in answer.errors] == ["E_COLUMN", "E_COLUMN"]


async def test_checking_only_changes_nothing(client: Client) -> None:
    assert (await client.create(validate_only=True)).version == 1
    assert not (await client.insights.ListInsights(messages.ListInsightsRequest())).insights


async def test_a_repeated_request_makes_nothing_new(client: Client) -> None:
    first = await client.create(insight_id="", request_id="r1")
    again = await client.create(insight_id="", request_id="r1")
    assert first.name == again.name
    _, reason, _ = await refused(client.create("INFER b FROM transactions HAVING TRUE", "", request_id="r1"))
    assert reason == "REQUEST_ID_REUSED"


async def test_another_query_is_a_new_version_and_tells_what_changed(client: Client, log: MemoryLog) -> None:
    made = await client.create()
    position = await log.append(transaction(1, "ada", NOW_US), transaction(2, "bob", NOW_US, category="food"))
    await client.states("ada", position)
    query = GAMBLER.replace("gambling_and_lotteries", "food")
    changed = insight_pb2.Insight(name=made.name, query=query, etag=made.etag)
    after = await client.insights.UpdateInsight(
        messages.UpdateInsightRequest(insight=changed, update_mask=FieldMask(paths=["query"]))
    )
    assert after.version == 2
    assert await client.states("ada") == {"gambler": "NOT"}
    assert await client.states("bob") == {"gambler": "APPLIES"}
    _, reason, _ = await refused(client.insights.UpdateInsight(messages.UpdateInsightRequest(insight=changed)))
    assert reason == "ETAG_MISMATCH"


async def test_what_is_not_active_applies_to_nobody(client: Client, log: MemoryLog) -> None:
    await client.create(inactive=True)
    position = await log.append(transaction(1, "ada", NOW_US))
    assert await client.states("ada", position) == {}
    await client.insights.ActivateInsight(messages.ActivateInsightRequest(name="insights/gambler"))
    assert await client.states("ada") == {"gambler": "APPLIES"}
    await client.insights.DeactivateInsight(messages.DeactivateInsightRequest(name="insights/gambler"))
    assert await client.states("ada") == {}


async def test_explanations_show_rows_and_operands(client: Client, log: MemoryLog) -> None:
    await client.create("INFER big FROM transactions WHERE amount < -20 HAVING ABS(SUM(amount)) > 200", "big")
    position = await log.append(
        *(transaction(i, "ada", NOW_US - i, float(amount)) for i, amount in enumerate((5, 250)))
    )
    await client.states("ada", position)
    found = await client.insights.ExplainInsight(messages.ExplainInsightRequest(name="insights/big", customer="ada"))
    assert found.state == insight_pb2.STATE_APPLIES
    assert [(row.event_id, row.values["amount"].double_value) for row in found.rows] == [("t1", -250.0)]
    (operand,) = found.operands
    assert (operand.left.double_value, operand.operator, operand.right.double_value) == (250.0, ">", 200.0)


async def test_a_customer_is_evaluated_at_any_instant(client: Client, log: MemoryLog) -> None:
    await client.create()
    position = await log.append(transaction(1, "ada", NOW_US))
    await client.states("ada", position)
    states = []
    for days in (0, 20, 40):
        request = messages.EvaluateCustomerRequest(customer="ada", now_time=timestamp(NOW_US + days * DAY_US))
        (found,) = (await client.insights.EvaluateCustomer(request)).evaluations
        states.append(insight_pb2.State.Name(found.state))
    assert states == ["STATE_APPLIES", "STATE_APPLIES", "STATE_NOT"]
    request = messages.EvaluateCustomerRequest(customer="nobody", query="INFER a FROM transactions HAVING SUM(1) = 1")
    (found,) = (await client.insights.EvaluateCustomer(request)).evaluations
    assert found.state == insight_pb2.STATE_APPLIES


async def test_a_dry_run_counts_customers_now_and_before(client: Client, log: MemoryLog) -> None:
    position = await log.append(
        transaction(1, "ada", NOW_US - 50 * DAY_US), transaction(2, "bob", NOW_US - DAY_US // 2)
    )
    await client.states("ada", position)
    found = await client.insights.DryRunQuery(messages.DryRunQueryRequest(query=GAMBLER, days=45))
    assert (found.applies_count, found.customer_count, list(found.sample)) == (1, 2, ["bob"])
    counts = [day.applies_count for day in found.days]
    assert len(counts) == 46
    assert counts[0] == 1
    assert counts[-2:] == [0, 1]
    assert sum(day.withdrawn_count for day in found.days) == 1
    assert not (await client.insights.ListInsights(messages.ListInsightsRequest())).insights


async def test_watchers_are_told_each_change_once_and_can_go_on(client: Client, log: MemoryLog) -> None:
    await client.create()
    position = await log.append(transaction(1, "ada", NOW_US))
    await client.states("ada", position)
    stream = client.insights.WatchInsights(messages.WatchInsightsRequest(send_initial=True))
    first = await stream.read()
    assert [(each.customer, _kind(each)) for each in first.changes] == [("ada", "PRESENT")]
    await log.append(transaction(2, "bob", NOW_US))
    second = await stream.read()
    assert [(each.customer, _kind(each), each.version) for each in second.changes] == [("bob", "APPLIED", 1)]
    stream.cancel()
    await client.insights.DeleteInsight(messages.DeleteInsightRequest(name="insights/gambler"))
    again = client.insights.WatchInsights(messages.WatchInsightsRequest(resume_token=second.resume_token))
    third = await again.read()
    assert sorted((each.customer, _kind(each)) for each in third.changes) == [
        ("ada", "WITHDRAWN"),
        ("bob", "WITHDRAWN"),
    ]
    again.cancel()


def _kind(change: messages.InsightChange) -> str:
    return messages.InsightChange.Kind.Name(change.kind).removeprefix("KIND_")


@pytest.mark.parametrize("snapshot", [True, False])
async def test_a_restart_tells_what_changed_meanwhile_once(
    settings: InsightsSettings, log: MemoryLog, clock: ManualClock, snapshot: bool
) -> None:
    async with serving(settings, log, clock) as client:
        await client.create()
        position = await log.append(transaction(1, "ada", NOW_US), transaction(2, "bob", NOW_US))
        await client.states("ada", position)
        stream = client.insights.WatchInsights(messages.WatchInsightsRequest())
        token = (await stream.read()).resume_token
        stream.cancel()
    if not snapshot:
        for file in (settings.data_dir / "blobs").rglob("*.snap"):
            file.unlink()
    await log.append(transaction(2, "bob", NOW_US, operation=DELETE, revision=1), transaction(3, "cy", NOW_US))
    async with serving(settings, log, clock) as client:
        assert await client.states("ada", 4) == {"gambler": "APPLIES"}
        stream = client.insights.WatchInsights(messages.WatchInsightsRequest(resume_token=token))
        found = await stream.read()
        assert sorted((each.customer, _kind(each)) for each in found.changes) == [
            ("bob", "WITHDRAWN"),
            ("cy", "APPLIED"),
        ]
        stream.cancel()


async def test_templates_make_queries_that_are_right(client: Client) -> None:
    listed = await client.queries.ListTemplates(queries.ListTemplatesRequest())
    for template in listed.templates:
        given = {place.name: place.default_value or "a" for place in template.parameters}
        request = queries.RenderTemplateRequest(template_id=template.template_id, identifier="x", parameters=given)
        query = (await client.queries.RenderTemplate(request)).query
        answer = await client.queries.ValidateQuery(queries.ValidateQueryRequest(query=query))
        assert not answer.errors, (query, answer.errors)
    request = queries.RenderTemplateRequest(
        template_id="all", identifier="1", parameters={"amount": "0", "colour": "red"}
    )
    _, reason, violations = await refused(client.queries.RenderTemplate(request))
    assert reason == "BAD_PARAMETER"
    assert set(violations) == {"identifier", "parameters.amount", "parameters.colour"}


async def test_a_plan_says_which_way_a_query_goes(client: Client) -> None:
    plan = await client.queries.ExplainQuery(queries.ExplainQueryRequest(query=GAMBLER))
    assert plan.way == plan.WAY_INCREMENTAL
    assert [(total.function, total.skip, total.moves) for total in plan.totals] == [
        ("COUNT", "category_l1 = gambling_and_lotteries", True)
    ]
    plan = await client.queries.ExplainQuery(
        queries.ExplainQueryRequest(query="INFER a FROM transactions WHERE amount > SUM(amount)")
    )
    assert plan.way == plan.WAY_RECOMPUTED
    assert plan.reason


async def test_all_insights_are_deleted_at_once(client: Client) -> None:
    await client.create()
    await client.create(insight_id="other")
    answer = await client.insights.DeleteAllInsights(messages.DeleteAllInsightsRequest())
    assert answer.deleted_count == 2
    _, reason, _ = await refused(client.insights.GetInsight(messages.GetInsightRequest(name="insights/other")))
    assert reason == "NOT_FOUND"
