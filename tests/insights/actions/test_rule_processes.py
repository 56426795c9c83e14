"""Rules with ingest, features and insights as real processes: what is asked for happens, once, whoever is killed."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import pytest

from inkling.features.v1 import profile_pb2, profile_service_pb2, property_service_pb2
from inkling.features.v1.profile_service_pb2_grpc import ProfileServiceStub
from inkling.features.v1.property_service_pb2_grpc import PropertyServiceStub
from inkling.ingest.v1 import event_pb2, ingest_service_pb2
from inkling.ingest.v1.ingest_service_pb2_grpc import IngestServiceStub
from inkling.insights.v1 import rule_pb2
from inkling.insights.v1 import rule_service_pb2 as messages
from inkling.insights.v1.rule_service_pb2_grpc import RuleServiceStub
from services.runtime.clocks import SystemClock
from tests.features.processes import SERVICE_KEY, ServiceProcess, free_port, running_suite
from tests.features.test_processes import client_of


@dataclass
class Suite:
    """Stubs of three services, and the process of insights."""

    ingest: IngestServiceStub
    profiles: ProfileServiceStub
    properties: PropertyServiceStub
    rules: RuleServiceStub
    process: ServiceProcess

    async def buy(self, user: str, *numbers: int) -> None:
        at_us = SystemClock().now_us()
        events = []
        for number in numbers:
            event = event_pb2.Event(event_id=f"{user}{number}", keys={"user_id": user})
            event.type.name = "buy"
            event.occurred_at.FromMicroseconds(at_us + number)
            events.append(event)
        response = await self.ingest.Ingest(ingest_service_pb2.IngestRequest(events=events))
        assert not response.rejected

    async def value(self, user: str, name: str) -> tuple[str, str]:
        """A property's value and source."""
        selection = profile_pb2.Selection(properties=[name])
        request = profile_service_pb2.GetProfileRequest(attribute_key="user_id", key_value=user, selection=selection)
        (found,) = (await self.profiles.GetProfile(request)).properties
        return found.value.string_value, found.source

    async def counts(self, rule: str) -> dict[tuple[int, str], int]:
        """How many actions of a rule there are by state and reason."""
        found = await self.rules.GetRuleStatistics(messages.GetRuleStatisticsRequest(name=f"rules/{rule}"))
        return {(each.state, each.reason): each.count for each in found.actions}


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Suite]:
    async with running_suite(folder) as suite:
        port = free_port()
        settings = {
            "DATA_DIR": str(folder),
            "SERVICE_KEY": SERVICE_KEY,
            "PORT": str(port),
            "INGEST_TARGET": suite.ingest.target,
            "FEATURES_TARGET": suite.features.target,
            "DRAIN_SECONDS": "0",
            "GRACE_SECONDS": "0.5",
        }
        environment = {f"INKLING_INSIGHTS_{name}": value for name, value in settings.items()}
        process = ServiceProcess("services.insights", port, environment, folder / "insights.log")
        await process.start()
        try:
            key = suite.keys["main"]
            async with (
                client_of(suite.ingest, key) as ingest,
                client_of(suite.features, key) as features,
                client_of(process, key) as insights,
            ):
                yield Suite(
                    IngestServiceStub(ingest),
                    ProfileServiceStub(features),
                    PropertyServiceStub(features),
                    RuleServiceStub(insights),
                    process,
                )
        finally:
            await process.end()


def rule(operator: rule_pb2.RuleOperator.ValueType, target: str, event: str = "buy", **fields: object) -> rule_pb2.Rule:
    condition = rule_pb2.RuleCondition(operator=operator, target=target)
    return rule_pb2.Rule(event_name=event, count=condition, **fields)  # type: ignore[arg-type]


async def until(answer: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Asks again until the answer is the one wanted; what is unavailable is asked again too."""
    while True:
        with contextlib.suppress(grpc.aio.AioRpcError):
            if await answer() == wanted:
                return
        await asyncio.sleep(0.05)


async def refuse_consent(suite: Suite, user: str) -> None:
    declared = property_service_pb2.CreatePropertyRequest(attribute_key="user_id", property_id="consent")
    declared.property.type = property_service_pb2.PROPERTY_TYPE_BOOLEAN
    await suite.properties.CreateProperty(declared)
    write = property_service_pb2.PropertyWrite(key_value=user)
    write.values["consent"].bool_value = False
    request = property_service_pb2.SetPropertiesRequest(attribute_key="user_id", write=write)

    async def is_set() -> bool:
        return (await suite.properties.SetProperties(request)).position > 0

    await until(is_set, True)


@pytest.mark.slow
async def test_actions_happen_once_whoever_is_killed_and_not_without_consent(tmp_path: Path) -> None:
    fire = rule_pb2.RuleAction(fire_event=rule_pb2.FireEvent())
    made = {
        "two": rule(rule_pb2.RULE_OPERATOR_EQUAL, "2"),
        "every": rule(rule_pb2.RULE_OPERATOR_EVERY, "2", reset=True, action=fire),
        "fired": rule(rule_pb2.RULE_OPERATOR_GREATER_OR_EQUAL, "1", event="trk_buy", count_system_events=True),
    }
    async with asyncio.timeout(200), running(tmp_path) as suite:
        await refuse_consent(suite, "bob")
        for rule_id, content in made.items():
            await suite.rules.CreateRule(messages.CreateRuleRequest(rule_id=rule_id, rule=content))
        await suite.buy("ada", 1, 2)
        await until(lambda: suite.value("ada", "buy"), ("ready", "rule:two"))
        # What was fired is an event of the log: another rule counts it.
        await until(lambda: suite.value("ada", "trk_buy"), ("ready", "rule:fired"))
        await suite.process.end(signal.SIGKILL)
        await suite.process.start()
        await suite.buy("ada", 3)
        # The condition no longer holds.
        await until(lambda: suite.value("ada", "buy"), ("", "rule:two"))
        await suite.buy("ada", 4)

        async def counts() -> list[int]:
            found = await suite.rules.ListRuleResults(messages.ListRuleResultsRequest(user="ada"))
            return [each.count for each in found.results]

        # Two times two purchases have fired two events, and no more.
        await until(counts, [0, 2, 4])
        await suite.buy("bob", 1, 2)
        suppressed = {
            (rule_pb2.RULE_ACTION_STATE_DONE, ""): 2,
            (rule_pb2.RULE_ACTION_STATE_SUPPRESSED, "NO_CONSENT"): 1,
        }
        await until(lambda: suite.counts("every"), suppressed)
        assert (await suite.value("bob", "buy"))[0] == ""
