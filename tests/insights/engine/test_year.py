"""A year of a clock: states that only time and late news change are, at every midnight, what the rows say."""

from collections import Counter
from itertools import groupby

import pytest

from services.insights.direct.evaluator import evaluate
from services.insights.engine.engine import Engine
from services.insights.engine.plan import Way
from services.insights.engine.states import Changes, Standing
from services.insights.language.sources import transactions
from services.insights.language.tree import Dialect
from tests.insights.asking import us
from tests.insights.engine.worlds import planned
from tests.insights.engine.years import DAY_US, FIRST_US, HOUR_US, LAST_US, Record, Row, Truth, give, records, table_of

GAMBLED = (
    'category_l1 = "gambling_and_lotteries" AND credit_debit_indicator = "debit" AND currency = "GBP" '
    "AND DATETIME_FROM(date_time, 0, 1, 0)"
)
INCOME = 'SELECT amount FROM transactions WHERE "income" IN tags AND currency = "GBP" AND DATETIME_FROM(date_time, '
BIG = f"ABS(SUM(amount)) > SUM({INCOME}0, 1, 0)) * 0.1"
SPENT = 'SELECT amount FROM transactions WHERE credit_debit_indicator = "debit"'
QUERIES = (
    # The document's three.
    f"INFER active_gambler FROM transactions WHERE {GAMBLED}",
    f"INFER big_active_gambler FROM transactions WHERE {GAMBLED} HAVING {BIG}",
    f"INFER segment_big_active_gambler FROM transactions WHERE {GAMBLED} HAVING {BIG} "
    f"AND SUM({INCOME}1, 0, 0)) > 4000 AND SUM({INCOME}1, 0, 0)) < 44000",
    # A lapsed big spender; somebody who spends this month over a tenth of the year.
    'INFER lapsed FROM transactions WHERE credit_debit_indicator = "debit" AND DATETIME_FROM(date_time, 0, 0, 90) '
    f"HAVING SUM(amount) = 0 AND ABS(SUM({SPENT})) > 100",
    'INFER spree FROM transactions WHERE credit_debit_indicator = "debit" AND DATETIME_FROM(date_time, 0, 1, 0) '
    f"HAVING ABS(SUM(amount)) > ABS(SUM({SPENT} AND DATETIME_FROM(date_time, 1, 0, 0))) * 0.1",
    # Windows of days, months and years, and rows that come to count only when they are old enough.
    "INFER days FROM transactions WHERE DATETIME_FROM(date_time, 0, 0, 3) AND amount < 0",
    "INFER quarter FROM transactions WHERE DATETIME_FROM(date_time, 0, 3, 0) HAVING SUM(amount) < 0",
    "INFER year FROM transactions WHERE DATETIME_FROM(date_time, 1, 0, 0) AND amount < 0 HAVING SUM(amount) < -60",
    'INFER back FROM transactions WHERE DATETIME_TO(date_time, 0, 1, 0) AND credit_debit_indicator = "debit" '
    f"HAVING ABS(SUM(amount)) * 0.2 < ABS(SUM({SPENT} AND DATETIME_FROM(date_time, 0, 1, 0)))",
    "INFER between FROM transactions WHERE DATETIME_FROM(date_time, 0, 4, 0) AND DATETIME_TO(date_time, 0, 0, 45) "
    "HAVING SUM(amount) < -20",
    'INFER salary FROM transactions WHERE "income" IN tags AND DATETIME_FROM(date_time, 0, 0, 31) '
    "HAVING SUM(amount) >= 400",
    'INFER merchants FROM transactions WHERE merchant IN ("CDNOW", "Lotto") AND DATETIME_FROM(date_time, 0, 2, 10)',
    # Recomputed from the rows.
    "INFER large FROM transactions WHERE DATETIME_FROM(date_time, 0, 6, 0) AND ABS(amount) > ABS(SUM(amount)) / 3",
)
EXTENDED = (
    "INFER quiet FROM transactions WHERE DATETIME_FROM(date_time, 0, 1, 0) HAVING COUNT(amount) = 0 "
    f"AND AVG({SPENT}) < -10",
)


