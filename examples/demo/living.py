"""Insights, rules and a segment over the demo's customers: what holds now, and how that changes as the clock moves."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from examples.demo.cdnow import KEY, Purchase
from examples.demo.check import DifferenceError
from examples.demo.insights import (
    DIRECT,
    EVERY,
    LAPSED,
    LOYAL_RULE,
    MEANINGS,
    QUERIES,
    SEGMENT,
    SLEEPING,
    SPREE,
    VIP,
    VIP_RULE,
    collection,
    rules,
    sleeping,
    vip,
    who,
)
from examples.demo.screen import Screen
from inkling import AsyncClient
from inkling.cli.suite import Suite
from inkling.insights.v1 import rule_pb2

LATER = datetime(1998, 9, 15, tzinfo=UTC)
_PATIENCE_SECONDS = 60.0
T = TypeVar("T")


class Follower:
    """Whom insights apply to, from the stream of changes alone."""

    def __init__(self) -> None:
        self.applies: dict[str, set[str]] = {insight: set() for insight in QUERIES}
        self.told: Counter[tuple[str, str]] = Counter()
        """How many changes of each kind were told, by insight."""
        self._changed = asyncio.Condition()

    async def follow(self, client: AsyncClient) -> None:
        """Takes changes until it is cancelled. DifferenceError for one that changes nothing."""
        async for change in client.insights.watch(list(QUERIES), send_initial=True):
            insight = change.insight.removeprefix("insights/")
            known = self.applies[insight]
            if (change.customer in known) is not (change.change == "withdrawn"):
                raise DifferenceError(f"{insight} was told twice to be {change.change} for {change.customer}")
            known.symmetric_difference_update({change.customer})
            self.told[insight, change.change] += 1
            async with self._changed:
                self._changed.notify_all()

    async def until(self, expected: dict[str, frozenset[str]]) -> None:
        """Waits until it is so; DifferenceError when it does not become so."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS), self._changed:
                await self._changed.wait_for(lambda: self.applies == expected)
        except TimeoutError:
            wrong = {insight: sorted(self.applies[insight] ^ expected[insight])[:5] for insight in expected}
            raise DifferenceError(f"insights differ from plain Python for customers such as {wrong}") from None


