"""Case files of INFER: what a query must say about given rows, told to every evaluator there is.

A case is one JSON object: `id`, `kind` (infer, expr or term), `query`, `data` (`now`; `transactions`, a list of rows,
or `columns`, lists by name with their types) and `expect` (`applies` and perhaps `matched`; or `value`, `type` and
`vector`; or `error` with `code` and `phase`; and perhaps `warnings`). `dialect` may be `extended`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from services.insights.direct import evaluator as direct
from services.insights.direct.evaluator import EvaluationError, Value
from services.insights.direct.outcome import Cell, Outcome, Rows, State
from services.insights.engine.alone import IncrementalEvaluator
from services.insights.language.check import check_expression, check_query, check_term
from services.insights.language.diagnostics import QueryError
from services.insights.language.sources import SourceSchema, sources_of, transactions
from services.insights.language.tree import CheckedQuery, CheckedTerm, Dialect
from services.insights.language.types import Kind, Type

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Evaluator(Protocol):
    """A way to evaluate, by name in the report."""

    @property
    def name(self) -> str:
        """What a failure is reported under."""

    def outcome(self, query: CheckedQuery, source: SourceSchema, rows: Rows, now_us: int) -> Outcome:
        """The query about a customer with these rows, in the given order, of its one source."""

    def value(self, term: CheckedTerm, source: SourceSchema, rows: Rows, now_us: int) -> Value:
        """A term or expression over the rows. Raises EvaluationError."""


class DirectEvaluator:
    """`services.insights.direct`."""

    name = "direct"

    def outcome(self, query: CheckedQuery, source: SourceSchema, rows: Rows, now_us: int) -> Outcome:
        """From scratch."""
        return direct.evaluate(query, {source.name: rows}, now_us)

    def value(self, term: CheckedTerm, source: SourceSchema, rows: Rows, now_us: int) -> Value:
        """From scratch."""
        return direct.value_of(term, {source.name: rows}, now_us)


def evaluators() -> tuple[Evaluator, ...]:
    """Every evaluator a case must pass."""
    return (DirectEvaluator(), IncrementalEvaluator())


@dataclass(frozen=True, slots=True)
class Failure:
    """A case that one evaluator does not answer as expected."""

    case: str
    evaluator: str
    query: str
    expected: Any
    found: Any

    def __str__(self) -> str:
        shown = [json.dumps(value, ensure_ascii=False, default=str) for value in (self.expected, self.found)]
        return f"{self.case} ({self.evaluator}): {self.query!r}\n  expected {shown[0]}\n  found    {shown[1]}"


def run_cases(lines: Iterable[str], ways: Sequence[Evaluator]) -> Iterator[tuple[Failure, ...]]:
    """For each case the evaluators that fail it, none when it passes. Empty lines are no cases."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            case = json.loads(line)
            known = {key: case[key] for key in ("id", "kind", "query", "expect")}
            source, rows, now_us = _data(case.get("data", {}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            yield (Failure(f"line {number}", "reading", line.strip()[:100], "a case", reason),)
            continue
        answers = [(way.name, _found(case, source, rows, now_us, way)) for way in ways]
        yield tuple(
            Failure(known["id"], name, known["query"], known["expect"], found)
            for name, found in answers
            if not all(_matches(key, value, found) for key, value in known["expect"].items())
        )


def _found(case: Mapping[str, Any], source: SourceSchema, rows: Rows, now_us: int, way: Evaluator) -> dict[str, Any]:
    """What an evaluator says, in the form of `expect`."""
    dialect = Dialect(case.get("dialect", "strict"))
    try:
        if case["kind"] == "infer":
            query = check_query(case["query"], sources_of([source]), dialect)
            outcome = way.outcome(query, source, rows, now_us)
            if outcome.error is not None:
                return {"error": {"code": outcome.error.code.value, "phase": outcome.error.phase.value}}
            found = {"applies": outcome.state is State.APPLIES, "matched": list(outcome.matched)}
            return found | {"warnings": [warning.code.value for warning in query.warnings]}
        check = check_expression if case["kind"] == "expr" else check_term
        term = check(case["query"], source, dialect)
        value = way.value(term, source, rows, now_us)
    except QueryError as error:
        first = error.errors[0]
        return {"error": {"code": first.code.value, "phase": first.phase.value}, "message": str(error)}
    except EvaluationError as error:
        return {"error": {"code": error.diagnostic.code.value, "phase": error.diagnostic.phase.value}}
    items = [_shown(item, term.node.type) for item in value.items]
    return {
        "value": items if value.vector else items[0],
        "type": term.node.type.name,
        "vector": value.vector,
        "warnings": [warning.code.value for warning in term.warnings],
    }


def _matches(key: str, expected: Any, found: Mapping[str, Any]) -> bool:
    if key == "error":
        given = found.get("error", {})
        return all(given.get(name) == value for name, value in expected.items() if name in ("code", "phase"))
    if key == "warnings":
        return set(expected) <= set(found.get("warnings", ()))
    return key in found and bool(found[key] == expected)


def _data(data: Mapping[str, Any]) -> tuple[SourceSchema, Rows, int]:
    """A case's source, rows and now. Raises ValueError, KeyError, TypeError."""
    now_us = _instant(data.get("now", "1970-01-01T00:00:00Z"))
    if "columns" in data:
        types = {name: Type.named(column["type"]) for name, column in data["columns"].items()}
        source = SourceSchema("columns", types)
        lists = {
            name: [_cell(item, types[name]) for item in column["values"]] for name, column in data["columns"].items()
        }
        return source, Rows(len(next(iter(lists.values()), ())), lists), now_us
    source = transactions()
    given = data.get("transactions", ())
    lists = {name: [_cell(row.get(name), type_) for row in given] for name, type_ in source.columns.items()}
    return source, Rows(len(given), lists), now_us


def _cell(value: Any, type_: Type) -> Cell:
    if value is None:
        return None
    if type_.array:
        return tuple(float(item) if type_.kind is Kind.NUMERIC else item for item in value)
    if type_.kind is Kind.NUMERIC:
        return float(value)
    found: Cell = _instant(value) if type_.kind is Kind.DATETIME else value
    return found


def _instant(text: str) -> int:
    instant = datetime.fromisoformat(text)
    return ((instant if instant.tzinfo else instant.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


def _shown(value: Cell, type_: Type) -> Any:
    """A value as a case file writes it."""
    if isinstance(value, tuple):
        return list(value)
    if type_.kind is Kind.DATETIME and isinstance(value, int):
        return (_EPOCH + timedelta(microseconds=value)).isoformat().replace("+00:00", "Z")
    return value
