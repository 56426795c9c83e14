"""A checked query as blocks, totals and a closing program; or why it is recomputed instead.

A *block* is what a FROM or a SELECT keeps: the rows of a source that meet conditions on their own cells, within a range
of time. A *total* counts or sums over the rows of blocks; it is kept current row by row. The *closing program* makes
the verdict from totals. Equal blocks and totals of different queries are equal values: the engine keeps each once.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from services.insights.engine.programs import Instruction, Op
from services.insights.engine.ranges import MAX_US, Back, Range
from services.insights.engine.vectors import COMPARISONS, is_constant, is_of_rows
from services.insights.language.sources import Sources
from services.insights.language.tree import (
    Absolute,
    Aggregate,
    AggregateFunction,
    And,
    Arithmetic,
    ArithmeticOperator,
    CheckedQuery,
    Column,
    Compare,
    ComparisonOperator,
    Constant,
    Membership,
    Negate,
    Node,
    Not,
    Or,
    Select,
    Within,
    conjuncts,
    selected_sources,
    walk,
)
from services.insights.language.types import Kind
from services.kernel.windows import MIN_US

_ARITHMETIC = {
    ArithmeticOperator.ADD: Op.ADD,
    ArithmeticOperator.SUBTRACT: Op.SUBTRACT,
    ArithmeticOperator.MULTIPLY: Op.MULTIPLY,
    ArithmeticOperator.DIVIDE: Op.DIVIDE,
}
_COMPARISON = {
    ComparisonOperator.EQUAL: Op.EQUAL,
    ComparisonOperator.NOT_EQUAL: Op.NOT_EQUAL,
    ComparisonOperator.GREATER: Op.GREATER,
    ComparisonOperator.GREATER_OR_EQUAL: Op.GREATER_OR_EQUAL,
    ComparisonOperator.LESS: Op.LESS,
    ComparisonOperator.LESS_OR_EQUAL: Op.LESS_OR_EQUAL,
}


class Way(StrEnum):
    """How a query is kept true."""

    INCREMENTAL = "incremental"
    """Totals are kept current; a touched customer costs a few operations."""
    RECOMPUTED = "recomputed"
    """A touched customer's rows are evaluated again, all of them."""


@dataclass(frozen=True, slots=True)
class Block:
    """The rows of a source that meet all conditions, within a range."""

    source: str
    conditions: tuple[Node, ...] = ()
    range: Range = field(default_factory=Range)

    @property
    def equality(self) -> tuple[str, str] | None:
        """A text column and the literal it must equal: rows with another value are passed over at once."""
        for each in self.conditions:
            if isinstance(each, Compare) and each.operator is ComparisonOperator.EQUAL:
                pair = (each.left, each.right)
                for column, literal in (pair, pair[::-1]):
                    if isinstance(column, Column) and isinstance(literal, Constant) and isinstance(literal.value, str):
                        return column.name, literal.value
        return None


@dataclass(frozen=True, slots=True)
class Part:
    """What the rows of a block add to a total: a number, undefined ones left out; without a term, 1."""

    block: Block
    term: Node | None = None


@dataclass(frozen=True, slots=True)
class Total:
    """A count or an exact sum over parts."""

    sums: bool
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a query is evaluated."""

    query: CheckedQuery
    way: Way
    reason: str
    """Why it is recomputed, for people; empty when it is not."""
    sources: frozenset[str]
    totals: tuple[Total, ...] = ()
    program: tuple[Instruction, ...] = ()
    """Refers to totals by place."""

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The distinct blocks of its totals."""
        return tuple(dict.fromkeys(part.block for total in self.totals for part in total.parts))

    def looks_after_us(self, source: str, now_us: int) -> int:
        """It looks at no row of a source whose time is at or before this, from an instant on."""
        if self.way is Way.RECOMPUTED:
            return MIN_US if source in self.sources else MAX_US
        blocks = [block.range for block in self.blocks if block.source == source]
        return min((each.bounds_us(now_us)[0] for each in blocks), default=MAX_US)


class _NotMaintainableError(Exception):
    """The query needs the rows themselves; the message says why."""


def plan(query: CheckedQuery, sources: Sources) -> Plan:
    """Plans a checked query."""
    read = selected_sources(query)
    planner = _Planner(sources)
    try:
        program = planner.verdict(query)
    except _NotMaintainableError as error:
        return Plan(query, Way.RECOMPUTED, str(error), read)
    return Plan(query, Way.INCREMENTAL, "", read, tuple(planner.totals), tuple(program))


