"""What time alone changes holds since the instant at which it changed, however seldom the clock is looked at."""

from random import Random

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.insights.direct.outcome import Rows
from services.insights.engine.ranges import Back
from services.insights.engine.recomputed import watched
from services.insights.engine.states import Changes, Standing
from services.insights.language.tree import Dialect
from tests.insights.asking import NOW_US
from tests.insights.engine.test_incremental_equals_direct import CHOSEN
from tests.insights.engine.worlds import CUSTOMERS, DAY_US, World, planned
from tests.insights.strategies import queries, rows

Told = list[tuple[int, int, int, int, int]]
WINDOWS = (
    "INFER a FROM transactions WHERE DATETIME_FROM(date_time, 0, 1, 0) HAVING SUM(amount) > 0",
    "INFER a FROM transactions WHERE DATETIME_FROM(date_time, 0, 0, 9) AND DATETIME_TO(date_time, 0, 0, 2)",
    "INFER a FROM transactions WHERE DATETIME_FROM(date_time, 0, 0, 3) AND DATETIME_TO(date_time, 0, 0, 5)",
    "INFER a FROM transactions HAVING SUM(SELECT amount FROM transactions WHERE DATETIME_TO(date_time, 0, 1, 0)) > "
    "SUM(SELECT 1 FROM transactions WHERE DATETIME_FROM(date_time, 0, 0, 20))",
    "INFER a FROM transactions WHERE DATETIME_FROM(date_time, 0, 0, 7) AND amount > SUM(amount) / 2",
    "INFER a FROM transactions WHERE DATETIME_FROM(date_time, 0, 0, 7) HAVING SUM(amount, 0.1) > 1",
)
WIDE = 2.0**300


def told_of(changes: Changes) -> Told:
    """In order of time; what changes at one instant in any order."""
    columns = (changes.since_us, changes.customers, changes.queries, changes.before, changes.after)
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def step_by_step(world: World, now_us: int) -> Told:
    """The clock is looked at whenever somebody's answer may change."""
    engine, told = world.engine, Told()
    while True:
        untils = [engine.untils_us(world.plans, customer) for customer in range(len(engine.customers))]
        due = min((at for each in untils for at in each.values() if at is not None), default=now_us)
        engine.advance(min(due, now_us))
        found = told_of(engine.settle())
        assert all(since == engine.now_us for since, *_ in found)
        told += found
        if due >= now_us:
            engine.advance(now_us)
            return told + told_of(engine.settle())


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    texts=st.lists(queries(), max_size=3),
    extended=st.lists(queries(Dialect.EXTENDED), max_size=1),
    batches=st.lists(rows(max_rows=6), min_size=1, max_size=4),
    jump_us=st.sampled_from((1, DAY_US, 9 * DAY_US, 40 * DAY_US)),
    wide=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_jump_of_the_clock_tells_what_many_steps_tell(
    texts: list[str], extended: list[str], batches: list[Rows], jump_us: int, wide: bool, seed: int
) -> None:
    plans = [planned(text) for text in (*texts, *WINDOWS, CHOSEN[1])]
    plans += [planned(text, Dialect.EXTENDED) for text in extended]
    # Where a window's length is computed nobody can say at which instants time changes answers.
    plans = [plan for plan in plans if all(edge.back is not None for edge in watched(plan.query))]
    jumping, stepping = World(NOW_US, plans), World(NOW_US, plans)
    for given_rows in batches:
        batch = given_rows
        if wide and batch.count:
            batch = Rows(batch.count, {**batch.columns, "amount": [WIDE, *list(batch.columns["amount"])[1:]]})
        for world in (jumping, stepping):
            world.give(batch, Random(seed))
        assert told_of(jumping.engine.settle()) == told_of(stepping.engine.settle())
        if seed % 3 == 0:
            jumping.restart()
        now_us = jumping.engine.now_us + jump_us
        jumping.engine.advance(now_us)
        if seed % 5 == 0:
            jumping.restart()
        assert told_of(jumping.engine.settle()) == step_by_step(stepping, now_us)
        jumping.check(Random(seed))
        for customer in range(len(jumping.engine.customers)):
            for slot in jumping.plans:
                since = [world.engine.states.since_us(customer, slot) for world in (jumping, stepping)]
                assert since[0] == since[1]


def test_what_applied_between_two_looks_at_the_clock_is_told() -> None:
    world = World(NOW_US, [planned(WINDOWS[1])])
    world.give(Rows(1, {"date_time": [NOW_US]}), Random(1))
    assert not world.engine.settle()
    world.engine.advance(NOW_US + 400 * DAY_US)
    told = [(since - NOW_US, after) for since, _, _, _, after in told_of(world.engine.settle())]
    assert told == [(2 * DAY_US, Standing.APPLIES), (9 * DAY_US, Standing.NOT)]
    assert len(CUSTOMERS) > 1


def test_who_looks_at_the_end_only_is_told_the_difference() -> None:
    world = World(NOW_US, [planned(WINDOWS[1])])
    world.give(Rows(1, {"date_time": [NOW_US]}), Random(1))
    world.engine.settle()
    world.engine.advance(NOW_US + 400 * DAY_US)
    assert not world.engine.settle(net=True)


@given(
    times=st.lists(st.integers(NOW_US - 10**15, NOW_US + 10**15) | st.integers(-(2**62), 2**62), max_size=8),
    back=st.builds(Back, st.integers(0, 3), st.integers(0, 30), st.integers(0, 400), st.integers(0, 30)),
)
def test_many_instants_are_passed_when_each_is(times: list[int], back: Back) -> None:

    assert back.all_pass_us(np.array(times, np.int64)).tolist() == [back.passes_us(time) for time in times]
