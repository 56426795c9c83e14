"""The engine's states are those of the direct evaluator, whatever happened."""

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.insights.direct.outcome import Rows
from services.insights.engine.plan import Way
from services.insights.engine.states import Standing
from services.insights.language.tree import Dialect
from tests.insights.asking import NOW_US
from tests.insights.engine.worlds import World, planned
from tests.insights.strategies import queries, rows

# What the grammar's own strategy makes seldom: totals over several blocks, SELECTs with literals, windows both ways.
CHOSEN = (
    'INFER a FROM transactions WHERE category_l1 = "a"',
    'INFER a FROM transactions WHERE category_l1 = "a" AND DATETIME_FROM(date_time, 0, 1, 0)',
    "INFER a FROM transactions WHERE DATETIME_FROM(date_time, 1, 0, 0) AND DATETIME_TO(date_time, 0, 0, 30)",
    "INFER a FROM transactions WHERE DATETIME_TO(date_time, 0, 0, 3)",
    'INFER a FROM transactions WHERE "a" IN tags HAVING SUM(amount) > 1',
    "INFER a FROM transactions HAVING SUM(amount, 0.1, 0.2) <> SUM(0.1, amount, 0.2) AND TRUE",
    "INFER a FROM transactions HAVING SUM(1, 2, 3) = 6",
    "INFER a FROM transactions HAVING ABS(SUM(amount)) > SUM(SELECT amount FROM transactions WHERE "
    '"income" IN tags AND DATETIME_FROM(date_time, 0, 1, 0)) * 0.1',
    "INFER a FROM transactions HAVING SUM(amount, (SELECT amount FROM transactions WHERE amount < 0) * 2) < 0",
    "INFER a FROM transactions HAVING (SELECT SUM(amount) FROM transactions WHERE DATETIME_FROM(date_time, 0, 0, 1)) "
    "IN (0, 1, 2, 3, 10)",
    "INFER a FROM transactions HAVING SUM(amount / amount) / SUM(amount) < 1",
    "INFER a FROM transactions WHERE amount > SUM(amount) / 2",
    "INFER a FROM transactions WHERE amount = (SELECT amount FROM transactions "
    "WHERE DATETIME_FROM(date_time, 1, 0, 0))",
    "INFER a FROM transactions WHERE currency < category_l1 AND merchant <> currency",
    "INFER a FROM transactions WHERE DATETIME_FROM(date_time, 0, SUM(amount), 0)",
)


def test_most_queries_are_kept_incrementally() -> None:
    recomputed = [each for each in map(planned, CHOSEN) if each.way is Way.RECOMPUTED]
    assert len(recomputed) <= 3
    assert all(each.reason for each in recomputed)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    texts=st.lists(queries(), min_size=1, max_size=4),
    extended=st.lists(queries(Dialect.EXTENDED), max_size=2),
    batches=st.lists(rows(max_rows=5), min_size=3, max_size=10),
    random=st.randoms(use_true_random=False),
)
def test_every_state_is_what_the_rows_say(
    texts: list[str], extended: list[str], batches: list[Rows], random: Random
) -> None:
    plans = [planned(text) for text in texts] + [planned(text, Dialect.EXTENDED) for text in extended]
    _walk(World(NOW_US, plans), batches, random)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(batches=st.lists(rows(max_rows=6), min_size=4, max_size=10), random=st.randoms(use_true_random=False))
def test_every_kind_of_plan_holds(batches: list[Rows], random: Random) -> None:
    _walk(World(NOW_US, [planned(text) for text in CHOSEN]), batches, random)


def _walk(world: World, batches: list[Rows], random: Random) -> None:
    for batch in batches:
        for _ in range(random.randint(0, 2)):
            random.choice(
                [
                    lambda: world.wait(random),
                    lambda: world.wait(random),
                    lambda: world.take(random),
                    world.restart,
                    lambda: world.reconsider(random),
                ]
            )()
        world.give(batch, random)
        if random.random() < 0.7:
            world.engine.settle()
            world.check(random)
    world.engine.settle()
    world.check(random)


@pytest.mark.parametrize("dialect", list(Dialect))
def test_a_change_is_told_once(dialect: Dialect) -> None:
    world = World(NOW_US, [planned("INFER a FROM transactions WHERE amount > 0", dialect)])
    random = Random(1)
    world.give(Rows(1, {"amount": [5.0], "date_time": [NOW_US]}), random)
    assert world.engine.settle().after.tolist() == [Standing.APPLIES]
    assert not world.engine.settle()
    world.take(random)
    assert world.engine.settle().after.tolist() == [Standing.NOT]
