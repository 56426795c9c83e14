"""What the demo wants to be told of customers, as INFER, rules and a segment, and in plain Python, another way."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from examples.demo.cdnow import KEY, NAME, VENDOR, VERSION, Purchase
from inkling.ingest.v1.collection_pb2 import FIELD_TYPE_INTEGER, FIELD_TYPE_NUMBER, Collection, Field
from inkling.ingest.v1.event_pb2 import EventType
from inkling.insights.v1 import rule_pb2
from inkling.types.v1.value_pb2 import Value

SOURCE = "purchases"
LAPSED, SPREE = "lapsed_big_spender", "spree"
QUERIES = {
    LAPSED: "INFER lapsed_big_spender FROM purchases HAVING SUM(dollars) > 500 "
    "AND SUM(SELECT 1 FROM purchases WHERE DATETIME_FROM(date_time, 0, 0, 90)) = 0",
    SPREE: "INFER spree FROM purchases WHERE DATETIME_FROM(date_time, 0, 1, 0) "
    "HAVING SUM(dollars) > SUM(SELECT dollars FROM purchases WHERE DATETIME_FROM(date_time, 1, 0, 0)) * 0.1",
}
MEANINGS = {
    LAPSED: "over 500 dollars in all, nothing in 90 days",
    SPREE: "this month over 10 % of the year",
}
VIP, SLEEPING = "vip", "sleeping_vips"
VIP_RULE, LOYAL_RULE = "vip", "loyal"
VIP_DOLLARS, EVERY = 1_000, 10
SEGMENT = f"properties.{VIP} = 'yes' and purchases_90d is null"

Customers = Mapping[str, Sequence[Purchase]]


def collection() -> Collection:
    """The purchases as a declared collection: what INFER reads after FROM."""
    fields = [Field(name="discs", type=FIELD_TYPE_INTEGER), Field(name="dollars", type=FIELD_TYPE_NUMBER)]
    kind = EventType(vendor=VENDOR, name=NAME, version=VERSION)
    return Collection(event_type=kind, fields=fields, key_fields={KEY: "customer"})


def rules() -> dict[str, rule_pb2.Rule]:
    """One rule that sets a property while it holds, and one that fires an event each time."""
    spent = rule_pb2.RuleCondition(operator=rule_pb2.RULE_OPERATOR_GREATER_OR_EQUAL, target=str(VIP_DOLLARS))
    tenth = rule_pb2.RuleCondition(operator=rule_pb2.RULE_OPERATOR_EVERY, target=str(EVERY))
    mark = rule_pb2.SetProperty(property=VIP, value=Value(string_value="yes"))
    return {
        VIP_RULE: rule_pb2.Rule(
            description=f"has spent {VIP_DOLLARS:,} dollars, also before there was the rule: sets {VIP}",
            event_name=NAME,
            user_key=KEY,
            sum=rule_pb2.SumCondition(metric="dollars", condition=spent),
            action=rule_pb2.RuleAction(set_property=mark),
            act_on_past=True,
        ),
        LOYAL_RULE: rule_pb2.Rule(
            description=f"each {EVERY}th purchase from now on: fires an event",
            event_name=NAME,
            user_key=KEY,
            count=tenth,
            action=rule_pb2.RuleAction(fire_event=rule_pb2.FireEvent()),
        ),
    }


def lapsed(bought: Sequence[Purchase], now: datetime) -> bool:
    """See LAPSED: the instant 90 days ago itself is outside."""
    return total(bought) > 500 and not any(each.at > now - timedelta(days=90) for each in bought)


def spree(bought: Sequence[Purchase], now: datetime) -> bool:
    """See SPREE. The days of `now` and of its month before are in every month, so the calendar is easy here."""
    month, year = now.replace(month=now.month - 1), now.replace(year=now.year - 1)
    return (
        total([each for each in bought if each.at > month]) > total([each for each in bought if each.at > year]) * 0.1
    )


def vip(bought: Sequence[Purchase], now: datetime) -> bool:
    """See the rule: sums of rules are decimal."""
    return sum((Decimal(str(each.dollars)) for each in bought), Decimal()) >= VIP_DOLLARS


def sleeping(bought: Sequence[Purchase], now: datetime) -> bool:
    """See SEGMENT. Windows of attributes end just after the newest event, and have their first instant inside."""
    start = now + timedelta(microseconds=1) - timedelta(days=90)
    return vip(bought, now) and not any(each.at >= start for each in bought)


DIRECT: dict[str, Callable[[Sequence[Purchase], datetime], bool]] = {LAPSED: lapsed, SPREE: spree}


def total(bought: Sequence[Purchase]) -> float:
    """Dollars, summed exactly and rounded once."""
    return math.fsum(each.dollars for each in bought)


def who(customers: Customers, holds: Callable[[Sequence[Purchase], datetime], bool], now: datetime) -> frozenset[str]:
    """The customers of whom something holds at an instant."""
    return frozenset(customer for customer, bought in customers.items() if holds(bought, now))
