"""Warnings: queries that are taken, but perhaps do not say what was meant."""

from collections.abc import Iterator

from services.insights.language.constants import is_constant, value_of
from services.insights.language.diagnostics import Code, Diagnostic, Phase, Span
from services.insights.language.lexer import MAX_ERRORS
from services.insights.language.sources import Sources, SourceSchema
from services.insights.language.tree import (
    Absolute,
    Aggregate,
    AggregateFunction,
    Arithmetic,
    ArithmeticOperator,
    Column,
    Compare,
    ComparisonOperator,
    Constant,
    Membership,
    Negate,
    Node,
    Select,
    Within,
    children,
    conjuncts,
    walk,
)
from services.insights.language.types import Kind

_ADDITIVE = frozenset({ArithmeticOperator.ADD, ArithmeticOperator.SUBTRACT})
_EQUALITIES = frozenset({ComparisonOperator.EQUAL, ComparisonOperator.NOT_EQUAL})
_COUNTS = frozenset({AggregateFunction.COUNT, AggregateFunction.COUNT_DISTINCT})


def doubts(where: Node | None, having: Node | None, source: SourceSchema, sources: Sources) -> list[Diagnostic]:
    """All warnings of a query's two clauses, in the order of the text."""
    found = [*_decided(where, having)]
    found += _of_block(where, having, source)
    for root in (where, having):
        if root is not None:
            found += in_term(root, sources)
    return sorted(found, key=lambda each: each.span.start)[:MAX_ERRORS]


def in_term(root: Node, sources: Sources) -> Iterator[Diagnostic]:
    """The warnings about a term and the SELECTs in it."""
    summed = {
        id(part)
        for node in walk(root)
        if isinstance(node, Aggregate) and node.function not in _COUNTS
        for part in walk(node)
        if isinstance(part, Select)
    }
    for node in walk(root):
        if isinstance(node, Arithmetic) and _mixed(node):
            message = "arithmetic is evaluated from left to right: 2 + 3 * 4 is 20"
            yield _doubt(Code.MIXED_PRECEDENCE, message, node.span, "parentheses say which comes first")
        elif isinstance(node, Compare) and node.operator in _EQUALITIES and node.left.type.kind is Kind.NUMERIC:
            if any(_computed(side) for side in (node.left, node.right)):
                message = "computed numbers are binary floating point: 0.1 + 0.2 = 0.3 is FALSE"
                yield _doubt(Code.FLOAT_EQ, message, node.span, "compare with >= and <=")
        elif isinstance(node, Select):
            yield from _of_block(node.where, node.term, sources[node.source], summed=id(node) in summed)


def _doubt(code: Code, message: str, span: Span, hint: str = "") -> Diagnostic:
    return Diagnostic(code, Phase.TYPE, message, span, hint)


def _mixed(node: Arithmetic) -> bool:
    """Whether school would read the chain otherwise: a product after a sum."""
    added = False
    for operator, _ in node.rest:
        if operator in _ADDITIVE:
            added = True
        elif added:
            return True
    return False


def _computed(node: Node) -> bool:
    """Whether a number comes out of arithmetic or sums that need not be exact."""
    return not isinstance(node, (Constant, Column)) and not _whole(node) and not _read(node)


def _read(node: Node) -> bool:
    """Whether a number is only read: a column, a literal, a sign or ABS of one, a SELECT of one."""
    if isinstance(node, (Negate, Absolute)):
        return _read(node.operand)
    if isinstance(node, Select):
        return _read(node.term)
    if isinstance(node, Aggregate):
        return node.function in (AggregateFunction.MIN, AggregateFunction.MAX) and all(map(_read, node.arguments))
    return isinstance(node, (Constant, Column))


def _whole(node: Node) -> bool:
    """Whether a number is a whole one for sure, so that doubles hold it exactly."""
    if isinstance(node, Constant):
        return isinstance(node.value, float) and node.value.is_integer()
    if isinstance(node, Aggregate):
        if node.function in _COUNTS:
            return True
        return node.function is not AggregateFunction.AVG and all(map(_whole, node.arguments))
    if isinstance(node, Arithmetic) and any(operator is ArithmeticOperator.DIVIDE for operator, _ in node.rest):
        return False
    if isinstance(node, Select):
        return _whole(node.term)
    return isinstance(node, (Arithmetic, Negate, Absolute)) and all(map(_whole, children(node)))


