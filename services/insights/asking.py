"""What is asked of a project's rows: about one customer at an instant, with the reasons, and about all of them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.insights.definitions import Insight
from services.insights.direct.evaluator import evaluate
from services.insights.direct.outcome import Cell, Outcome
from services.insights.engine.engine import Engine
from services.insights.engine.plan import Plan
from services.insights.engine.pools import ArrayPool
from services.insights.engine.rows import NewRows, SourceRows
from services.insights.engine.states import Standing
from services.insights.evaluation import InsightEvaluator
from services.insights.language.tree import CheckedQuery

_DAY_US = 86_400_000_000
Row = tuple[str, dict[str, Cell]]
"""An event's id, and its columns without the missing ones."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A query about a customer at an instant."""

    query: CheckedQuery
    insight: Insight | None
    outcome: Outcome
    rows: tuple[Row, ...]
    """Of those that WHERE keeps, as many as were asked for."""
    now_us: int


def ask(
    insights: InsightEvaluator,
    query: CheckedQuery,
    insight: Insight | None,
    key_value: str,
    now_us: int,
    row_limit: int,
) -> Answer:
    """Evaluates a query from the customer's rows; a customer that is not known has none."""
    engine = insights.engines[insights.bindings[query.source].attribute_key]
    code = engine.customers.find(key_value)
    if code is None:
        return Answer(query, insight, evaluate(query, {}, now_us), (), now_us)
    outcome = engine.outcome(query, code, now_us)
    held = engine.sources[query.source]
    numbers = held.of(code)
    table = engine.tables(code, [query.source])[query.source]
    rows = tuple(
        (
            held.store.event_id(int(numbers[index])),
            {name: cells[index] for name, cells in table.columns.items() if cells[index] not in (None, "", ())},
        )
        for index in outcome.matched[:row_limit]
    )
    return Answer(query, insight, outcome, rows, now_us)


@dataclass(frozen=True, slots=True)
class Day:
    """An instant of a dry run."""

    instant_us: int
    applies: int
    applied: int
    withdrawn: int


@dataclass(frozen=True, slots=True)
class DryRun:
    """Whom a query applies to."""

    applies: int
    customers: int
    errors: int
    sample: tuple[str, ...]
    days: tuple[Day, ...]


async def dry_run(insights: InsightEvaluator, plan: Plan, now_us: int, days: int, sample: int) -> DryRun:
    """Evaluates a query for all customers: now, and so many days back at the end of each day since.

    At an instant of the past the rows whose time had come by then are seen, with the corrections made since. The rows
    are copied at memory speed; the rest runs beside the serving.
    """
    engine = insights.engines[insights.bindings[plan.query.source].attribute_key]
    copies = {name: _copy(engine.sources[name]) for name in sorted(plan.sources)}
    texts = engine.customers.texts()
    other = Engine(engine.sources[name].schema for name in copies)
    other.pools.arrays = ArrayPool(engine.pools.arrays.values)
    other.pools.texts.load({name: array.copy() for name, array in engine.pools.texts.dump().items()})
    other.customers.load({name: array.copy() for name, array in engine.customers.dump().items()})
    return await asyncio.to_thread(_run, other, plan, copies, texts, now_us, days, sample)


def _run(
    engine: Engine,
    plan: Plan,
    copies: dict[str, NewRows],
    texts: Sequence[str],
    now_us: int,
    days: int,
    sample: int,
) -> DryRun:
    instants = [now_us - day * _DAY_US for day in range(days, -1, -1)]
    slot = engine.put([plan])[0]
    before = -(2**63)
    found: list[Day] = []
    for instant in instants:
        engine.advance(instant)
        # Rows of the future are seen at the end, as they are by what is kept true.
        last = instant if instant != now_us else 2**63 - 1
        for name, rows in copies.items():
            chosen = np.flatnonzero((rows.times > before) & (rows.times <= last))
            if before == -(2**63):
                chosen = np.flatnonzero(rows.times <= last)
            engine.replace_rows(name, (), _some(rows, chosen))
        before = last
        changes = engine.settle(net=True)
        after, was = changes.after == Standing.APPLIES, changes.before == Standing.APPLIES
        applies = len(engine.states.customers(slot, Standing.APPLIES, len(engine.customers)))
        found.append(Day(instant, applies, int(after.sum()), int(was.sum())))
    codes = engine.states.customers(slot, Standing.APPLIES, len(engine.customers))
    errors = len(engine.states.customers(slot, Standing.ERROR, len(engine.customers)))
    names = tuple(texts[code] for code in codes[:sample].tolist())
    return DryRun(len(codes), len(texts), errors, names, tuple(found))


def _copy(rows: SourceRows) -> NewRows:
    numbers = rows.alive(0, rows.store.count)
    columns = rows.store.columns
    ids = [rows.store.event_id(number).encode() for number in numbers.tolist()]
    offsets: NDArray[np.int32] = np.cumsum([0, *map(len, ids)]).astype(np.int32)
    return NewRows(
        columns.keys[numbers],
        columns.times[numbers],
        columns.id_hashes[numbers],
        (offsets, np.frombuffer(b"".join(ids), np.uint8)),
        np.arange(len(numbers)),
        [cells[numbers] for cells in rows.store.terms],
    )


def _some(rows: NewRows, chosen: NDArray[np.intp]) -> NewRows:
    return NewRows(
        rows.customers[chosen],
        rows.times[chosen],
        rows.id_hashes[chosen],
        rows.ids,
        rows.selected[chosen],
        [cells[chosen] for cells in rows.cells],
    )
