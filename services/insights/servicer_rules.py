"""RuleService: converts requests, calls the rules, formats what they say."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc.aio
from google.protobuf.empty_pb2 import Empty

from inkling.insights.v1 import rule_pb2, rule_service_pb2_grpc
from inkling.insights.v1 import rule_service_pb2 as messages
from services.following.feed import Feed, Part
from services.insights.actions.webhooks import WebhookSecrets
from services.insights.rules import wire
from services.insights.rules.backtest import BackTest, BackTester
from services.insights.rules.definitions import DEFAULT_USER_KEY, RULE_ID, Rule
from services.insights.rules.importing import export_table, import_table
from services.insights.rules.service import Rules
from services.runtime.auth import Role, current_caller
from services.runtime.errors import DeadlineExceeded, InvalidArgument, Violation
from services.runtime.paging import PageTokens, page_size
from services.runtime.server import Service

SERVICE_NAME = "inkling.insights.v1.RuleService"
_READS = ("GetRule", "ListRules", "ListRuleVersions", "ExportRuleTable", "GetRuleStatistics")
# What a rule says of somebody is what profiles say: who may not read these may not read it.
_USERS = ("ListRuleResults", "ListRuleActions")
_WRITES = ("CreateRule", "UpdateRule", "ActivateRule", "DeleteRule", "ImportRuleTable")
POLICIES = {
    **{f"/{SERVICE_NAME}/{method}": frozenset({Role.READ, Role.DEFINE, Role.SERVICE}) for method in _READS},
    **{f"/{SERVICE_NAME}/{method}": frozenset({Role.READ, Role.SERVICE}) for method in _USERS},
    **{f"/{SERVICE_NAME}/{method}": frozenset({Role.DEFINE}) for method in _WRITES},
    f"/{SERVICE_NAME}/BackTestRule": frozenset({Role.DEFINE}),
    f"/{SERVICE_NAME}/GetWebhookSecret": frozenset({Role.DEFINE}),
}
MAX_DAYS, MAX_HITS = 3_660, 1_000
MAX_TABLE = 3 << 20
_DAY_US = 86_400_000_000
_WAIT_SECONDS = 5.0
_TEST_BYTES = 1 << 20

Context = grpc.aio.ServicerContext[Any, Any]


def rule_service(servicer: "RuleServicer", domain: str) -> Service:
    """The service to give to `serve`."""
    return Service(
        name="rules",
        domain=domain,
        register=lambda server: rule_service_pb2_grpc.add_RuleServiceServicer_to_server(servicer, server),
        health_names=(SERVICE_NAME,),
        policies=POLICIES,
        descriptors=(messages.DESCRIPTOR,),
    )


class RuleServicer(rule_service_pb2_grpc.RuleServiceServicer):
    """Makes rules and says what they do."""

    def __init__(self, rules: Rules, feed: Feed, tokens: PageTokens, keys: WebhookSecrets) -> None:
        self._rules = rules
        self._feed = feed
        self._tokens = tokens
        self._keys = keys
        self._testing = asyncio.Semaphore(1)

    async def CreateRule(self, request: messages.CreateRuleRequest, context: Context) -> rule_pb2.Rule:
        """Makes a rule."""
        rule = wire.read_rule(request.rule, request.rule_id)
        (stored,) = await self._rules.create(_project(), [rule], validate_only=request.validate_only)
        return wire.rule_message(stored)

    async def GetRule(self, request: messages.GetRuleRequest, context: Context) -> rule_pb2.Rule:
        """Reads a rule."""
        return wire.rule_message(await self._rules.get(_project(), _rule_id(request.name)))

    async def ListRules(self, request: messages.ListRulesRequest, context: Context) -> messages.ListRulesResponse:
        """Lists the rules, by id."""
        size, scope = page_size(request.page_size), (_project(), "ListRules")
        after = str(self._tokens.verify(request.page_token, *scope).get("r", ""))
        rest = [stored for stored in await self._rules.all(_project()) if stored.rule.rule_id > after]
        token = self._tokens.sign({"r": rest[size - 1].rule.rule_id}, *scope) if len(rest) > size else ""
        return messages.ListRulesResponse(rules=map(wire.rule_message, rest[:size]), next_page_token=token)

    async def ListRuleVersions(
        self, request: messages.ListRuleVersionsRequest, context: Context
    ) -> messages.ListRuleVersionsResponse:
        """Lists the versions of a rule."""
        versions = await self._rules.store.versions(_project(), _rule_id(request.name))
        return messages.ListRuleVersionsResponse(rules=map(wire.rule_message, versions))

    async def UpdateRule(self, request: messages.UpdateRuleRequest, context: Context) -> rule_pb2.Rule:
        """Makes a new version of a rule."""
        rule = wire.read_rule(request.rule, _rule_id(request.rule.name, "rule.name"))
        stored = await self._rules.update(_project(), rule, request.rule.etag, validate_only=request.validate_only)
        return wire.rule_message(stored)

    async def ActivateRule(self, request: messages.ActivateRuleRequest, context: Context) -> rule_pb2.Rule:
        """Switches a rule on or off."""
        stored = await self._rules.switch(_project(), _rule_id(request.name), is_active=request.active)
        return wire.rule_message(stored)

    async def DeleteRule(self, request: messages.DeleteRuleRequest, context: Context) -> Empty:
        """Deletes a rule and its state at once."""
        await self._rules.delete(_project(), _rule_id(request.name), request.etag)
        return Empty()

    async def ImportRuleTable(
        self, request: messages.ImportRuleTableRequest, context: Context
    ) -> messages.ImportRuleTableResponse:
        """Makes the rules of a table."""
        if len(request.table.encode()) > MAX_TABLE:
            raise _out_of_range("table", f"has at most {MAX_TABLE >> 20} MiB")
        imported = await import_table(
            self._rules,
            _project(),
            request.table,
            request.metric,
            request.zone or "UTC",
            validate_only=request.validate_only,
            skip_bad_rows=request.skip_bad_rows,
        )
        problems = [
            messages.RuleTableProblem(
                line=each.line,
                column=each.column,
                description=each.description,
                hint=each.hint,
                warning=each.is_warning,
            )
            for each in imported.problems
        ]
        return messages.ImportRuleTableResponse(rules=map(wire.rule_message, imported.rules), problems=problems)

    async def ExportRuleTable(
        self, request: messages.ExportRuleTableRequest, context: Context
    ) -> messages.ExportRuleTableResponse:
        """Writes the rules as a table."""
        text, left_out = await export_table(self._rules, _project())
        return messages.ExportRuleTableResponse(table=text, left_out=[wire.PREFIX + each for each in left_out])

    async def ListRuleResults(
        self, request: messages.ListRuleResultsRequest, context: Context
    ) -> messages.ListRuleResultsResponse:
        """Says what the rules say of a user."""
        if not request.user:
            raise _out_of_range("user", "is missing")
        project = await self._rules.project(_project())
        if not await project.wait_for(request.min_position, _WAIT_SECONDS):
            raise DeadlineExceeded("the position was not applied in time: try again", reason="POSITION_NOT_REACHED")
        found = project.serving().results(request.user, request.user_key or DEFAULT_USER_KEY)
        return messages.ListRuleResultsResponse(results=map(wire.result_message, found), position=project.position)

    async def GetRuleStatistics(
        self, request: messages.GetRuleStatisticsRequest, context: Context
    ) -> messages.RuleStatistics:
        """Says what a rule has done."""
        rule_id = _rule_id(request.name)
        stored = await self._rules.get(_project(), rule_id)
        states = await self._rules.outbox.states(_project(), rule_id)
        response = messages.RuleStatistics(
            actions=[
                messages.RuleActionCount(state=wire.state_message(state), reason=reason, count=count)
                for (state, reason), count in sorted(states.items())
            ]
        )
        if stored.is_active:
            found = (await self._rules.project(_project())).serving().statistics(rule_id)
            response.user_count, response.holding_count = found.users, found.holding
            response.event_count, response.action_count = found.events, found.actions
            response.past_hit_count, response.rejected_event_count = found.past_edges, found.rejected
            if found.complete_since_us is not None:
                response.complete_since_time.CopyFrom(wire.timestamp(found.complete_since_us))
        return response

    async def ListRuleActions(
        self, request: messages.ListRuleActionsRequest, context: Context
    ) -> messages.ListRuleActionsResponse:
        """Lists what rules asked for, the newest first."""
        rule_id = _rule_id(request.rule, "rule") if request.rule else ""
        size, scope = page_size(request.page_size), (_project(), "ListRuleActions", rule_id)
        before = int(str(self._tokens.verify(request.page_token, *scope).get("s", 0)))
        found = await self._rules.outbox.page(_project(), rule_id, before, size + 1)
        token = self._tokens.sign({"s": found[size - 1].sequence}, *scope) if len(found) > size else ""
        return messages.ListRuleActionsResponse(actions=map(wire.action_message, found[:size]), next_page_token=token)

    async def BackTestRule(
        self, request: messages.BackTestRuleRequest, context: Context
    ) -> messages.BackTestRuleResponse:
        """Says whom a rule would have hit."""
        if not 1 <= request.days <= MAX_DAYS:
            raise _out_of_range("days", f"must be from 1 to {MAX_DAYS}")
        if not 0 <= request.max_hits <= MAX_HITS:
            raise _out_of_range("max_hits", f"must be from 0 to {MAX_HITS}")
        rule = await self._tested(request.rule)
        project = await self._rules.project(_project())
        end_us, position = project.serving().as_of_us, project.position
        start_us = end_us - request.days * _DAY_US
        async with self._testing:
            tester = BackTester(rule, end_us)
            async for part in self._log(project.name, position):
                tester.note_complete_since(part.complete_since_us)
                batch = part.batch()
                if batch is not None:
                    batch = batch.slice(0, position - part.first_position + 1)
                    await asyncio.to_thread(tester.add, batch)
            found = await asyncio.to_thread(tester.answer, start_us, request.max_hits or 100)
        return _test_message(found, start_us, end_us)

    async def GetWebhookSecret(
        self, request: messages.GetWebhookSecretRequest, context: Context
    ) -> messages.GetWebhookSecretResponse:
        """Reads the secret of the project's webhooks."""
        return messages.GetWebhookSecretResponse(secret=self._keys.of(_project()))

    async def _tested(self, message: rule_pb2.Rule) -> Rule:
        """The rule to test: as given, or, when there is nothing but a name, as it is."""
        if not message.event_name and message.name:
            return (await self._rules.get(_project(), _rule_id(message.name, "rule.name"))).rule
        rule = wire.read_rule(message, _rule_id(message.name, "rule.name") if message.name else "tested")
        await self._rules.check(_project(), [rule], ["rule"])
        return rule

    async def _log(self, project: str, position: int) -> AsyncIterator[Part]:
        async with aclosing(self._feed.follow(project, 0, _TEST_BYTES, stop_at_head=True)) as parts:
            async for part in parts:
                yield part
                if part.last_position >= position:
                    return


