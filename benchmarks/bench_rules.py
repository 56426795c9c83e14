"""Rules kept true: events a second with 1, 10 and 100 rules."""

import time
from decimal import Decimal

from benchmarks.tables import Table, median_of
from benchmarks.web_events import KEY, VENDOR, Traffic
from services.insights.rules.definitions import (
    ActionKind,
    AttributeFilter,
    Condition,
    Operator,
    Rule,
    RuleAction,
    SumCondition,
)
from services.insights.rules.engine import RuleEngine, running_instants
from services.kernel.columns import EventBatch
from services.kernel.dedup import Deduplicator

BATCH, BATCHES, ROUNDS = 4_096, 40, 3


def run() -> list[Table]:
    """Measures and tabulates."""
    table = Table(
        "Rules, events a second",
        ["rules", "sessions", "scattered", "counted a second", "floor"],
        "Web events in batches of 4,096, de-duplicated and applied on one core, over 10,000 visitors: those of a "
        "visitor together as in traffic, or each of another one. Two rules in five are of page views, two of page "
        "pings, one of forms; half of them filter by a property, one in ten sums. Counted: "
        "an event once for each rule that counts it, in sessions. Floor: one pass over the columns "
        "that they read.",
    )
    for count in (1, 10, 100):
        session, counted, floor = _measure(count, scattered=False)
        table.add("rules", f"{count:,}", session, _measure(count, scattered=True)[0], counted, floor)
    return [table]


def rules(count: int) -> list[Rule]:
    """So many rules."""
    names = ("page_view", "page_ping", "page_view", "page_ping", "submit_form")
    kinds = (RuleAction(ActionKind.FIRE_EVENT), RuleAction(ActionKind.SET_PROPERTY))
    operators = (Operator.GREATER_OR_EQUAL, Operator.EQUAL, Operator.EVERY)
    made = []
    for i in range(count):
        target = Condition(operators[i % 3], Decimal(10 * (i % 20 + 1)))
        medium = AttributeFilter("refr_medium", (("search", "social", "internal")[i % 3],))
        made.append(
            Rule(
                f"r{i}",
                names[i % 5],
                None if i % 10 == 9 else target,
                SumCondition("amount", Condition(Operator.GREATER, Decimal(1_000))) if i % 10 == 9 else None,
                event_vendor=VENDOR,
                attribute=medium if i % 2 else None,
                action=kinds[i % 2],
                reset=i % 4 == 0,
                user_key=KEY,
            )
        )
    return made


def _measure(count: int, *, scattered: bool) -> tuple[float, float, float]:
    """Events a second, counted ones a second, and the floor."""
    traffic = Traffic(scattered=scattered)
    batches = [EventBatch(traffic.batch(BATCH)) for _ in range(BATCHES)]
    speeds, counted, floors = [], [], []
    for _ in range(ROUNDS):
        engine, deduplicator = RuleEngine(rules(count)), Deduplicator(7 * 86_400_000_000)
        began = time.process_time()
        for batch in batches:
            actions = deduplicator.resolve(batch).actions
            engine.apply(batch, actions, running_instants(batch, actions, of_log=False, before_us=engine.as_of_us))
            engine.take_actions()
        seconds = time.process_time() - began
        speeds.append(BATCH * BATCHES / seconds)
        counted.append(engine.evaluated / seconds)
        began = time.process_time()
        for batch in batches:
            for name in ("event_type", f"k.{KEY}", "a.refr_medium:s"):
                strings = batch.strings(name)
                assert strings is not None
                strings.codes.sum()
            batch.occurred_at.sum()
        floors.append(BATCH * BATCHES / (time.process_time() - began))
    return median_of(speeds), median_of(counted), median_of(floors)


if __name__ == "__main__":
    for each in run():
        each.print()
