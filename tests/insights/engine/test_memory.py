"""Rows are let go when no query looks at them any more: nobody can tell."""

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.insights.direct.outcome import Rows
from services.insights.engine.memory import holds, trim
from services.insights.engine.snapshots import SchemaChangedError
from tests.insights.asking import NOW_US
from tests.insights.engine.test_since import WINDOWS, told_of
from tests.insights.engine.worlds import DAY_US, World, planned
from tests.insights.strategies import rows

WINDOWED = [planned(WINDOWS[number]) for number in (0, 1, 2, 5)]
EVERYTHING = planned("INFER a FROM transactions HAVING SUM(amount) > 0")
RECOMPUTED = planned(WINDOWS[4])
YEAR = planned("INFER a FROM transactions WHERE DATETIME_FROM(date_time, 1, 0, 0)")


class Never(Random):
    """Chance that replaces no row."""

    def random(self) -> float:
        return 0.9


def let_go(world: World, age_us: int = 0) -> int:
    engine = world.engine
    return trim(engine.sources, engine.queries.plans, engine.now_us - age_us, engine.now_us)


def aged(*ages: int) -> Rows:
    return Rows(len(ages), {"date_time": [NOW_US - days * DAY_US for days in ages], "amount": [1.0] * len(ages)})


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    batches=st.lists(rows(max_rows=6), min_size=2, max_size=8),
    jumps_us=st.lists(st.sampled_from((1, DAY_US, 7 * DAY_US, 31 * DAY_US)), min_size=8, max_size=8),
    seed=st.integers(0, 99),
)
def test_rows_that_are_let_go_change_nothing(batches: list[Rows], jumps_us: list[int], seed: int) -> None:
    whole, trimmed = World(NOW_US, WINDOWED), World(NOW_US, WINDOWED)
    randoms = Random(seed), Random(seed)
    for batch, jump_us in zip(batches, jumps_us, strict=False):
        told = []
        for world, random in zip((whole, trimmed), randoms, strict=True):
            world.give(batch, random)
            if seed % 2:
                world.take(random)
            found = told_of(world.engine.settle())
            world.engine.advance(world.engine.now_us + jump_us)
            told.append(found + told_of(world.engine.settle()))
        let_go(trimmed)
        if seed % 3 == 0:
            trimmed.restart()
        assert told[0] == told[1]
        trimmed.check(Random(seed))
    for customer in range(len(whole.engine.customers)):
        assert whole.engine.untils_us(whole.plans, customer) == trimmed.engine.untils_us(whole.plans, customer)


def test_only_rows_behind_every_window_and_older_than_asked_are_let_go() -> None:
    world = World(NOW_US, WINDOWED)
    world.give(aged(1, 20, 40, 100, 500), Never())
    assert let_go(world, 200 * DAY_US) == 0
    assert let_go(world, 60 * DAY_US) == 2
    assert let_go(world) == 1
    assert len(world.engine.sources["transactions"]) == 2


@pytest.mark.parametrize("plan", [EVERYTHING, RECOMPUTED])
def test_a_query_that_may_look_at_any_row_keeps_all_of_them(plan: object) -> None:
    world = World(NOW_US, [*WINDOWED, plan])  # type: ignore[list-item]
    world.give(aged(100, 500), Never())
    assert let_go(world) == 0


def test_a_query_that_looks_further_back_than_what_is_left_needs_the_log() -> None:
    world = World(NOW_US, WINDOWED)
    world.give(aged(1, 100, 300, 500), Never())
    assert holds(world.engine.sources, YEAR, NOW_US)
    assert let_go(world) == 3
    assert not holds(world.engine.sources, YEAR, NOW_US)
    assert all(holds(world.engine.sources, plan, NOW_US) for plan in WINDOWED)
    world.restart()
    assert not holds(world.engine.sources, EVERYTHING, NOW_US)
    world.plans[max(world.plans) + 1] = YEAR
    with pytest.raises(SchemaChangedError):
        world.restart()
