"""Training sets against a slow and obvious computation: random events with corrections, moments and goals."""

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.features.datasets.spec import (
    Converted,
    EventGoal,
    Goal,
    Instants,
    Moments,
    ReturnGoal,
    SinceCreation,
    SumGoal,
)
from services.features.definitions import AtomicProperty, EventSelector
from services.kernel.building import EventRow
from services.kernel.columns import ADD, DELETE, REPLACE
from tests.features.test_dataset_rows import T0, computed, event, job

NOW = 24
PAY = (EventSelector("shop", "pay"),)
GOALS = st.one_of(
    st.integers(1, 3).map(lambda times: EventGoal(PAY, times=times)),
    st.integers(1, 6).map(lambda least: SumGoal(AtomicProperty("price"), float(least), PAY)),
    st.integers(1, 8).map(lambda span: ReturnGoal(span, PAY)),
)
MOMENTS = st.one_of(
    st.lists(st.integers(0, 12), min_size=1, max_size=3, unique=True).map(lambda spans: SinceCreation(tuple(spans))),
    st.lists(st.integers(0, NOW), min_size=1, max_size=3, unique=True).map(
        lambda times: Instants(tuple(T0 + time for time in times))
    ),
)
VERSIONS = st.tuples(
    st.sampled_from(["ada", "bob"]),
    st.integers(0, NOW + 2),
    st.sampled_from(["buy", "pay", "pay"]),
    st.sampled_from([1.0, 2.0, -1.0, None]),
)
RECORDS = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from([ADD, ADD, ADD, REPLACE, DELETE]), VERSIONS), max_size=14
)


def log_of(
    records: Sequence[tuple[int, int, tuple[str, int, str, float | None]]],
) -> tuple[list[EventRow], list[EventRow]]:
    """The records of a log, and the events that stand at its end."""
    rows: list[EventRow] = []
    standing: dict[int, EventRow | None] = {}
    revisions: dict[int, int] = {}
    for number, operation, (user, at, name, price) in records:
        known = number in revisions
        if known == (operation == ADD) or (known and standing[number] is None):
            continue
        revisions[number] = revisions.get(number, -1) + 1
        row = event(user, T0 + at, name, price, event_id=f"e{number}", operation=operation, revision=revisions[number])
        rows.append(row)
        standing[number] = None if operation == DELETE else row
    return rows, [row for row in standing.values() if row is not None]


def expected(
    events: list[EventRow], moments: Moments, goal: Goal, horizon: int
) -> list[tuple[str, int, int, bool | None]]:
    """(user, moment, buys, label) of each row, one after the other."""
    result = []
    for user in sorted({each.keys["user_id"] for each in events}):
        mine = sorted(
            (each for each in events if each.keys["user_id"] == user and each.occurred_at_us <= horizon),
            key=lambda each: (each.occurred_at_us, each.event_id),
        )
        if not mine:
            continue
        created = mine[0].occurred_at_us
        pays = [each for each in mine if each.name == "pay"]
        if isinstance(moments, SinceCreation):
            anchors = [(created + span, created + span + (span > 0)) for span in sorted(moments.spans_us)]
            anchors = [each for each in anchors if each[0] <= horizon]
        else:
            assert isinstance(moments, Instants)
            anchors = [(at, at) for at in sorted(moments.instants_us) if created <= at]
        for anchor, t in anchors:
            window = goal.label_window_us
            end = horizon if window is None else anchor + window
            if goal.converted is Converted.KEEP:
                label = met([each for each in pays if anchor < each.occurred_at_us <= end], goal, anchor)
            else:
                times = [pays[i].occurred_at_us for i in range(len(pays)) if met(pays[: i + 1], goal, created)]
                # Those of one instant count together.
                first = min((at for at in times if met(upto(pays, at), goal, created)), default=None)
                if first is not None and first <= anchor:
                    continue
                label = first is not None and first <= end
            unknown = anchor + (window or 0) > horizon
            buys = sum(each.name == "buy" and each.occurred_at_us < t for each in mine)
            result.append((user, anchor - T0, buys, None if unknown else label))
    return result


def upto(pays: list[EventRow], at: int) -> list[EventRow]:
    return [each for each in pays if each.occurred_at_us <= at]


def met(pays: list[EventRow], goal: Goal, since: int) -> bool:
    """Whether a goal is met by some events."""
    wanted = goal.achievement
    if isinstance(wanted, EventGoal):
        return len(pays) >= wanted.times
    if isinstance(wanted, SumGoal):
        prices = [price for each in pays if isinstance(price := each.properties["price"], float)]
        return bool(prices) and sum(prices) >= wanted.at_least
    assert isinstance(wanted, ReturnGoal)
    return any(each.occurred_at_us >= since + wanted.after_us for each in pays)


@settings(max_examples=30, deadline=None)
@given(RECORDS, MOMENTS, GOALS, st.sampled_from(Converted), st.one_of(st.none(), st.integers(8, 12)))
def test_rows_and_labels_are_those_of_a_slow_computation(
    records: list[Any], moments: Moments, achievement: Any, converted: Converted, window: int | None
) -> None:
    if converted is Converted.KEEP and window is None:
        window = 8
    goal = Goal(achievement, converted, window)
    rows, standing = log_of(records)
    wanted = job(rows, moments, goal, as_of_us=T0 + NOW)
    found, manifest, _ = asyncio.run(computed(wanted))
    told = [(row["user_id"], round(row["moment"].timestamp() * 1e6) - T0, row["buys"], row["goal"]) for row in found]
    assert told == expected(standing, moments, goal, T0 + NOW)
    assert manifest["row_count"] == len(told)
