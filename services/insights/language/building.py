"""What lark's parser builds: each rule's reduction makes its syntax node at once, so nothing recurses."""

from typing import Any, NamedTuple

from lark import Token as LarkToken
from lark import Transformer, v_args

from services.insights.language.diagnostics import Span
from services.insights.language.lexer import Token
from services.insights.language.syntax import (
    Array,
    Between,
    Call,
    Chain,
    Comparison,
    Either,
    Every,
    In,
    Inverse,
    Literal,
    Name,
    Negation,
    Query,
    Reference,
    Subselect,
    Syntax,
)
from services.insights.language.tree import ArithmeticOperator, ComparisonOperator


class Grouped(NamedTuple):
    """A node in parentheses: they matter once more right of IN, where `(5)` is an array and `((5))` is not."""

    node: Syntax
    span: Span


class Clause(NamedTuple):
    """`WHERE` or `HAVING` and what follows."""

    condition: Syntax
    span: Span


class SelectParts(NamedTuple):
    """A SELECT before its parentheses, or inside those of a call."""

    term: Syntax
    source: Name
    where: Syntax | None
    span: Span


def _token(token: LarkToken) -> Token:
    value: Any = token.value
    assert isinstance(value, Token)
    return value


def _name(token: LarkToken) -> Name:
    return Name(_token(token).text, _token(token).span)


def bare(item: Any) -> Any:
    """The node, without its parentheses if it has any."""
    return item.node if isinstance(item, Grouped) else item


def _span(item: Any) -> Span:
    """Where a node, a group or a token stands."""
    span = _token(item).span if isinstance(item, LarkToken) else item.span
    assert isinstance(span, Span)
    return span


def _chain(items: list[Any]) -> Any:
    if len(items) == 1:
        return items[0]
    operators = (ArithmeticOperator(_token(item).text) for item in items[1::2])
    rest = tuple(zip(operators, map(bare, items[2::2]), strict=True))
    return Chain(bare(items[0]), rest, _span(items[0]).to(_span(items[-1])))


@v_args(inline=True)
class Builder(Transformer[LarkToken, Query]):
    """One method for each rule or alias of the grammar; no state."""

    def query(
        self, infer: LarkToken, name: LarkToken, _: LarkToken, source: LarkToken, *clauses: Clause | None
    ) -> Query:
        """INFER name FROM source and the two clauses, each perhaps None."""
        where, having = clauses
        last = next((clause.span for clause in (having, where) if clause), _span(source))
        conditions = [clause and clause.condition for clause in (where, having)]
        return Query(_name(name), _name(source), conditions[0], conditions[1], _span(infer).to(last))

    def where(self, keyword: LarkToken, condition: Any) -> Clause:
        """A clause."""
        return Clause(bare(condition), _span(keyword).to(_span(condition)))

    having = where

    def select(
        self, select: LarkToken, term: Any, _: LarkToken, source: LarkToken, where: Clause | None
    ) -> SelectParts:
        """SELECT term FROM source and perhaps a WHERE."""
        span = _span(select).to(where.span if where else _span(source))
        return SelectParts(bare(term), _name(source), where.condition if where else None, span)

    def subselect(self, opening: LarkToken, select: SelectParts, closing: LarkToken) -> Subselect:
        """A SELECT in parentheses."""
        return Subselect(select.term, select.source, select.where, _span(opening).to(_span(closing)))

    def group(self, opening: LarkToken, node: Any, closing: LarkToken) -> Grouped:
        """A term, or in the extended dialect a condition, in parentheses."""
        return Grouped(bare(node), _span(opening).to(_span(closing)))

    def in_group(self, opening: LarkToken, node: Any, closing: LarkToken) -> Array | Grouped:
        """Parentheses right of IN: around one literal they make an array."""
        literal = node.operand if isinstance(node, Negation) else node
        if isinstance(literal, Literal):
            return Array((node,), _span(opening).to(_span(closing)))
        return Grouped(bare(node), _span(opening).to(_span(closing)))

    def array(self, opening: LarkToken, *items: Any) -> Array:
        """Two or more literals."""
        return Array(tuple(items[:-1:2]), _span(opening).to(_span(items[-1])))

    def call(self, name: LarkToken, _: LarkToken, *items: Any) -> Call:
        """A function and its arguments; a lone SELECT needs no parentheses of its own."""
        closing = items[-1]
        given = [item for item in items[:-1] if item is not None and not isinstance(item, LarkToken)]
        arguments = tuple(Subselect(*item) if isinstance(item, SelectParts) else bare(item) for item in given)
        function = Name(_token(name).text.upper(), _span(name))
        return Call(function, arguments, _span(name).to(_span(closing)))

    def column(self, name: LarkToken) -> Reference:
        """A column."""
        return Reference(_token(name).text, _span(name))

    def string(self, token: LarkToken) -> Literal:
        """A string's value is the lexer's work."""
        return Literal(_token(token).value, _span(token))

    number = string

    def true(self, token: LarkToken) -> Literal:
        """TRUE."""
        return Literal(True, _span(token))

    def false(self, token: LarkToken) -> Literal:
        """FALSE."""
        return Literal(False, _span(token))

    def negation(self, minus: LarkToken, operand: Any) -> Negation:
        """A sign."""
        return Negation(bare(operand), _span(minus).to(_span(operand)))

    def term(self, *items: Any) -> Any:
        """Arithmetic; a single factor is itself."""
        return _chain(list(items))

    product = term

    def comparison(self, left: Any, operator: LarkToken, right: Any) -> Comparison:
        """A comparison; `!=` is another spelling of `<>`."""
        sign = ComparisonOperator(_token(operator).text.replace("!=", "<>"))
        return Comparison(sign, bare(left), bare(right), _span(left).to(_span(right)))

    def membership(self, left: Any, _: LarkToken, right: Any) -> In:
        """IN."""
        return In(bare(left), bare(right), _span(left).to(_span(right)))

    def not_membership(self, left: Any, _: LarkToken, keyword: LarkToken, right: Any) -> Inverse:
        """NOT IN."""
        inner = self.membership(left, keyword, right)
        return Inverse(inner, inner.span)

    def between(self, operand: Any, _: LarkToken, low: Any, joined: LarkToken, high: Any) -> Between:
        """BETWEEN low AND high."""
        return Between(bare(operand), bare(low), bare(high), _span(operand).to(_span(high)))

    def not_between(self, operand: Any, _: LarkToken, keyword: LarkToken, *rest: Any) -> Inverse:
        """NOT BETWEEN."""
        inner = self.between(operand, keyword, *rest)
        return Inverse(inner, inner.span)

    def inverse(self, keyword: LarkToken, condition: Any) -> Inverse:
        """NOT."""
        return Inverse(bare(condition), _span(keyword).to(_span(condition)))

    def conjunction(self, *items: Any) -> Any:
        """AND; a single condition is itself."""
        if len(items) == 1:
            return items[0]
        return Every(tuple(map(bare, items[::2])), _span(items[0]).to(_span(items[-1])))

    def expression(self, *items: Any) -> Any:
        """The strict dialect's AND, the extended one's OR; a single condition is itself."""
        if len(items) == 1:
            return items[0]
        joined = tuple(map(bare, items[::2]))
        kind = Every if _token(items[1]).kind == "AND" else Either
        return kind(joined, _span(items[0]).to(_span(items[-1])))