def _test_message(found: BackTest, start_us: int, end_us: int) -> messages.BackTestRuleResponse:
    return messages.BackTestRuleResponse(
        user_count=found.hit_users,
        hit_count=found.hit_count,
        holding_count=found.holding_users,
        event_count=found.events,
        rejected_event_count=found.rejected,
        hits=[
            messages.BackTestHit(
                user=hit.user, event_time=wire.timestamp(hit.at_us), count=hit.count, sum=wire.decimal_text(hit.sum)
            )
            for hit in found.hits
        ],
        start_time=wire.timestamp(max(start_us, 0)),
        end_time=wire.timestamp(max(end_us, 0)),
        complete_since_time=wire.since_message(found.complete_since_us),
    )


def _project() -> str:
    return current_caller().project


def _rule_id(name: str, field: str = "name") -> str:
    rule_id = name.removeprefix(wire.PREFIX)
    if not name.startswith(wire.PREFIX) or not RULE_ID.fullmatch(rule_id):
        text = "is not the name of a rule: rules/{rule}"
        raise InvalidArgument(f"{field} {text}", reason="BAD_NAME", violations=(Violation(field, text, "BAD_NAME"),))
    return rule_id


def _out_of_range(field: str, text: str) -> InvalidArgument:
    violation = Violation(field, text, "OUT_OF_RANGE")
    return InvalidArgument(f"{field} {text}", reason="OUT_OF_RANGE", violations=(violation,))
