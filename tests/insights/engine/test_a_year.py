"""A year of a clock that is told: every state at every midnight is what a recomputation says."""

from random import Random

import pytest

from services.insights.direct.outcome import Cell
from services.insights.engine.engine import Engine
from services.insights.engine.entering import from_values, hash_of
from services.insights.engine.plan import Way
from services.insights.engine.states import Standing
from services.insights.language.sources import transactions
from tests.insights.asking import us
from tests.insights.engine.worlds import DAY_US, planned

START_US = us("2024-01-01T00:00:00")
QUERIES = (
    "INFER lately FROM transactions WHERE DATETIME_FROM(date_time, 0, 1, 0)",
    "INFER lapsed_big FROM transactions HAVING SUM(amount) > 150 AND "
    "SUM(SELECT 1 FROM transactions WHERE DATETIME_FROM(date_time, 0, 0, 90)) = 0",
    "INFER month_of_year FROM transactions WHERE DATETIME_FROM(date_time, 0, 1, 0) HAVING SUM(amount) > "
    "SUM(SELECT amount FROM transactions WHERE DATETIME_FROM(date_time, 1, 0, 0)) * 0.1",
    "INFER quarter_before FROM transactions WHERE DATETIME_FROM(date_time, 0, 6, 0) "
    "AND DATETIME_TO(date_time, 0, 3, 0) HAVING SUM(amount) > 20",
    "INFER above_mean FROM transactions WHERE DATETIME_FROM(date_time, 0, 2, 0) AND amount > SUM(amount) / 3",
)


@pytest.mark.parametrize("customers", [5, pytest.param(200, marks=pytest.mark.slow)])
def test_every_midnight_of_a_year_is_as_recomputed(customers: int) -> None:
    random = Random(customers)
    schema = transactions()
    engine = Engine([schema])
    plans = [planned(text) for text in QUERIES]
    slots = engine.put(plans)
    assert [plan.way for plan in plans].count(Way.RECOMPUTED) == 1
    bought = 0
    for day in range(366):
        midnight = START_US + day * DAY_US
        engine.advance(midnight)
        for _ in range(max(2, customers // 4)):
            # Few purchases, so that customers lapse; some come days late, some are taken back.
            if random.random() < 0.1:
                customer = f"c{random.randrange(customers)}"
                late = random.choice((0, 0, 0, 3, 40)) * DAY_US
                columns: dict[str, list[Cell]] = {
                    "date_time": [midnight - late - random.randrange(DAY_US)],
                    "amount": [random.choice((9.99, 20.0, 35.5, 120.0))],
                }
                pools, codes = engine.pools, engine.customers
                bought += 1
                new = from_values(schema, pools, codes, [customer], [str(bought)], columns)
                engine.replace_rows(schema.name, (), new)
            if bought and random.random() < 0.01:
                engine.replace_rows(schema.name, [hash_of(str(random.randint(1, bought)))], None)
        engine.settle()
        for code in range(len(engine.customers)):
            for slot, plan in zip(slots, plans, strict=True):
                expected = engine.outcome(plan.query, code, midnight).state
                assert engine.states.of(code, slot).name == expected.value, (plan.query.text, day, code)


def test_no_insight_flaps_at_month_ends() -> None:
    schema = transactions()
    engine = Engine([schema])
    engine.advance(START_US)
    slot = engine.put([planned(QUERIES[0])])[0]
    names = [f"c{hour}" for hour in range(0, 24 * 62, 7)]
    columns: dict[str, list[Cell]] = {"date_time": [START_US + hour * 3_600_000_000 for hour in range(0, 24 * 62, 7)]}
    new = from_values(schema, engine.pools, engine.customers, names, names, columns)
    engine.replace_rows(schema.name, (), new)
    told: dict[int, list[int]] = {}
    for hour in range(24 * 130):
        engine.advance(START_US + hour * 3_600_000_000)
        changes = engine.settle()
        for customer, after in zip(changes.customers.tolist(), changes.after.tolist(), strict=True):
            told.setdefault(customer, []).append(after)
    assert len(told) == len(names)
    assert all(states == [Standing.APPLIES, Standing.NOT] for states in told.values())
    assert not len(engine.states.customers(slot, Standing.APPLIES, len(names)))