def _decided(where: Node | None, having: Node | None) -> Iterator[Diagnostic]:
    """Clauses of literals alone have one answer for everyone."""
    if where is None and having is None:
        message = "without WHERE and HAVING the insight never applies"
        yield _doubt(Code.NEVER, message, Span(0, 0, 1, 1), "add a condition")
    for clause, name in ((where, "WHERE"), (having, "HAVING")):
        parts = conjuncts(clause)
        constant = [part for part in parts if is_constant(part)]
        false = next((part for part in constant if not value_of(part)), None)
        if false is not None:
            does = "keeps no row" if name == "WHERE" else "never holds"
            yield _doubt(Code.NEVER, f"this is never true, so {name} {does}", false.span)
        elif parts and len(constant) == len(parts):
            yield _doubt(Code.ALWAYS, f"{name} is always true", parts[0].span.to(parts[-1].span))


def _of_block(
    where: Node | None, rest: Node | None, source: SourceSchema, *, summed: bool = False
) -> Iterator[Diagnostic]:
    """What a FROM block's rows let in. `rest` is HAVING or the term: it sees the rows that WHERE keeps.

    `summed`: an aggregate stands around the block.
    """
    conditions = conjuncts(where)
    first = next((column for root in (where, rest) if root is not None for column in _columns(root)), None)
    bounded = any(
        isinstance(part, Within)
        and part.inside
        and isinstance(part.operand, Column)
        and part.operand.name == source.time_column
        for part in conditions
    )
    whole = next((column for part in conditions for column in _columns(part, of_aggregates=True)), None)
    unbounded = whole if bounded else first
    if unbounded is not None:
        what = "an aggregate in WHERE reads all rows, however old" if bounded else "rows of any age are read"
        hint = f"add DATETIME_FROM({source.time_column}, years, months, days) to WHERE"
        hint = "put it into a SELECT with its own DATETIME_FROM" if bounded else hint
        yield _doubt(Code.UNBOUNDED, what, unbounded.span, hint)
    amounts = () if rest is None else _columns(rest, of_aggregates=True, inside=summed)
    amount = next((column for column in amounts if column.name == source.amount_column), None)
    if amount is None:
        return
    if source.currency_column and not any(_pins(part, source.currency_column) for part in conditions):
        hint = f'add {source.currency_column} = "GBP", say, to WHERE'
        yield _doubt(Code.MIXED_CURRENCY, "amounts of different currencies are added up", amount.span, hint)
    if source.status_column and not any(
        column.name == source.status_column for part in conditions for column in _columns(part)
    ):
        hint = f'add {source.status_column} = "booked" to WHERE to leave them out'
        yield _doubt(Code.PENDING, "pending rows are added up too", amount.span, hint)


def _pins(part: Node, column: str) -> bool:
    """Whether a condition lets one value of a column through."""
    if isinstance(part, Compare) and part.operator is ComparisonOperator.EQUAL:
        sides = (part.left, part.right)
        return any(isinstance(each, Column) and each.name == column for each in sides) and any(
            isinstance(each, Constant) for each in sides
        )
    if isinstance(part, Membership) and isinstance(part.left, Column) and part.left.name == column:
        return isinstance(part.right, Constant) and isinstance(part.right.value, tuple) and len(part.right.value) == 1
    return False


def _columns(node: Node, *, of_aggregates: bool = False, inside: bool = False) -> Iterator[Column]:
    """The columns of the block itself, not of its SELECTs; with `of_aggregates` only those that are aggregated."""
    if isinstance(node, Column):
        if inside or not of_aggregates:
            yield node
    elif not isinstance(node, Select):
        deeper = inside or (isinstance(node, Aggregate) and node.function not in _COUNTS)
        for child in children(node):
            yield from _columns(child, of_aggregates=of_aggregates, inside=deeper)
