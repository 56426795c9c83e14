"""INFER queries kept true: processor time of a batch that touches 1,000 customers, and memory."""

import time

import duckdb
import numpy as np
import polars as pl

from benchmarks.insights_pushed import pushed
from benchmarks.insights_questions import DAY_US, NOW_US, Bank, Question, questions
from benchmarks.tables import Table, median_of
from services.insights.engine.engine import Engine
from services.insights.engine.plan import plan
from services.insights.language.check import check_query
from services.insights.language.sources import sources_of, transactions

ROWS_A_CUSTOMER, TOUCHED, ROUNDS = 10, 1_000, 15


def run() -> list[Table]:
    """Measures and tabulates."""
    cost = Table(
        "INFER queries kept true, CPU ms a batch",
        ["queries", "rows come", "an hour passes", "floor", "DuckDB", "Polars"],
        "A batch of 1,000 transactions of 1,000 customers, who have 10 each: retained, verdicts current, changes "
        "known; and the windows moved on by an hour. Floor: one pass over the columns that the queries read, of the "
        "touched customers' rows. DuckDB and Polars: the same questions about the same customers, from their rows "
        "alone, in one statement. Budget: 5 ms at 100 queries and 10,000 customers.",
    )
    memory = Table(
        "Memory of INFER queries",
        ["queries", "bytes a row", "bytes a query and customer", "of which states"],
        "Arrays of the engine: rows by rows held; totals and states by queries times customers.",
    )
    for customers in (10_000, 100_000):
        for count in (100, 1_000):
            _measure(customers, count, cost, memory)
    return [cost, pushed(), memory]


def _measure(customers: int, count: int, cost: Table, memory: Table) -> None:
    asked = questions(count)
    sources = sources_of([transactions()])
    engine, bank = Engine([transactions()]), Bank(customers)
    engine.advance(NOW_US - ROUNDS * 3_600_000_000)
    everyone = bank.everyone(engine)
    random = np.random.default_rng(3)
    for _ in range(ROWS_A_CUSTOMER):
        for start in range(0, customers, 10_000):
            some = everyone[start : start + 10_000]
            engine.replace_rows("transactions", (), bank.give(engine, some, NOW_US - 400 * DAY_US, engine.now_us))
    engine.put([plan(check_query(each.infer, sources), sources) for each in asked])
    engine.settle()
    coming, passing, floor = [], [], []
    rows = engine.sources["transactions"]
    for _ in range(ROUNDS):
        touched = np.sort(random.choice(everyone, TOUCHED, replace=False)).astype(np.int32)
        new = bank.give(engine, touched, engine.now_us - DAY_US, engine.now_us)
        marks = [time.process_time()]
        engine.replace_rows("transactions", (), new)
        engine.settle()
        marks.append(time.process_time())
        engine.advance(engine.now_us + 3_600_000_000)
        engine.settle()
        marks.append(time.process_time())
        theirs = np.concatenate([rows.of(code) for code in touched.tolist()])
        columns = [rows.store.columns.times, *(rows.store.terms[rows.place(name)] for name in ("amount", "currency"))]
        columns.append(rows.store.terms[rows.place("category_l1")])
        marks.append(time.process_time())
        for column in columns:
            column[theirs].sum()
        marks.append(time.process_time())
        for figures, i in ((coming, 0), (passing, 1), (floor, 3)):
            figures.append((marks[i + 1] - marks[i]) * 1e3)
    label = f"{customers:,} customers"
    cost.add(
        label,
        f"{count:,}",
        median_of(coming),
        median_of(passing),
        median_of(floor),
        *_others(bank, asked, touched.tolist()),
    )
    held = engine.nbytes
    pairs = count * customers
    memory.add(
        label,
        f"{count:,}",
        held["rows"] / len(rows),
        (held["totals"] + held["states"]) / pairs,
        held["states"] / pairs,
    )


def _others(bank: Bank, asked: list[Question], touched: list[int]) -> tuple[float, float]:
    """CPU milliseconds of DuckDB and of Polars for the touched customers' rows."""
    frame = pl.concat([each.with_columns(pl.col("currency").cast(pl.String)) for each in bank.frames])
    frame = frame.filter(pl.col("customer").is_in(touched))
    duck, polars = [], []
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        connection.register("given", frame.to_arrow())
        connection.execute("CREATE TABLE transactions AS SELECT * FROM given")
        statement = ", ".join(f"{each.sql} AS q{number}" for number, each in enumerate(asked))
        expressions = [each.polars.alias(f"q{number}") for number, each in enumerate(asked)]
        for _ in range(3):
            marks = [time.process_time()]
            connection.sql(f"SELECT customer, {statement} FROM transactions GROUP BY customer").to_arrow_table()
            marks.append(time.process_time())
            frame.group_by("customer").agg(expressions)
            marks.append(time.process_time())
            duck.append((marks[1] - marks[0]) * 1e3)
            polars.append((marks[2] - marks[1]) * 1e3)
    return median_of(duck), median_of(polars)


if __name__ == "__main__":
    for table in run():
        table.print()
