"""What a query's text says, before names and types are looked at: the tree the formatter prints.

Nodes compare by content; spans play no part. Redundant parentheses are gone; those that matter are structure.
"""

from dataclasses import dataclass, field

from services.insights.language.diagnostics import Span
from services.insights.language.tree import ArithmeticOperator, ComparisonOperator


@dataclass(frozen=True, slots=True)
class Name:
    """An identifier."""

    text: str
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Literal:
    """A string, a number or a truth value."""

    value: str | float | bool
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Reference:
    """A column's name."""

    name: str
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Negation:
    """`-x`."""

    operand: "Syntax"
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Chain:
    """Arithmetic, from left to right."""

    first: "Syntax"
    rest: tuple[tuple[ArithmeticOperator, "Syntax"], ...]
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Call:
    """A function's name, in capitals whatever was written, and its arguments."""

    function: Name
    arguments: tuple["Syntax", ...]
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Subselect:
    """An embedded SELECT."""

    term: "Syntax"
    source: Name
    where: "Syntax | None"
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Array:
    """An array literal; its elements are literals, a number perhaps negative."""

    elements: tuple["Syntax", ...]
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two terms compared."""

    operator: ComparisonOperator
    left: "Syntax"
    right: "Syntax"
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class In:
    """A term IN another."""

    left: "Syntax"
    right: "Syntax"
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Between:
    """A term BETWEEN two others, both ends included (extended)."""

    operand: "Syntax"
    low: "Syntax"
    high: "Syntax"
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Every:
    """Conditions joined by AND."""

    conditions: tuple["Syntax", ...]
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Either:
    """Conditions joined by OR (extended)."""

    conditions: tuple["Syntax", ...]
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Inverse:
    """NOT a condition (extended)."""

    condition: "Syntax"
    span: Span = field(compare=False)


Syntax = (
    Literal
    | Reference
    | Negation
    | Chain
    | Call
    | Subselect
    | Array
    | Comparison
    | In
    | Between
    | Every
    | Either
    | Inverse
)


@dataclass(frozen=True, slots=True)
class Query:
    """A whole query."""

    name: Name
    source: Name
    where: Syntax | None
    having: Syntax | None
    span: Span = field(compare=False)
