"""Long random histories in which conditions are met, lapse, and are met again, often."""

from collections.abc import Iterator
from decimal import Decimal
from random import Random

from services.insights.rules.definitions import (
    ActionKind,
    AttributeFilter,
    Condition,
    Operator,
    Period,
    Rule,
    RuleAction,
    SumCondition,
)
from services.insights.rules.validation import check_rule
from services.kernel.building import EventRow, Scalar
from services.kernel.columns import ADD, DELETE, REPLACE

from .strategies import MINUTE_US, START_US

LEVELS = tuple(operator for operator in Operator)
PERIODS = (Period(), Period(), Period("2021-02-01", "2021-02-01"), Period("2021-02-01T00:20:00Z", ""))
WEBHOOK = RuleAction(ActionKind.WEBHOOK, "https://example.org/hook")
ACTIONS = (
    RuleAction(ActionKind.FIRE_EVENT),
    RuleAction(ActionKind.SET_PROPERTY),
    RuleAction(ActionKind.SET_PROPERTY, "shared"),
    WEBHOOK,
)


def random_rules(random: Random, size: int) -> list[Rule]:
    """So many valid rules."""
    rules: list[Rule] = []
    while len(rules) < size:
        count = Condition(random.choice(LEVELS), Decimal(random.randint(1, 6)))
        total = Condition(random.choice(LEVELS), Decimal(random.choice(("0.3", "1", "2.5", "4", "0"))))
        which = random.random()
        rule = Rule(
            f"r{len(rules)}",
            random.choice(("buy", "buy", "view")),
            count if which < 0.7 else None,
            SumCondition("x", total) if which > 0.5 else None,
            attribute=random.choice((None, None, AttributeFilter("lang", ("C++",)))),
            period=random.choice(PERIODS),
            action=random.choice(ACTIONS),
            reset=random.random() < 0.4,
            sticky=random.random() < 0.3,
            allow_late_fire=random.random() < 0.3,
            allowed_lateness_us=random.choice((0, MINUTE_US, 20 * MINUTE_US)),
        )
        if not check_rule(rule):
            rules.append(rule)
    return rules


def random_log(random: Random, size: int, users: tuple[str, ...]) -> Iterator[EventRow]:
    """Events a minute apart or less, some late, some ahead, some repeated, corrected or deleted, some of nobody."""
    at_us = START_US
    ids: list[str] = []
    for number in range(size):
        at_us += random.randint(0, MINUTE_US)
        operation, event_id, revision = ADD, f"e{random.randrange(10**6):06d}", 0
        if ids and random.random() < 0.25:
            event_id = random.choice(ids[-20:])
            operation = random.choice((ADD, REPLACE, REPLACE, DELETE))
            revision = number if operation != ADD else 0
        ids.append(event_id)
        shift = random.choice((0, 0, 0, 0, -1, -10, -60, 2)) * MINUTE_US
        properties: dict[str, Scalar | None] = {"lang": random.choice(("C++", "C"))}
        if random.random() < 0.9:
            properties["x"] = random.choice((0.1, 0.2, 0.2, 1, 2.5, -1, -2.5))
        elif random.random() < 0.2:
            properties["x"] = "bad"
        name = random.choice(("buy", "buy", "view"))
        keys = {"user_id": random.choice(users)} if random.random() < 0.95 else {}
        yield EventRow(
            event_id,
            name,
            at_us + shift,
            at_us,
            keys,
            properties=properties,
            operation=operation,
            revision=revision,
        )
