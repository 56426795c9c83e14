"""Customers' transactions and INFER queries about them, with the same questions as SQL and as Polars expressions."""

import itertools
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from services.insights.engine.engine import Engine
from services.insights.engine.ranges import Back
from services.insights.engine.rows import NewRows, missing_cell
from services.insights.language.sources import transactions

NOW_US = 1_718_452_800_000_000
DAY_US = 86_400_000_000
CATEGORIES = tuple(f"category_{number}" for number in range(20))
_BACKS = (Back(0, 1, 0), Back(0, 0, 7), Back(0, 3, 0), Back(1, 0, 0), Back(0, 0, 90))


@dataclass(frozen=True)
class Question:
    """One question in three languages: the latter two as conditions on a customer's group of rows."""

    infer: str
    sql: str
    polars: pl.Expr


def questions(count: int) -> list[Question]:
    """So many different ones, of four kinds: has any, spent over, a share of the income, spent within bounds."""
    found = []
    for number, (bound, back, category, kind) in enumerate(
        itertools.product(range(50, 5_000, 50), _BACKS, CATEGORIES, range(4))
    ):
        # A stride that shares no factor with the lengths: every run of questions has all kinds, categories and windows.
        if number * 7_919 % (99 * 5 * 20 * 4) < count:
            found.append(_question(len(found), kind, category, back, bound))
    return found[:count]


def _question(number: int, kind: int, category: str, back: Back, bound: int) -> Question:
    window = f"DATETIME_FROM(date_time, {back.years}, {back.months}, {back.days})"
    cutoff = back.cutoff_us(NOW_US)
    head = f'INFER q{number} FROM transactions WHERE category_l1 = "{category}" AND currency = "GBP" AND {window}'
    spent = f"sum(amount) FILTER (category_l1 = '{category}' AND currency = 'GBP' AND date_time > {cutoff})"
    kept = (pl.col("category_l1") == category) & (pl.col("currency") == "GBP") & (pl.col("date_time") > cutoff)
    total = pl.col("amount").filter(kept).sum()
    if kind == 0:
        return Question(head, spent.replace("sum(amount)", "count(*)") + " > 0", kept.any())
    if kind == 1:
        return Question(f"{head} HAVING ABS(SUM(amount)) > {bound}", f"abs({spent}) > {bound}", total.abs() > bound)
    income = f"SUM(SELECT amount FROM transactions WHERE amount > 0 AND {window})"
    earned = pl.col("amount").filter((pl.col("amount") > 0) & (pl.col("date_time") > cutoff)).sum()
    if kind == 2:
        share = bound / 10_000
        earned_sql = f"sum(amount) FILTER (amount > 0 AND date_time > {cutoff})"
        return Question(
            f"{head} HAVING ABS(SUM(amount)) > {income} * {share}",
            f"abs({spent}) > {earned_sql} * {share}",
            total.abs() > earned * share,
        )
    return Question(
        f"{head} HAVING ABS(SUM(amount)) > {bound} AND ABS(SUM(amount)) < {2 * bound}",
        f"abs({spent}) > {bound} AND abs({spent}) < {2 * bound}",
        (total.abs() > bound) & (total.abs() < 2 * bound),
    )


class Bank:
    """Customers and their transactions, made by chance."""

    def __init__(self, customers: int) -> None:
        self._random = np.random.default_rng(7)
        self._customers = customers
        self._made = 0
        self.frames: list[pl.DataFrame] = []
        """What was given so far, for those who answer from tables."""

    def give(self, engine: Engine, customers: NDArray[np.int32], first_us: int, last_us: int) -> NewRows:
        """A transaction for each of these customers, at times in a range; to be given to the engine."""
        random, count = self._random, len(customers)
        times = np.sort(random.integers(first_us, last_us, count))
        category = random.integers(0, len(CATEGORIES), count)
        amounts = np.round(random.lognormal(3.5, 1.0, count), 2) * np.where(random.random(count) < 0.8, -1, 1)
        pools = engine.pools
        cells = {
            "amount": amounts.view(np.int64),
            "currency": np.full(count, pools.code("GBP"), np.int64),
            "category_l1": np.array([pools.code(name) for name in CATEGORIES], np.int64)[category],
            "merchant": np.array([pools.code(f"merchant_{n}") for n in range(500)])[random.integers(0, 500, count)],
        }
        ids = np.arange(self._made, self._made + count)
        content = np.frombuffer("".join(f"{number:012d}" for number in ids.tolist()).encode(), np.uint8)
        self._made += count
        self.frames.append(
            pl.DataFrame(
                {
                    "customer": customers,
                    "date_time": times,
                    "amount": amounts,
                    "currency": pl.Series(["GBP"], dtype=pl.Categorical).extend_constant("GBP", count - 1),
                    "category_l1": pl.Series([CATEGORIES[code] for code in category.tolist()]),
                }
            )
        )
        return NewRows(
            customers,
            times,
            ids.astype(np.uint64),
            (np.arange(0, 12 * count + 1, 12, dtype=np.int32), content),
            np.arange(count),
            [
                cells.get(name, np.full(count, missing_cell(kind), np.int64)).astype(np.int64)
                for name, kind in transactions().columns.items()
                if name != "date_time"
            ],
        )

    def everyone(self, engine: Engine) -> NDArray[np.int32]:
        """The codes of all customers."""
        return engine.customers.codes(pa.array([f"customer {number}" for number in range(self._customers)]))