class _Planner:
    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self.totals: dict[Total, int] = {}

    def verdict(self, query: CheckedQuery) -> list[Instruction]:
        block = self._block(query.source, query.where)
        if query.having is not None:
            return self._scalar(query.having, block)
        if query.where is None:
            return [Instruction(Op.CONSTANT, 0.0)]
        count = self._total(Total(False, (Part(block),)))
        return [Instruction(Op.COUNT, 0.0, count, 0), Instruction(Op.CONSTANT, 0.0), Instruction(Op.GREATER)]

    def _total(self, total: Total) -> int:
        return self.totals.setdefault(total, len(self.totals))

    def _block(self, source: str, where: Node | None) -> Block:
        conditions: dict[Node, None] = {}
        after: dict[Back, None] = {}
        until: dict[Back, None] = {}
        for condition in conjuncts(where):
            if isinstance(condition, Within):
                back = self._back(source, condition)
                (after if condition.inside else until)[back] = None
            elif is_of_rows(condition):
                conditions[condition] = None
            else:
                raise _NotMaintainableError(_why(condition))
        return Block(source, tuple(conditions), Range(tuple(sorted(after)), tuple(sorted(until))))

    def _back(self, source: str, within: Within) -> Back:
        operand, time = within.operand, self._sources[source].time_column
        if not isinstance(operand, Column) or operand.name != time:
            raise _NotMaintainableError(f"a window over something else than {time}, the time of the rows of {source}")
        if within.period.constant is None:
            raise _NotMaintainableError("a window whose length is computed")
        return Back(*within.period.constant)

    def _scalar(self, node: Node, block: Block) -> list[Instruction]:
        """The instructions that leave a scalar node's value; columns in aggregates are those of the block."""
        if isinstance(node, Constant):
            return [Instruction(Op.CONSTANT, float(node.value))]  # type: ignore[arg-type]
        if isinstance(node, Aggregate):
            return self._aggregate(node, block)
        if isinstance(node, Select):
            if node.type.vector:
                raise _NotMaintainableError("a SELECT of many values compared or computed with as a vector")
            return self._scalar(node.term, self._block(node.source, node.where))
        if isinstance(node, (Negate, Absolute)):
            op = Op.NEGATE if isinstance(node, Negate) else Op.ABSOLUTE
            return [*self._scalar(node.operand, block), Instruction(op)]
        if isinstance(node, Arithmetic):
            found = self._scalar(node.first, block)
            for operator, operand in node.rest:
                found += [*self._scalar(operand, block), Instruction(_ARITHMETIC[operator])]
            return found
        if isinstance(node, (And, Or)):
            op = Op.AND if isinstance(node, And) else Op.OR
            first, *rest = node.conditions
            found = self._scalar(first, block)
            for part in rest:
                found += [*self._scalar(part, block), Instruction(op)]
            return found
        if isinstance(node, Not):
            return [*self._scalar(node.condition, block), Instruction(Op.NOT)]
        if isinstance(node, Compare):
            return self._compare(node, block)
        if isinstance(node, Membership):
            return self._membership(node, block)
        raise _NotMaintainableError(_why(node))

    def _compare(self, node: Compare, block: Block) -> list[Instruction]:
        if node.left.type.kind in (Kind.NUMERIC, Kind.BOOLEAN):
            left, right = self._scalar(node.left, block), self._scalar(node.right, block)
            return [*left, *right, Instruction(_COMPARISON[node.operator])]
        if isinstance(node.left, Constant) and isinstance(node.right, Constant):
            holds = COMPARISONS[node.operator](node.left.value, node.right.value)
            return [Instruction(Op.CONSTANT, float(bool(holds)))]
        raise _NotMaintainableError(_why(node))

    def _membership(self, node: Membership, block: Block) -> list[Instruction]:
        left, right = node.left, node.right
        if not isinstance(right, Constant) or not isinstance(right.value, tuple):
            raise _NotMaintainableError("IN an array that is selected")
        if left.type.kind in (Kind.NUMERIC, Kind.BOOLEAN):
            elements = [Instruction(Op.CONSTANT, float(each)) for each in right.value]
            return [*self._scalar(left, block), *elements, Instruction(Op.IN, 0.0, -1, len(elements))]
        if isinstance(left, Constant):
            return [Instruction(Op.CONSTANT, float(left.value in right.value))]
        raise _NotMaintainableError(_why(node))

    def _aggregate(self, node: Aggregate, block: Block) -> list[Instruction]:
        if node.function not in (AggregateFunction.SUM, AggregateFunction.COUNT):
            raise _NotMaintainableError(f"{node.function} is not kept current")
        sums = node.function is AggregateFunction.SUM
        parts: list[Part] = []
        scalars: list[Instruction] = []
        count = 0
        for argument in node.arguments:
            if argument.type.vector:
                parts.append(self._part(argument, block, sums))
            else:
                scalars += self._scalar(argument, block)
                count += 1
        total = self._total(Total(sums, tuple(parts))) if parts else -1
        return [*scalars, Instruction(Op.SUM if sums else Op.COUNT, 0.0, total, count)]

    def _part(self, node: Node, block: Block, sums: bool) -> Part:
        """A vector argument: of the block's own rows, or of a SELECT's with literals around it."""
        selects = {part for part in walk(node) if isinstance(part, Select)}
        if selects:
            if len(selects) > 1:
                raise _NotMaintainableError("several SELECTs side by side, row by row")
            (select,) = selects
            block, node = self._block(select.source, select.where), _within_select(node, select)
        if not is_of_rows(node):
            raise _NotMaintainableError(_why(node))
        if not sums and node.type.kind is not Kind.NUMERIC:
            if node.type.kind is not Kind.STRING and not node.type.array:
                raise _NotMaintainableError("a count of booleans or instants, which may be undefined")
            return Part(block)
        if isinstance(node, Constant) and not sums:
            return Part(block)
        return Part(block, node)


def _within_select(node: Node, select: Select) -> Node:
    """What is computed with a SELECT's vector, computed by its own rows instead."""
    if node == select:
        return select.term
    if isinstance(node, (Negate, Absolute)):
        return type(node)(_within_select(node.operand, select), node.type, node.span)
    if isinstance(node, Arithmetic):
        rest = tuple((operator, _within_select(operand, select)) for operator, operand in node.rest)
        return Arithmetic(_within_select(node.first, select), rest, node.type, node.span)
    if is_constant(node):
        return node
    raise _NotMaintainableError("a SELECT beside the rows themselves, row by row")


def _why(node: Node) -> str:
    """Why a condition or a term needs the rows themselves."""
    parts = list(walk(node))
    if any(isinstance(part, Aggregate) for part in parts):
        return "an aggregate decides row by row"
    if any(isinstance(part, Select) for part in parts):
        return "rows are compared with the rows of a SELECT"
    if any(isinstance(part, Within) for part in parts):
        return "a window that is not one of the conditions that must all hold"
    return "values of rows where one value is needed"
