"""The direct evaluator: a tree over lists of values, with nothing kept between two evaluations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from services.insights.direct.outcome import NO_ROWS, Cell, Operand, Outcome, Rows, State
from services.insights.language.diagnostics import Code, Diagnostic, Phase, Span
from services.insights.language.scalars import arithmetic, compare, exact_mean, exact_sum, number, whole
from services.insights.language.tree import (
    Absolute,
    Aggregate,
    AggregateFunction,
    And,
    Arithmetic,
    CheckedQuery,
    CheckedTerm,
    Column,
    Compare,
    Constant,
    Gather,
    Membership,
    Negate,
    Node,
    Not,
    Or,
    Select,
    Within,
    conjuncts,
)
from services.insights.language.types import Kind, Type
from services.kernel.windows import cutoff_us

_MINUTE_US = 60_000_000
_NUMBERS = Type(Kind.NUMERIC, vector=True)


@dataclass(frozen=True, slots=True)
class Value:
    """What a term is: one value for each row of a vector, else a single one. None is undefined."""

    items: Sequence[Cell]
    vector: bool

    @property
    def single(self) -> Cell:
        """The value of what is no vector."""
        return self.items[0]


class EvaluationError(Exception):
    """A customer's rows do not fit the query."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        self.diagnostic = diagnostic
        super().__init__(str(diagnostic))


def evaluate(query: CheckedQuery, tables: Mapping[str, Rows], now_us: int) -> Outcome:
    """Whether a query applies to the customer with these rows, and why. A source without rows may be absent."""
    run = _Run(tables, now_us)
    rows = tables.get(query.source, NO_ROWS)
    try:
        kept = run.kept(query.where, rows)
        operands = tuple(run.operand(part, rows, kept, query.text) for part in conjuncts(query.having))
    except EvaluationError as error:
        return Outcome(State.ERROR, undefined_count=run.undefined_count, error=error.diagnostic)
    decided = query.where is not None and bool(kept) if query.having is None else all(each.result for each in operands)
    return Outcome(State.APPLIES if decided else State.NOT, tuple(kept), operands, run.undefined_count)


def value_of(term: CheckedTerm, tables: Mapping[str, Rows], now_us: int) -> Value:
    """A term or an expression over all of the customer's rows. Raises EvaluationError."""
    rows = tables.get(term.source, NO_ROWS)
    return _Run(tables, now_us).value(term.node, rows, range(rows.count))


