"""What the demo wants to know of a customer, as definitions, and as plain Python that computes it another way."""

import math
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from examples.demo.cdnow import KEY, NAME, VENDOR, VERSION, Purchase
from inkling import AtomicProperty, Attribute, AttributeKey, Event, Service, StreamAttributeGroup
from inkling.definitions import Aggregation
from inkling.values import AttributeValue

GROUP, SERVICE = "purchases", "shop"
OWNER = "demo@example.com"
PERIODS: dict[str, timedelta | None] = {"30d": timedelta(days=30), "90d": timedelta(days=90), "life": None}

Direct = Callable[[Sequence[Purchase]], AttributeValue]
"""Computes a value from the purchases in the window, oldest first; there is at least one."""

MEASURES: dict[str, tuple[Aggregation, str, str | None, Direct]] = {
    "purchases": ("counter", "int64", None, len),
    "spent": ("sum", "double", "dollars", lambda seen: math.fsum(each.dollars for each in seen)),
    "mean_spent": ("mean", "double", "dollars", lambda seen: math.fsum(each.dollars for each in seen) / len(seen)),
    "first_spent": ("first", "double", "dollars", lambda seen: seen[0].dollars),
    "last_spent": ("last", "double", "dollars", lambda seen: seen[-1].dollars),
    "basket_sizes": ("count_distinct", "int64", "discs", lambda seen: len({each.discs for each in seen})),
}
"""By name: aggregation, type, property and the direct computation."""


def define() -> tuple[StreamAttributeGroup, Service]:
    """The group of 18 attributes, six over each of three windows, and the service that reads it."""
    purchase = Event(vendor=VENDOR, name=NAME, version=VERSION)
    attributes = [
        Attribute(
            name=f"{measure}_{suffix}",
            type=kind,
            events=[purchase],
            aggregation=aggregation,
            property=None if place is None else AtomicProperty(name=place),
            property_type="int64" if aggregation == "count_distinct" else None,
            period=period,
        )
        for suffix, period in PERIODS.items()
        for measure, (aggregation, kind, place, _) in MEASURES.items()
    ]
    key = AttributeKey(name=KEY, description="The customer.")
    group = StreamAttributeGroup(name=GROUP, version=1, attribute_key=key, owner=OWNER, attributes=attributes)
    return group, Service(name=SERVICE, attribute_groups=[group], owner=OWNER)


def compute(purchases: Sequence[Purchase], instant: datetime) -> dict[str, AttributeValue]:
    """One customer's values at an instant, from all of their purchases in order: the windows are [t - period, t)."""
    values: dict[str, AttributeValue] = {}
    for suffix, period in PERIODS.items():
        seen = [each for each in purchases if each.at < instant and (period is None or each.at >= instant - period)]
        for measure, (_, _, _, direct) in MEASURES.items():
            values[f"{measure}_{suffix}"] = direct(seen) if seen else None
    return values
