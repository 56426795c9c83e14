"""One customer's rows as lists of values: what the direct evaluator takes."""

import math
from collections.abc import Callable

from services.insights.direct.outcome import Cell, Rows
from services.insights.engine.pools import Pools
from services.insights.engine.ranges import UNDEFINED_US
from services.insights.engine.rows import SourceRows
from services.insights.language.types import Kind, Type


def rows_of(source: SourceRows, pools: Pools, customer: int) -> Rows:
    """A customer's rows of a source, in order of (time, event id)."""
    view = source.view(source.of(customer))
    columns: dict[str, list[Cell]] = {}
    for name, kind in source.schema.columns.items():
        place = source.place(name)
        if kind.kind is Kind.NUMERIC and not kind.array:
            columns[name] = [None if math.isnan(cell) else cell for cell in view.numbers(place).tolist()]
        else:
            decode = _decoder(kind, pools)
            columns[name] = [decode(cell) for cell in view.ints(place).tolist()]
    return Rows(len(view), columns)


def _decoder(kind: Type, pools: Pools) -> Callable[[int], Cell]:
    if kind.array:
        return lambda cell: pools.arrays.values[cell]
    if kind.kind is Kind.STRING:
        return pools.texts.text
    if kind.kind is Kind.BOOLEAN:
        return lambda cell: None if cell < 0 else bool(cell)
    return lambda cell: None if cell == UNDEFINED_US else cell