@dataclass(slots=True)
class _Run:
    """One evaluation; each node is evaluated over the rows its block sees."""

    tables: Mapping[str, Rows]
    now_us: int
    undefined_count: int = field(default=0)

    def kept(self, where: Node | None, rows: Rows) -> Sequence[int]:
        """The indices of the rows that a WHERE keeps: it sees all of them."""
        every = range(rows.count)
        if where is None:
            return every
        value = self.value(where, rows, every)
        if len(value.items) != rows.count:
            raise EvaluationError(_lengths(where.span, rows.count, len(value.items)))
        return [index for index, holds in zip(every, value.items, strict=True) if holds is True]

    def value(self, node: Node, rows: Rows, kept: Sequence[int]) -> Value:
        """The node over the kept rows."""
        match node:
            case Constant():
                return Value((node.value,), False)
            case Column():
                return Value([_cell(rows, node, index) for index in kept], True)
            case Negate() | Absolute():
                operand = self.value(node.operand, rows, kept)
                change = abs if isinstance(node, Absolute) else _negative
                return Value([None if item is None else change(item) for item in operand.items], operand.vector)  # type: ignore[arg-type]
            case Arithmetic():
                value = self.value(node.first, rows, kept)
                for operator, operand_node in node.rest:
                    operand = self.value(operand_node, rows, kept)
                    value = _pairs(node.span, value, operand, lambda x, y, op=operator: arithmetic(op, x, y))
                return value
            case Compare() | Membership():
                sides = (self.value(side, rows, kept) for side in (node.left, node.right))
                return self._row_wise(node, *sides)
            case Within():
                return self._within(node, rows, kept)
            case Aggregate():
                return self._aggregate(node, rows, kept)
            case Select():
                return self._select(node)
            case Gather():
                selected = self._select(node.select)
                return Value((tuple(item for item in selected.items if item is not None),), False)  # type: ignore[misc]
            case Not():
                inner = self.value(node.condition, rows, kept)
                return Value([item is not True for item in inner.items], inner.vector)
            case And() | Or():
                return self._joined(node, rows, kept)

    def operand(self, part: Node, rows: Rows, kept: Sequence[int], text: str) -> Operand:
        """One condition of HAVING, with what stood on its sides."""
        written = text[part.span.start : part.span.end]
        if isinstance(part, (Compare, Membership)):
            left, right = (self.value(side, rows, kept) for side in (part.left, part.right))
            result = self._row_wise(part, left, right).single is True
            sign = part.operator.value if isinstance(part, Compare) else "IN"
            return Operand(written, left.single, sign, right.single, result)
        result = self.value(part, rows, kept).single is True
        return Operand(written, result, "", None, result)

    def _row_wise(self, node: Compare | Membership, left: Value, right: Value) -> Value:
        def compared(one: Cell, other: Cell) -> bool:
            if one is None or other is None:
                self.undefined_count += 1
                return False
            if isinstance(node, Compare):
                return compare(node.operator, one, other)  # type: ignore[arg-type]
            return one in other  # type: ignore[operator]

        return _pairs(node.span, left, right, compared)

    def _within(self, node: Within, rows: Rows, kept: Sequence[int]) -> Value:
        operand = self.value(node.operand, rows, kept)
        period = node.period
        parts = (period.years, period.months, period.days, period.hours, period.minutes)
        given = [0 if part is None else self._whole(part, rows, kept) for part in parts]
        years, months, days, hours, minutes = given
        cutoff = cutoff_us(self.now_us, years, months, days) - (hours * 60 + minutes) * _MINUTE_US

        def placed(instant: Cell) -> bool:
            self.undefined_count += instant is None
            return instant is not None and (instant > cutoff) is node.inside  # type: ignore[operator]

        return Value([placed(item) for item in operand.items], operand.vector)

    def _whole(self, part: Node, rows: Rows, kept: Sequence[int]) -> int:
        value = self.value(part, rows, kept).single
        found = whole(value) if isinstance(value, float) else None
        if found is None:
            shown = "undefined" if value is None else value
            message = f"a period is a whole number from 0, this is {shown}"
            raise EvaluationError(Diagnostic(Code.INTEGER, Phase.EVAL, message, part.span))
        return found

    def _aggregate(self, node: Aggregate, rows: Rows, kept: Sequence[int]) -> Value:
        given = [item for argument in node.arguments for item in self.value(argument, rows, kept).items]
        values = [item for item in given if item is not None]
        self.undefined_count += len(given) - len(values)
        return Value((_aggregated(node.function, values),), False)

    def _select(self, node: Select) -> Value:
        rows = self.tables.get(node.source, NO_ROWS)
        kept = self.kept(node.where, rows)
        value = self.value(node.term, rows, kept)
        return Value([value.single] * len(kept), True) if node.repeats else value

    def _joined(self, node: And | Or, rows: Rows, kept: Sequence[int]) -> Value:
        values = [self.value(condition, rows, kept) for condition in node.conditions]
        length = _length(node.span, values)
        joined = all if isinstance(node, And) else any
        wide = [value.items if value.vector else [value.single] * length for value in values]
        return Value([joined(item is True for item in row) for row in zip(*wide, strict=True)], node.type.vector)


def _cell(rows: Rows, node: Column, index: int) -> Cell:
    """A column's value in a row; what is missing becomes the type's own missing value."""
    values = rows.columns.get(node.name)
    cell = None if values is None else values[index]
    if cell is None:
        return missing(node.type)
    return number(float(cell)) if node.type == _NUMBERS else cell  # type: ignore[arg-type]


def missing(type_: Type) -> Cell:
    """What stands for no value: the empty string, the empty array, else undefined."""
    if type_.array:
        return ()
    return "" if type_.kind is Kind.STRING else None


def _negative(value: float) -> float:
    return -value


def _aggregated(function: AggregateFunction, values: Sequence[Cell]) -> Cell:
    match function:
        case AggregateFunction.SUM:
            return exact_sum(values)  # type: ignore[arg-type]
        case AggregateFunction.AVG:
            return exact_mean(values)  # type: ignore[arg-type]
        case AggregateFunction.COUNT:
            return float(len(values))
        case AggregateFunction.COUNT_DISTINCT:
            return float(len(set(values)))
        case AggregateFunction.MIN:
            return min(values, default=None)  # type: ignore[type-var]
        case AggregateFunction.MAX:
            return max(values, default=None)  # type: ignore[type-var]


def _pairs(span: Span, left: Value, right: Value, operation: Callable[..., Cell]) -> Value:
    """An operation on each row: a single value stands against every element of a vector."""
    length = _length(span, (left, right))
    wide = [value.items if value.vector else [value.single] * length for value in (left, right)]
    return Value(list(map(operation, *wide)), left.vector or right.vector)


def _length(span: Span, values: Sequence[Value]) -> int:
    """The vectors' common length, 1 without any. Raises EvaluationError with E_LENGTH."""
    lengths = [len(value.items) for value in values if value.vector]
    for length in lengths:
        if length != lengths[0]:
            raise EvaluationError(_lengths(span, lengths[0], length))
    return lengths[0] if lengths else 1


def _lengths(span: Span, first: int, second: int) -> Diagnostic:
    message = f"two vectors of different lengths: {first} and {second}"
    return Diagnostic(Code.LENGTH, Phase.EVAL, message, span, "aggregate the SELECT, or select all rows")
