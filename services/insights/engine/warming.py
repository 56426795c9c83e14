"""Compiles the loops before anybody waits for them."""

from services.insights.direct.outcome import Cell
from services.insights.engine.engine import Engine
from services.insights.engine.entering import from_values
from services.insights.engine.plan import plan
from services.insights.language.check import check_query
from services.insights.language.sources import sources_of, transactions

_QUERY = (
    'INFER a FROM transactions WHERE category_l1 = "a" AND DATETIME_FROM(date_time, 0, 1, 0) HAVING SUM(amount) > 1'
)


def warm() -> None:
    """Runs everything once over two rows."""
    schema = transactions()
    sources = sources_of([schema])
    engine = Engine([schema])
    engine.put([plan(check_query(_QUERY, sources), sources)])
    engine.put([plan(check_query(_QUERY.partition(" HAVING")[0], sources), sources)])
    for event_id, day in (("a", 1), ("b", 0)):
        columns: dict[str, list[Cell]] = {"date_time": [day * 86_400_000_000], "amount": [2.0], "category_l1": ["a"]}
        engine.replace_rows(
            schema.name, (), from_values(schema, engine.pools, engine.customers, ["c"], [event_id], columns)
        )
        engine.advance(2 * 86_400_000_000)
        engine.settle()
    engine.advance(60 * 86_400_000_000)
    engine.settle()
