"""Random rules and logs, small enough that things collide."""

from decimal import Decimal

from hypothesis import strategies as st

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
from services.kernel.building import EventRow
from services.kernel.columns import ADD, DELETE, REPLACE

START_US = 1_612_137_600_000_000  # 2021-02-01T00:00:00Z
MINUTE_US = 60_000_000
USERS = ("ada", "bob")
IDS = tuple("abcdefgh")


def conditions(targets: st.SearchStrategy[Decimal]) -> st.SearchStrategy[Condition]:
    return st.builds(Condition, st.sampled_from(Operator), targets)


counts_of = conditions(st.sampled_from([Decimal(i) for i in range(1, 5)]))
sums_of = conditions(st.sampled_from([Decimal(text) for text in ("0.3", "1", "2.5", "-1", "0")]))
periods = st.sampled_from(
    [
        Period(),
        Period("2021-02-01", "2021-02-01"),
        Period("2021-02-01T00:02:00Z"),
        Period("", "2021-02-01T01:02:00", "Europe/Paris"),
    ]
)
actions = st.sampled_from(
    [
        RuleAction(ActionKind.FIRE_EVENT),
        RuleAction(ActionKind.SET_PROPERTY),
        RuleAction(ActionKind.SET_PROPERTY, "shared"),
        RuleAction(ActionKind.WEBHOOK, "https://example.org/hook"),
    ]
)


@st.composite
def rules(draw: st.DrawFn, rule_id: str = "r") -> Rule:
    count = draw(st.none() | counts_of)
    total = draw((st.none() if count else st.nothing()) | sums_of)
    return draw(
        st.builds(
            Rule,
            st.just(rule_id),
            st.sampled_from(("buy", "view")),
            st.just(count),
            st.just(total and SumCondition(draw(st.sampled_from(("x", ""))), total)),
            attribute=st.none() | st.just(AttributeFilter("lang", ("C++", 3))),
            period=periods,
            action=actions,
            reset=st.booleans(),
            sticky=st.booleans(),
            allow_late_fire=st.booleans(),
            allowed_lateness_us=st.sampled_from((0, MINUTE_US)),
        ).filter(lambda rule: not check_rule(rule))
    )


def rule_sets(size: int = 3) -> st.SearchStrategy[list[Rule]]:
    return st.integers(1, size).flatmap(lambda n: st.tuples(*(rules(f"r{i}") for i in range(n))).map(list))


@st.composite
def records(draw: st.DrawFn) -> EventRow:
    properties = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "lang": st.sampled_from(("C++", "C", 3, 3.5, True)),
                "x": st.sampled_from((0.1, 0.2, 1, 2.5, -1, "bad", 1e300)),
            },
        )
    )
    operation = draw(st.sampled_from((ADD, ADD, ADD, ADD, REPLACE, DELETE)))
    at_us = START_US + draw(st.integers(0, 8)) * MINUTE_US // 2
    return EventRow(
        draw(st.sampled_from(IDS)),
        draw(st.sampled_from(("buy", "buy", "view"))),
        at_us,
        at_us + draw(st.sampled_from((0, 0, 30_000_000, -30_000_000, 5 * MINUTE_US))),
        draw(st.sampled_from([{"user_id": user} for user in USERS] + [{}])),
        properties=properties,
        operation=operation,
        revision=0 if operation == ADD else draw(st.integers(1, 3)),
    )


def logs(size: int = 14) -> st.SearchStrategy[list[EventRow]]:
    return st.lists(records(), max_size=size)
