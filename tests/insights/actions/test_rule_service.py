"""RuleService over a real server, with a log in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2
from typer.testing import CliRunner

from inkling.cli import make_app
from inkling.insights.v1 import rule_pb2
from inkling.insights.v1 import rule_service_pb2 as messages
from inkling.insights.v1.rule_service_pb2_grpc import RuleServiceStub
from services.insights.app import open_app
from services.insights.rules_app import RulesLinks
from services.insights.settings import InsightsSettings
from services.runtime.clocks import ManualClock
from services.runtime.server import Server
from tests.features.memory_log import NOW_US, MemoryLog, purchase
from tests.insights.rules.offline_runs import as_csv, count, rule

SECOND_US = 1_000_000


@asynccontextmanager
async def serving(folder: Path, log: MemoryLog) -> AsyncIterator[RuleServiceStub]:
    settings = InsightsSettings(data_dir=folder, insecure=True, port=0)
    async with (
        open_app(settings, log, ManualClock(NOW_US), rules=RulesLinks(log)) as app,
        Server.open(settings, app.services, registry=app.registry) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = RuleServiceStub(channel)
        stub.registry = app.registry
        stub.address = f"127.0.0.1:{server.port}"
        yield stub


def thrice(**fields: object) -> rule_pb2.Rule:
    condition = rule_pb2.RuleCondition(operator=rule_pb2.RULE_OPERATOR_GREATER_OR_EQUAL, target="3")
    return rule_pb2.Rule(event_name="buy", count=condition, **fields)  # type: ignore[arg-type]


def buys(size: int, start: int = 0) -> list:  # type: ignore[type-arg]
    return [purchase(i, "ada", NOW_US + i * SECOND_US, price=0.1) for i in range(start, start + size)]


async def refused(call: object) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    trailers = dict(caught.value.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])  # type: ignore[arg-type]
    reason, violations = "", {}
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad):
            violations = {each.field: each.description for each in bad.field_violations}
    return caught.value.code(), reason, violations


async def test_a_rule_is_made_read_changed_switched_and_deleted(tmp_path: Path) -> None:
    async with serving(tmp_path, MemoryLog()) as stub:
        made = await stub.CreateRule(messages.CreateRuleRequest(rule_id="thrice", rule=thrice(description="d")))
        assert (made.name, made.version, made.active, made.action_name) == ("rules/thrice", 1, True, "buy")
        assert await stub.GetRule(messages.GetRuleRequest(name="rules/thrice")) == made
        made.sticky = True
        changed = await stub.UpdateRule(messages.UpdateRuleRequest(rule=made))
        assert (changed.version, changed.sticky, changed.description) == (2, True, "d")
        code, reason, _ = await refused(stub.UpdateRule(messages.UpdateRuleRequest(rule=made)))
        assert (code, reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
        off = await stub.ActivateRule(messages.ActivateRuleRequest(name="rules/thrice"))
        assert not off.active
        versions = await stub.ListRuleVersions(messages.ListRuleVersionsRequest(name="rules/thrice"))
        assert [each.version for each in versions.rules] == [2, 1]
        await stub.DeleteRule(messages.DeleteRuleRequest(name="rules/thrice"))
        code, reason, _ = await refused(stub.GetRule(messages.GetRuleRequest(name="rules/thrice")))
        assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        assert not (await stub.ListRules(messages.ListRulesRequest())).rules


async def test_every_mistake_is_a_violation_with_a_hint(tmp_path: Path) -> None:
    async with serving(tmp_path, MemoryLog()) as stub:
        bad = rule_pb2.Rule(event_name="trk_x", period=rule_pb2.RulePeriod(start="soon"))
        bad.sum.condition.target = "many"
        request = messages.CreateRuleRequest(rule_id="Bad", rule=bad, validate_only=True)
        code, reason, violations = await refused(stub.CreateRule(request))
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_RULE")
        fields = ("rule_id", "event_name", "sum.operator", "sum.target", "period.start")
        assert set(violations) == {f"rule.{name}" for name in fields}
        name = messages.GetRuleRequest(name="thrice")
        assert (await refused(stub.GetRule(name)))[1] == "BAD_NAME"


async def test_results_statistics_actions_and_back_tests_agree(tmp_path: Path) -> None:
    log = MemoryLog()
    async with serving(tmp_path, log) as stub:
        condition = rule_pb2.RuleCondition(operator=rule_pb2.RULE_OPERATOR_EQUAL, target="0.3")
        summed = rule_pb2.Rule(event_name="buy", sum=rule_pb2.SumCondition(metric="price", condition=condition))
        await stub.CreateRule(messages.CreateRuleRequest(rule_id="sum", rule=summed))
        fires = thrice(reset=True, action=rule_pb2.RuleAction(fire_event=rule_pb2.FireEvent()))
        await stub.CreateRule(messages.CreateRuleRequest(rule_id="fires", rule=fires))
        position = await log.append(*buys(3))
        asked = messages.ListRuleResultsRequest(user="ada", min_position=position)
        found = await stub.ListRuleResults(asked)
        assert [(each.rule, each.holds, each.count, each.sum) for each in found.results] == [
            ("rules/fires", False, 0, ""),
            ("rules/sum", True, 3, "0.3"),
        ]
        statistics = await stub.GetRuleStatistics(messages.GetRuleStatisticsRequest(name="rules/sum"))
        assert (statistics.user_count, statistics.holding_count, statistics.event_count) == (1, 1, 3)
        page = await stub.ListRuleActions(messages.ListRuleActionsRequest(page_size=1))
        more = await stub.ListRuleActions(messages.ListRuleActionsRequest(page_size=1, page_token=page.next_page_token))
        effects = {each.effect: each.action_name for each in (*page.actions, *more.actions)}
        assert effects == {"fire_event": "trk_buy", "set_property": "buy"}
        for tested in (thrice(), rule_pb2.Rule(name="rules/fires")):
            test = await stub.BackTestRule(messages.BackTestRuleRequest(rule=tested, days=1))
            assert (test.hit_count, test.user_count, test.hits[0].user, test.hits[0].count) == (1, 1, "ada", 3)


async def test_what_the_log_lacks_is_said_and_what_rules_did_is_measured(tmp_path: Path) -> None:
    log = MemoryLog(complete_since_us=NOW_US)
    async with serving(tmp_path, log) as stub:
        position = await log.append(*buys(3))
        await stub.CreateRule(messages.CreateRuleRequest(rule_id="thrice", rule=thrice()))
        since_us = [
            (await stub.ListRuleResults(messages.ListRuleResultsRequest(user="ada", min_position=position)))
            .results[0]
            .complete_since_time,
            (await stub.BackTestRule(messages.BackTestRuleRequest(rule=thrice(), days=1))).complete_since_time,
            (await stub.GetRuleStatistics(messages.GetRuleStatisticsRequest(name="rules/thrice"))).complete_since_time,
        ]
        assert {each.ToMicroseconds() for each in since_us} == {NOW_US}
        measured = {
            (sample.name.removeprefix("inkling_insights_rule_"), *sample.labels.values()): sample.value
            for metric in stub.registry.collect()
            for sample in metric.samples
            if sample.name.startswith("inkling_insights_rule_")
        }
        assert measured["evaluations_total", "default"] == 3
        assert (measured["ready", "default"], measured["active", "default"], measured["users", "default"]) == (1, 1, 1)
        assert (measured["lag_events", "default"], measured["position", "default"]) == (0, 3)


async def test_a_table_is_imported_once_and_exported_again(tmp_path: Path) -> None:
    async with serving(tmp_path, MemoryLog()) as stub:
        table = as_csv([count("equal", 2), count("wrong", 2), rule(operator_v="greater", target_v="5", metric="price")])
        code, reason, violations = await refused(stub.ImportRuleTable(messages.ImportRuleTableRequest(table=table)))
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_TABLE")
        assert list(violations) == ["table.line[3].Operator-C"]
        request = messages.ImportRuleTableRequest(table=table, skip_bad_rows=True)
        first = await stub.ImportRuleTable(request)
        assert [problem.line for problem in first.problems] == [3]
        assert (await stub.ImportRuleTable(request)).rules == first.rules
        exported = await stub.ExportRuleTable(messages.ExportRuleTableRequest())
        again = await stub.ImportRuleTable(messages.ImportRuleTableRequest(table=exported.table))
        assert again.rules == first.rules
        changed = exported.table.replace("equal,2", "equal,4")
        assert [
            each.version for each in (await stub.ImportRuleTable(messages.ImportRuleTableRequest(table=changed))).rules
        ] == [2, 1]


async def test_the_secret_of_webhooks_stays_the_same(tmp_path: Path) -> None:
    told = []
    for _ in range(2):
        async with serving(tmp_path, MemoryLog()) as stub:
            told.append((await stub.GetWebhookSecret(messages.GetWebhookSecretRequest())).secret)
    assert told[0] == told[1]
    assert told[0].startswith("whs_")


async def test_the_command_line_imports_shows_and_tests_rules(tmp_path: Path) -> None:
    log = MemoryLog()
    (tmp_path / "rules.csv").write_text(as_csv([count("equal", 2), count("every", 3, resetwhenreachtarget="yes")]))
    async with serving(tmp_path / "data", log) as stub:

        async def run(*words: str) -> tuple[int, str]:
            arguments = ["--insights", stub.address, "--data-dir", str(tmp_path / "data"), "rules", *words]
            done = await asyncio.to_thread(CliRunner().invoke, make_app(), arguments)
            return done.exit_code, done.output

        code, output = await run("import", str(tmp_path / "rules.csv"))
        assert (code, "aggregator_buy_2" in output, "trk_buy" in output) == (0, True, True)
        position = await log.append(*buys(3))
        await stub.ListRuleResults(messages.ListRuleResultsRequest(user="ada", min_position=position))
        assert "aggregator_buy_2" in (await run("of", "ada"))[1]
        code, output = await run("actions")
        assert [
            word for word in ("set_property", "unset_property", "fire_event", "pending") if word not in output
        ] == []
        assert "1 hits of 1 users" in (await run("back-test", "aggregator_buy_2", "--days", "1"))[1]
        assert (await run("export"))[1].count("\n") == 3
        assert '"user_count": "1"' in (await run("statistics", "aggregator_buy"))[1]
        assert '"version": 1' in (await run("off", "aggregator_buy"))[1]
        assert "false" in (await run("list"))[1]
        assert (await run("on", "aggregator_buy"))[0] == 0
        assert (await run("delete", "aggregator_buy"))[0] == 0
        assert (await run("show", "aggregator_buy"))[0] != 0
        assert (await run("webhook-secret"))[1].startswith("whs_")
