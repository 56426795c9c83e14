"""An insight about many customers at many instants: labels for training sets.

At an instant the rows whose time had come by then are seen, as they are known now: with the corrections made since,
without what was to come. So a label at an instant owes nothing to what happened after it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence

from services.insights.direct.evaluator import evaluate
from services.insights.direct.outcome import Rows, State
from services.insights.engine.engine import Engine
from services.insights.evaluation import InsightEvaluator
from services.insights.language.sources import SourceSchema
from services.insights.language.tree import CheckedQuery, selected_sources

MAX_PAIRS = 10_000
_AT_ONCE = 64
"""So many customers' rows are copied between two turns of the event loop."""

Pair = tuple[str, int]
"""A customer and an instant."""


async def evaluate_pairs(insights: InsightEvaluator, query: CheckedQuery, pairs: Sequence[Pair]) -> list[State]:
    """What a query says of each pair. The rows are copied here; the rest runs beside the serving."""
    engine = insights.engines[insights.bindings[query.source].attribute_key]
    names = sorted(selected_sources(query))
    tables: dict[str, Mapping[str, Rows]] = {}
    for number, customer in enumerate(dict.fromkeys(customer for customer, _ in pairs)):
        tables[customer] = _tables(engine, customer, names)
        if number % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)
    schemas = {name: engine.sources[name].schema for name in names}
    return await asyncio.to_thread(_evaluate, query, pairs, tables, schemas)


def _tables(engine: Engine, customer: str, names: Sequence[str]) -> Mapping[str, Rows]:
    code = engine.customers.find(customer)
    return {} if code is None else engine.tables(code, names)


def _evaluate(
    query: CheckedQuery,
    pairs: Sequence[Pair],
    tables: Mapping[str, Mapping[str, Rows]],
    schemas: Mapping[str, SourceSchema],
) -> list[State]:
    known: defaultdict[str, dict[int, State]] = defaultdict(dict)
    for customer, instant_us in pairs:
        mine = known[customer]
        if instant_us not in mine:
            seen = {name: _until(rows, schemas[name], instant_us) for name, rows in tables[customer].items()}
            mine[instant_us] = evaluate(query, seen, instant_us).state
    return [known[customer][instant_us] for customer, instant_us in pairs]


def _until(rows: Rows, schema: SourceSchema, instant_us: int) -> Rows:
    """The rows whose time had come; those without a time are always there."""
    times = rows.columns[schema.time_column]
    chosen = [index for index, time in enumerate(times) if time is None or time <= instant_us]  # type: ignore[operator]
    if len(chosen) == rows.count:
        return rows
    return Rows(len(chosen), {name: [values[i] for i in chosen] for name, values in rows.columns.items()})
