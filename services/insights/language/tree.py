"""A checked query: a tree of typed, resolved nodes, the same for both dialects.

Every node has a `type`. Nodes compare by meaning: where they stand in the text (`span`) plays no part, so equal parts
of queries are equal and hash alike. Every column belongs to the source of the nearest block around it: the query
itself, or a `Select`. Recursion over a tree is safe: its depth is bounded by the limits of `check.py`, and chains
(`AND`, arithmetic) are flat.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from enum import StrEnum

from services.insights.language.diagnostics import Diagnostic, Span
from services.insights.language.types import Type


class Dialect(StrEnum):
    """How a query is read; once checked, a query means the same in both."""

    STRICT = "strict"
    EXTENDED = "extended"


class ArithmeticOperator(StrEnum):
    """On numbers."""

    ADD = "+"
    SUBTRACT = "-"
    MULTIPLY = "*"
    DIVIDE = "/"


class ComparisonOperator(StrEnum):
    """`!=` is read as `<>`."""

    EQUAL = "="
    NOT_EQUAL = "<>"
    GREATER_OR_EQUAL = ">="
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    LESS = "<"


class AggregateFunction(StrEnum):
    """From any number of values to one; all but SUM are of the extended dialect.

    Undefined values are skipped. SUM, COUNT and COUNT_DISTINCT of nothing are 0; AVG, MIN and MAX of nothing are
    undefined. SUM and AVG are correctly rounded from the exact sum.
    """

    SUM = "SUM"
    COUNT = "COUNT"
    COUNT_DISTINCT = "COUNT_DISTINCT"
    AVG = "AVG"
    MIN = "MIN"
    MAX = "MAX"


ConstantValue = str | float | bool | tuple[str, ...] | tuple[float, ...] | tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal; an array literal is a tuple. Numbers are floats."""

    value: ConstantValue
    type: Type
    span: Span = field(compare=False)

    def __eq__(self, other: object) -> bool:
        # 1.0 == True in Python; the types keep them apart.
        return isinstance(other, Constant) and self.type == other.type and self.value == other.value

    def __hash__(self) -> int:
        return hash((Constant, self.type, self.value))


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the block's source: always a vector, over the rows the block sees."""

    name: str
    type: Type
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Negate:
    """`-x`, for each row."""

    operand: "Node"
    type: Type
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Absolute:
    """`ABS(x)`, for each row."""

    operand: "Node"
    type: Type
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """A chain, evaluated from left to right: `((first op x) op y) ...`. School precedence arrives here as nesting."""

    first: "Node"
    rest: tuple[tuple[ArithmeticOperator, "Node"], ...]
    type: Type
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One value from all the values of all the arguments (each a scalar or a vector); never a vector itself."""

    function: AggregateFunction
    arguments: tuple["Node", ...]
    type: Type
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Select:
    """`(SELECT term FROM source WHERE ...)`: always over the customer's whole source, whatever is around it.

    `repeats`: the term is made of literals alone, and its value stands once for each selected row. A term that is one
    value through an aggregate is one value here too (`type.vector` is false).
    """

    term: "Node"
    source: str
    where: "Node | None"
    repeats: bool
    type: Type
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Gather:
    """`x IN (SELECT ...)` of the extended dialect: the selected scalars as one array. Undefined ones are left out."""

    select: Select
    type: Type
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Period:
    """How far back a window reaches: calendar years and months first, then days, hours and minutes of fixed length.

    Each is a numeric, non-vector node without columns of its own block outside an aggregate. Where all are literal
    expressions (`constant`), the checker has made sure of whole numbers from 0; else that is seen at run time
    (E_INTEGER for the customer).
    """

    years: "Node"
    months: "Node"
    days: "Node"
    hours: "Node | None" = None
    minutes: "Node | None" = None
    constant: tuple[int, int, int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Within:
    """DATETIME_FROM (`inside`: operand > cutoff) or DATETIME_TO (operand <= cutoff); the undefined is in neither."""

    operand: "Node"
    period: Period
    inside: bool
    type: Type
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Compare:
    """A comparison, for each row; FALSE where a side is undefined, also for `<>`."""

    operator: ComparisonOperator
    left: "Node"
    right: "Node"
    type: Type
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Membership:
    """`left IN right`: a scalar and an array of its kind, for each row; FALSE where left is undefined."""

    left: "Node"
    right: "Node"
    type: Type
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class And:
    """All hold; two or more, none an `And` in the strict dialect. A condition that is undefined counts as FALSE."""

    conditions: tuple["Node", ...]
    type: Type
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Or:
    """One holds at least (extended)."""

    conditions: tuple["Node", ...]
    type: Type
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Not:
    """Does not hold (extended); what is undefined counts as FALSE, so its NOT is TRUE."""

    condition: "Node"
    type: Type
    span: Span = field(compare=False)


Node = (
    Constant
    | Column
    | Negate
    | Absolute
    | Arithmetic
    | Aggregate
    | Select
    | Gather
    | Within
    | Compare
    | Membership
    | And
    | Or
    | Not
)


@dataclass(frozen=True, slots=True)
class CheckedQuery:
    """A query that can be evaluated. `where` is a boolean vector or None, `having` one boolean or None."""

    name: str
    source: str
    where: Node | None
    having: Node | None
    dialect: Dialect = field(compare=False)
    text: str = field(compare=False)
    warnings: tuple[Diagnostic, ...] = field(compare=False, default=())


@dataclass(frozen=True, slots=True)
class CheckedTerm:
    """An expression or a term on its own, over the rows of one source: conformance cases and templates."""

    node: Node
    source: str
    dialect: Dialect = field(compare=False)
    text: str = field(compare=False)
    warnings: tuple[Diagnostic, ...] = field(compare=False, default=())


def conjuncts(node: Node | None) -> tuple[Node, ...]:
    """The conditions that must all hold: an `And`'s parts, flattened; nothing for None."""
    if node is None:
        return ()
    if isinstance(node, And):
        return tuple(part for condition in node.conditions for part in conjuncts(condition))
    return (node,)


def children(node: Node) -> Iterator[Node]:
    """The nodes directly below, in the order of the text; of a `Select` the term and the condition."""
    if isinstance(node, Within):
        yield node.operand
        for part in (getattr(node.period, each.name) for each in fields(Period)[:5]):
            if part is not None:
                yield part
    elif isinstance(node, Arithmetic):
        yield node.first
        for _, operand in node.rest:
            yield operand
    elif isinstance(node, Aggregate):
        yield from node.arguments
    elif isinstance(node, (And, Or)):
        yield from node.conditions
    elif isinstance(node, (Compare, Membership)):
        yield node.left
        yield node.right
    elif isinstance(node, (Negate, Absolute)):
        yield node.operand
    elif isinstance(node, Not):
        yield node.condition
    elif isinstance(node, Gather):
        yield node.select
    elif isinstance(node, Select):
        yield node.term
        if node.where is not None:
            yield node.where


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it, in the order of the text."""
    yield node
    for child in children(node):
        yield from walk(child)


def selected_sources(query: CheckedQuery) -> frozenset[str]:
    """Every source the query reads: its own and those of its SELECTs."""
    parts = [part for root in (query.where, query.having) if root is not None for part in walk(root)]
    return frozenset({query.source} | {part.source for part in parts if isinstance(part, Select)})
