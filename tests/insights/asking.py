"""Short ways to ask the language and the direct evaluator."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from services.insights.direct.evaluator import Value, evaluate, value_of
from services.insights.direct.outcome import Cell, Outcome, Rows
from services.insights.language.check import check_expression, check_query, check_term
from services.insights.language.diagnostics import Diagnostic, QueryError
from services.insights.language.sources import Sources, SourceSchema, sources_of, transactions
from services.insights.language.tree import CheckedQuery, Dialect
from services.insights.language.types import Type

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SOURCES: Sources = sources_of([transactions()])


def us(text: str) -> int:
    """An instant, such as 2024-06-15T12:00:00, in microseconds."""
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


NOW_US = us("2024-06-15T12:00:00")


def checked(text: str, dialect: Dialect = Dialect.STRICT) -> CheckedQuery:
    """A query over `transactions`."""
    return check_query(text, SOURCES, dialect)


def errors(text: str, dialect: Dialect = Dialect.STRICT) -> tuple[Diagnostic, ...]:
    """What is wrong with a query; nothing when it is taken."""
    try:
        checked(text, dialect)
    except QueryError as error:
        return error.errors
    return ()


def codes(text: str, dialect: Dialect = Dialect.STRICT) -> list[str]:
    """The codes of the errors of a query."""
    return [each.code.value for each in errors(text, dialect)]


def where(condition: str, dialect: Dialect = Dialect.STRICT) -> list[str]:
    """The codes of the errors of a WHERE."""
    return codes(f"INFER a FROM transactions WHERE {condition}", dialect)


def having(condition: str, dialect: Dialect = Dialect.STRICT) -> list[str]:
    """The codes of the errors of a HAVING."""
    return codes(f"INFER a FROM transactions HAVING {condition}", dialect)


def warnings(text: str, dialect: Dialect = Dialect.STRICT) -> list[str]:
    """The codes of the warnings of a query."""
    return [each.code.value for each in checked(text, dialect).warnings]


def table(rows: Iterable[Mapping[str, Cell]]) -> Rows:
    """Rows of `transactions`."""
    given = list(rows)
    return Rows(len(given), {name: [row.get(name) for row in given] for name in transactions().columns})


def amounts(*values: float | None) -> Rows:
    """Rows with an amount alone."""
    return table({"amount": value} for value in values)


def ask(text: str, rows: Rows | None = None, *, now_us: int = NOW_US, dialect: Dialect = Dialect.STRICT) -> Outcome:
    """A query about a customer with these transactions."""
    return evaluate(checked(text, dialect), {} if rows is None else {"transactions": rows}, now_us)


def value(
    text: str,
    columns: Mapping[str, tuple[str, list[Any]]] | None = None,
    *,
    now_us: int = NOW_US,
    dialect: Dialect = Dialect.STRICT,
    term: bool = False,
) -> Any:
    """An expression (or a term) over columns given as (type, values): a list for a vector, else one value."""
    given = columns or {}
    source = SourceSchema("columns", {name: Type.named(kind) for name, (kind, _) in given.items()})
    rows = Rows(len(next(iter(given.values()))[1]) if given else 0, {name: items for name, (_, items) in given.items()})
    check = check_term if term else check_expression
    found: Value = value_of(check(text, source, dialect), {"columns": rows}, now_us)
    return list(found.items) if found.vector else found.single