def test_every_midnight_of_a_year_every_state_is_what_the_rows_say() -> None:
    plans = [*map(planned, QUERIES), *(planned(text, Dialect.EXTENDED) for text in EXTENDED)]
    assert {plan.query.name for plan in plans if plan.way is Way.RECOMPUTED} == {"large", "quiet"}
    engine, truth = Engine([transactions()]), Truth()
    slots = dict(zip(engine.put(plans), plans, strict=True))
    told: dict[tuple[int, int], int] = {}
    changed: Counter[tuple[str, int]] = Counter()
    coming = records(seed=11, customers=12)

    def tell(changes: Changes) -> None:
        columns = (changes.queries, changes.customers, changes.before, changes.after)
        for slot, customer, before, after in zip(*(column.tolist() for column in columns), strict=True):
            assert told.get((slot, customer), Standing.NOT) == (before or Standing.NOT)
            assert before != after
            told[slot, customer] = after
            changed[slots[slot].query.name, after] += 1

    def hear(until_us: int) -> None:
        """What arrives until an instant, each at its time; the clock stands at its time then."""
        nonlocal coming
        arrived = [record for record in coming if record.arrives_us <= until_us]
        coming = coming[len(arrived) :]
        for at_us, group in groupby(arrived, key=lambda record: record.arrives_us):
            at_once: list[Record] = list(group)
            truth.take(at_once)
            engine.advance(at_us)
            give(engine, at_once)
            tell(engine.settle())

    hear(FIRST_US - 1)
    midnights = 0
    for now_us in range(FIRST_US, LAST_US + 1, DAY_US):
        hear(now_us - 1)
        engine.advance(now_us)
        tell(engine.settle())
        for name, tables in truth.tables().items():
            customer = engine.customers.find(name)
            assert customer is not None, "who has rows is known"
            for slot, plan in slots.items():
                expected = evaluate(plan.query, tables, now_us).state
                assert engine.states.of(customer, slot).name == expected.value, (plan.query.text, name, now_us)
                assert Standing(told.get((slot, customer), Standing.NOT)).name == expected.value
        midnights += 1
    assert midnights == 366
    # The year had something to say of every query, both ways.
    for plan in plans:
        assert changed[plan.query.name, Standing.APPLIES] >= 3, plan.query.name
        assert changed[plan.query.name, Standing.NOT] >= 3, plan.query.name
    assert len(truth.customers) == 12


WINDOWS = ((0, 1, 0), (0, 2, 0), (0, 3, 0), (0, 12, 0), (1, 0, 0), (0, 1, 1), (0, 0, 30))
TIMES = (0, 9 * HOUR_US + HOUR_US // 2, DAY_US - 1)


@pytest.mark.parametrize("year", [2023, 2024])
def test_at_month_ends_each_row_leaves_its_window_once(year: int) -> None:
    """29 January to 31 March, in a leap year and none: just before, at, and just after each instant that is named."""
    start_us, end_us = us(f"{year}-01-25T00:00:00"), us(f"{year}-04-02T00:00:00")
    plans = [
        planned(f"INFER a FROM transactions WHERE DATETIME_{which}(date_time, {', '.join(map(str, window))})")
        for window in WINDOWS
        for which in ("FROM", "TO")
    ]
    # Recomputed from its rows: its timers must be the same.
    plans.append(planned("INFER a FROM transactions WHERE DATETIME_FROM(date_time, 0, 1, 0) AND amount = SUM(amount)"))
    assert plans[-1].way is Way.RECOMPUTED
    engine = Engine([transactions()])
    slots = engine.put(plans)
    days = [day * DAY_US + at for day in range(-40, 66) for at in TIMES]
    times = {f"{number}": start_us + offset for number, offset in enumerate(days)}
    times |= {f"{number}, a year before": time - 365 * DAY_US for number, time in times.items()}
    rows: dict[str, Row] = {name: {"date_time": time, "amount": 1.0} for name, time in times.items() if time < start_us}
    engine.advance(start_us)
    give(engine, [Record(start_us, name, name, row) for name, row in rows.items()])
    engine.settle()
    codes = {name: engine.customers.find(name) for name in rows}
    flips: Counter[tuple[int, int]] = Counter()

    def look(now_us: int) -> None:
        engine.advance(now_us)
        changes = engine.settle()
        assert not changes or now_us in named, "time changes nothing at other instants"
        flips.update(zip(changes.queries.tolist(), changes.customers.tolist(), strict=True))

    due = {engine.until_us(slot, code or 0) for slot in slots for code in codes.values()}
    named = {each for each in due if each is not None and each <= end_us}
    for instant in sorted(named):
        for now_us in (instant - 1, instant, instant + 1):
            look(now_us)
    assert flips
    assert max(flips.values()) == 1
    for name, row in rows.items():
        code, tables = codes[name] or 0, {"transactions": table_of([row])}
        for slot, plan in zip(slots, plans, strict=True):
            before, after = (evaluate(plan.query, tables, now_us).state for now_us in (start_us, engine.now_us))
            assert engine.states.of(code, slot).name == after.value
            assert flips[slot, code] == (before is not after)
