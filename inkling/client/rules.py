"""Makes rules on counts and sums, and reads what they say and do."""

from collections.abc import AsyncIterator
from functools import cached_property
from typing import TYPE_CHECKING

from inkling.client.transport import Transport
from inkling.insights.v1 import rule_pb2
from inkling.insights.v1 import rule_service_pb2 as messages
from inkling.insights.v1.rule_service_pb2_grpc import RuleServiceStub

if TYPE_CHECKING:
    from inkling.insights.v1.rule_service_pb2_grpc import RuleServiceAsyncStub


class AsyncRules:
    """The project's rules; they are the messages of `rule.proto` and `rule_service.proto`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def create(self, rule_id: str, rule: rule_pb2.Rule, *, validate_only: bool = False) -> rule_pb2.Rule:
        """Makes a rule, filled from the log; InvalidArgument names each mistake."""
        request = messages.CreateRuleRequest(rule_id=rule_id, rule=rule, validate_only=validate_only)
        return await self._transport.call(self._stub.CreateRule, request)

    async def get(self, rule: str) -> rule_pb2.Rule:
        """Reads one by its id or name."""
        return await self._transport.call(self._stub.GetRule, messages.GetRuleRequest(name=rule_name(rule)))

    async def list(self) -> AsyncIterator[rule_pb2.Rule]:
        """All rules, by id."""
        request = messages.ListRulesRequest(page_size=1_000)
        while True:
            response = await self._transport.call(self._stub.ListRules, request)
            for rule in response.rules:
                yield rule
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    async def versions(self, rule: str) -> AsyncIterator[rule_pb2.Rule]:
        """The versions of one, the newest first."""
        request = messages.ListRuleVersionsRequest(name=rule_name(rule))
        for version in (await self._transport.call(self._stub.ListRuleVersions, request)).rules:
            yield version

    async def update(self, rule: rule_pb2.Rule, *, validate_only: bool = False) -> rule_pb2.Rule:
        """Replaces the content of one by a new version; its name says which, its etag must match if it has one."""
        request = messages.UpdateRuleRequest(rule=rule, validate_only=validate_only)
        return await self._transport.call(self._stub.UpdateRule, request)

    async def activate(self, rule: str, *, active: bool = True) -> rule_pb2.Rule:
        """Switches one on, or off."""
        request = messages.ActivateRuleRequest(name=rule_name(rule), active=active)
        return await self._transport.call(self._stub.ActivateRule, request)

    async def delete(self, rule: str) -> None:
        """Deletes one and its state at once."""
        await self._transport.call(self._stub.DeleteRule, messages.DeleteRuleRequest(name=rule_name(rule)))

    async def import_table(
        self, table: str, *, metric: str = "", zone: str = "", validate_only: bool = False, skip_bad_rows: bool = False
    ) -> messages.ImportRuleTableResponse:
        """Makes the rules of a table in CSV; the same table again changes nothing."""
        request = messages.ImportRuleTableRequest(
            table=table, metric=metric, zone=zone, validate_only=validate_only, skip_bad_rows=skip_bad_rows
        )
        return await self._transport.call(self._stub.ImportRuleTable, request)

    async def export_table(self) -> messages.ExportRuleTableResponse:
        """The rules as such a table."""
        return await self._transport.call(self._stub.ExportRuleTable, messages.ExportRuleTableRequest())

    async def results(
        self, user: str, *, user_key: str = "", min_position: int = 0
    ) -> messages.ListRuleResultsResponse:
        """What the rules say of a user."""
        request = messages.ListRuleResultsRequest(user_key=user_key, user=user, min_position=min_position)
        return await self._transport.call(self._stub.ListRuleResults, request)

    async def statistics(self, rule: str) -> messages.RuleStatistics:
        """What one has done."""
        request = messages.GetRuleStatisticsRequest(name=rule_name(rule))
        return await self._transport.call(self._stub.GetRuleStatistics, request)

    async def actions(self, rule: str = "") -> AsyncIterator[rule_pb2.RuleActionRecord]:
        """What one, or all, asked for, the newest first, and what became of it."""
        request = messages.ListRuleActionsRequest(rule=rule_name(rule) if rule else "", page_size=500)
        while True:
            response = await self._transport.call(self._stub.ListRuleActions, request)
            for action in response.actions:
                yield action
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    async def back_test(
        self, rule: rule_pb2.Rule | str, *, days: int, max_hits: int = 0
    ) -> messages.BackTestRuleResponse:
        """Whom a rule, that exists or not, would have hit over the last days."""
        tested = rule_pb2.Rule(name=rule_name(rule)) if isinstance(rule, str) else rule
        request = messages.BackTestRuleRequest(rule=tested, days=days, max_hits=max_hits)
        return await self._transport.call(self._stub.BackTestRule, request)

    async def webhook_secret(self) -> str:
        """What the project's webhooks are signed with."""
        return (await self._transport.call(self._stub.GetWebhookSecret, messages.GetWebhookSecretRequest())).secret

    @cached_property
    def _stub(self) -> "RuleServiceAsyncStub":
        return RuleServiceStub(self._transport.channel("insights"))


def rule_name(rule: str) -> str:
    """rules/{rule}, from that or the id alone."""
    return rule if rule.startswith("rules/") else f"rules/{rule}"