class Living:
    """The steps about what holds; `customers` are their purchases as they are known now."""

    def __init__(
        self, screen: Screen, client: AsyncClient, customers: dict[str, list[Purchase]], follower: Follower
    ) -> None:
        self.screen = screen
        self.client = client
        self.customers = customers
        self.follower = follower
        self.position = 0

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, screen: Screen, client: AsyncClient, customers: dict[str, list[Purchase]]
    ) -> AsyncIterator["Living"]:
        """Defines everything, and follows it."""
        screen.step("Ask for insights, two rules and a segment over what is there already")
        await client.collections.create("purchases", collection())
        for insight, query in QUERIES.items():
            await client.insights.create(query, insight_id=insight, description=MEANINGS[insight])
            screen.note(f"insight [bold]{insight}[/]: {MEANINGS[insight]}")
        await client.properties.declare(VIP, "string", attribute_key=KEY, description="set by a rule")
        for rule_id, rule in rules().items():
            await client.rules.create(rule_id, rule)
            screen.note(f"rule [bold]{rule_id}[/]: {rule.description}")
        await client.segments.create(SLEEPING, SEGMENT, attribute_key=KEY)
        screen.note(f"segment [bold]{SLEEPING}[/]: {SEGMENT}")
        follower = Follower()
        task = asyncio.create_task(follower.follow(client))
        try:
            yield cls(screen, client, customers, follower)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @property
    def now(self) -> datetime:
        """The clock of the log: the newest purchase."""
        return max(each.at for bought in self.customers.values() for each in bought)

    async def check(self) -> None:
        """Insights, the rule's property and the segment of every customer against plain Python."""
        now = self.now
        expected = {insight: who(self.customers, holds, now) for insight, holds in DIRECT.items()}
        await self.follower.until(expected)
        for insight, customers in expected.items():
            await self.same(f"{insight} counts", len(customers), partial(self.count, insight))
        marked, slept = who(self.customers, vip, now), who(self.customers, sleeping, now)
        await self.same(f"the rule {VIP_RULE} marks", marked, self.marked)
        await self.same(f"the segment {SLEEPING} has", slept, self.members)
        applied = ", ".join(f"{len(customers):,} {insight}" for insight, customers in expected.items())
        self.screen.good(f"as of {now:%d %B %Y}: {applied}, {len(marked):,} marked {VIP}, {len(slept):,} {SLEEPING}")
        self.screen.good(f"each equal to plain Python, for {len(self.customers):,} customers")

    async def explain(self, insight: str) -> None:
        """One customer whom an insight applies to, with the reasons, and until when."""
        customer = min(self.follower.applies[insight])
        why = await self.client.insights.explain(insight, customer)
        operands = "; ".join(
            f"{each.left.double_value:,.2f} {each.operator} {each.right.double_value:g}" for each in why.operands
        )
        self.screen.note(f"why customer {customer} is a {insight}, over {why.matched_count} purchases: {operands}")
        (held,) = [each for each in await self.client.insights.of(customer) if each.insight == f"insights/{insight}"]
        if held.until is not None:
            self.screen.note(f"time alone can change that on {held.until:%d %B %Y}, not before")

    async def show(self) -> None:
        """One of the segment, as a profile has it."""
        customer = min(await self.members())
        profile = await self.client.profiles.get(
            customer, attributes=["purchases:spent_life"], properties=[VIP], segments=True, attribute_key=KEY
        )
        reading, spent = profile.properties[VIP], profile["spent_life"]
        self.screen.note(
            f"customer {customer} in a profile: spent {spent:,.2f}, {VIP} = {reading.value} set by {reading.source}, "
            f"in {', '.join(profile.segments)}"
        )

    async def let_time_pass(self, before: datetime, told: Counter[tuple[str, str]]) -> None:
        """The clock has moved: what changed was told, each change once."""
        self.screen.step("See what the clock alone has changed: insights applied and withdrawn, each told once")
        await self.check()
        for insight, holds in DIRECT.items():
            was, now = who(self.customers, holds, before), frozenset(self.follower.applies[insight])
            changes = self.follower.told - told
            applied, withdrawn = changes[insight, "applied"], changes[insight, "withdrawn"]
            # Whoever came and went on the way was told both times: the purchases of a month and those of a year leave
            # on days of their own.
            on_the_way = applied - len(now - was)
            if on_the_way < 0 or on_the_way != withdrawn - len(was - now):
                raise DifferenceError(
                    f"{insight}: {applied} applied and {withdrawn} withdrawn do not lead to what holds"
                )
            self.screen.note(
                f"{insight}: {applied:,} applied, {withdrawn:,} withdrawn, {on_the_way} of them on the way"
            )

    async def buy_and_return(self) -> None:
        """A tenth purchase fires an event; a purchase that is taken back withdraws a property."""
        self.screen.step("Rules act: a tenth purchase fires an event, a returned one takes the mark away")
        loyal = min(customer for customer, bought in self.customers.items() if len(bought) == EVERY - 1)
        tenth = Purchase(99_998, loyal, LATER, 9, 150.0)
        spender = min(who(self.customers, vip, LATER) - {loyal})
        returned = max(self.customers[spender], key=lambda each: each.dollars)
        if (await self.client.profiles.get(spender, properties=[VIP], attribute_key=KEY)).properties[
            VIP
        ].value != "yes":
            raise DifferenceError(f"customer {spender} was not marked {VIP}")
        self.customers[loyal].append(tenth)
        kept = [each for each in self.customers[spender] if each.line != returned.line]
        while vip(kept, LATER):
            kept.remove(max(kept, key=lambda each: each.dollars))
        gone = [each for each in self.customers[spender] if each not in kept]
        self.customers[spender] = kept
        result = await self.client.events.ingest([tenth.to_event(), *(each.taken_back() for each in gone)])
        self.position = result.position
        await self.same(f"customer {loyal} has fired", ["trk_purchase"], partial(self.fired, loyal))
        self.screen.note(f"customer {loyal} bought for the tenth time: the event trk_purchase is in the log, once")
        await self.check()
        self.screen.note(f"customer {spender} returned purchases and is not marked {VIP} any more")

    async def survive(self, suite: Suite) -> None:
        """SIGKILL: whoever watches goes on where they were, and is told what changed meanwhile, once."""
        self.screen.step("Kill insights with SIGKILL, start it again: watchers go on, nothing is told twice")
        told = self.follower.told.copy()
        await suite.kill("insights")
        back = Purchase(99_997, min(self.follower.applies[LAPSED]), LATER, 12, 200.0)
        result = await self.client.events.ingest([back.to_event()])
        self.position = max(self.position, result.position)
        self.customers[back.customer].append(back)
        self.screen.note(f"killed; meanwhile customer {back.customer} came back with a purchase of 200 dollars")
        await suite.start_one("insights")
        await self.check()
        changes = self.follower.told - told
        if changes != Counter({(LAPSED, "withdrawn"): 1, (SPREE, "applied"): 1}):
            raise DifferenceError(f"after the restart other changes were told than the one purchase made: {changes}")
        self.screen.good(f"told after it: {LAPSED} withdrawn, {SPREE} applied, each once, and nothing else")

    # What is asked.

    async def same(self, what: str, expected: T, ask: Callable[[], Awaitable[T]]) -> None:
        """Asks until the answer is as expected; DifferenceError when it does not become so."""
        found: T | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while True:
                    found = await ask()
                    if found == expected:
                        return
                    await asyncio.sleep(0.1)
        raise DifferenceError(f"{what} {str(found)[:200]}, not {str(expected)[:200]}")

    async def count(self, insight: str) -> int:
        """How many customers an insight applies to, as the service counts."""
        return (await self.client.insights.get(insight)).applies_count

    async def members(self) -> frozenset[str]:
        """Of the segment."""
        return frozenset([member.key_value async for member in self.client.segments.members(SLEEPING)])

    async def marked(self) -> frozenset[str]:
        """Who has the rule's property."""
        names = list(self.customers)
        profiles = await self.client.profiles.batch_get(names, properties=[VIP], attribute_key=KEY)
        return frozenset(each.key_value for each in profiles if each.properties[VIP].value == "yes")

    async def fired(self, customer: str) -> list[str]:
        """The events that were fired for a customer."""
        return [
            action.action_name
            async for action in self.client.rules.actions(LOYAL_RULE)
            if action.user == customer and action.state == rule_pb2.RULE_ACTION_STATE_DONE
        ]
