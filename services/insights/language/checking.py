"""Names and types: from a syntax tree to a typed one, with every mistake on the way."""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import pairwise

from services.insights.language import functions, syntax
from services.insights.language.diagnostics import Code, Diagnostic, Phase, Span
from services.insights.language.lexer import MAX_ERRORS
from services.insights.language.limits import array_too_long
from services.insights.language.sources import Sources, SourceSchema
from services.insights.language.tree import (
    And,
    Arithmetic,
    Column,
    Compare,
    ComparisonOperator,
    Constant,
    ConstantValue,
    Dialect,
    Gather,
    Membership,
    Negate,
    Node,
    Not,
    Or,
    Select,
)
from services.insights.language.types import BOOLEAN, NUMERIC, STRING, Kind, Type

_ORDERED = frozenset(ComparisonOperator) - {ComparisonOperator.EQUAL, ComparisonOperator.NOT_EQUAL}
_CONVERSIONS = {
    frozenset({Kind.DATETIME, Kind.STRING}): "there are no datetime literals: DATETIME_FROM and DATETIME_TO bound one",
    frozenset({Kind.NUMERIC, Kind.STRING}): "nothing is converted: a number stands without quotes",
    frozenset({Kind.BOOLEAN, Kind.STRING}): "nothing is converted: TRUE and FALSE stand without quotes",
}


class Checker:
    """Checks the parts of one query; `errors` gathers what is wrong.

    Every method gives None for a part that has an error somewhere, so that one mistake is told once.
    """

    def __init__(self, sources: Sources, dialect: Dialect) -> None:
        self._sources = sources
        self.dialect = dialect
        self.errors: list[Diagnostic] = []

    def wrong(self, code: Code, message: str, span: Span, hint: str = "") -> None:
        """Notes an error; the first `MAX_ERRORS` are enough for anyone."""
        if not self.full:
            self.errors.append(Diagnostic(code, Phase.TYPE, message, span, hint))

    @property
    def full(self) -> bool:
        """Whether further errors are dropped."""
        return len(self.errors) >= MAX_ERRORS

    def source(self, name: syntax.Name) -> SourceSchema | None:
        """The source of a FROM."""
        found = self._sources.get(name.text)
        if found is None and not self.full:
            hint = _nearest(name.text, self._sources) or f"there is {', '.join(sorted(self._sources)[:10])}"
            self.wrong(Code.DATASOURCE, f"there is no source {_shown(name.text)}", name.span, hint)
        return found

    def where(self, found: syntax.Syntax, source: SourceSchema | None) -> Node | None:
        """A WHERE: a boolean for each row."""
        node = self.condition(found, source)
        if node is not None and not node.type.vector:
            hint = "compare a column of the source; a condition on the whole belongs to HAVING"
            self.wrong(Code.WHERE_NOT_VECTOR, "WHERE is one value, not one for each row", node.span, hint)
            return None
        return node

    def having(self, found: syntax.Syntax, source: SourceSchema | None) -> Node | None:
        """A HAVING: one boolean."""
        node = self.condition(found, source)
        if node is not None and node.type.vector:
            hint = "put columns into SUM(...), or move the condition to WHERE"
            self.wrong(Code.HAVING_VECTOR, "HAVING is a value for each row, not a single one", node.span, hint)
            return None
        return node

    def condition(self, found: syntax.Syntax, source: SourceSchema | None) -> Node | None:
        """Anything boolean."""
        if isinstance(found, (syntax.Every, syntax.Either)):
            parts = [self.condition(each, source) for each in found.conditions]
            kept = tuple(part for part in parts if part is not None)
            if len(kept) < len(parts):
                return None
            joined = And if isinstance(found, syntax.Every) else Or
            return joined(kept, _wide(BOOLEAN, kept), found.span)
        if isinstance(found, syntax.Inverse):
            inner = self.condition(found.condition, source)
            return None if inner is None else Not(inner, inner.type, found.span)
        node = self.term(found, source)
        if node is not None and (node.type.kind is not Kind.BOOLEAN or node.type.array):
            self.wrong(Code.TYPE, f"a condition is boolean, this is {node.type.name}", node.span, "compare it")
            return None
        return node

    def term(self, found: syntax.Syntax, source: SourceSchema | None) -> Node | None:
        """Anything with a value."""
        match found:
            case syntax.Literal():
                return Constant(found.value, _type_of(found.value), found.span)
            case syntax.Reference():
                return self._column(found, source)
            case syntax.Negation():
                operand = self.scalar(found.operand, source, (Kind.NUMERIC,), "- takes")
                return None if operand is None else Negate(operand, operand.type, found.span)
            case syntax.Chain():
                return self._chain(found, source)
            case syntax.Call():
                return functions.check(self, found, source)
            case syntax.Subselect():
                return self.select(found)
            case syntax.Array():
                return self._array(found)
            case syntax.Comparison():
                return self._comparison(found, source)
            case syntax.In():
                return self._membership(found, source)
            case syntax.Between():
                return self._between(found, source)
            case _:
                return self.condition(found, source)

    def scalar(
        self, found: syntax.Syntax, source: SourceSchema | None, kinds: tuple[Kind, ...], what: str
    ) -> Node | None:
        """A term that is no array and of one of the kinds; `what` begins the message."""
        node = self.term(found, source)
        if node is not None and (node.type.array or node.type.kind not in kinds):
            wanted = "a single value" if len(kinds) == len(Kind) else " or ".join(kinds)
            self.wrong(Code.TYPE, f"{what} {wanted}, this is {node.type.name}", node.span, _array_hint(node))
            return None
        return node

    def select(self, found: syntax.Subselect) -> Select | None:
        """An embedded SELECT."""
        source = self.source(found.source)
        term = self.term(found.term, source)
        where = None if found.where is None else self.where(found.where, source)
        if term is None or source is None or (where is None and found.where is not None):
            return None
        if isinstance(term, Constant) and term.type.array:
            self.wrong(Code.TYPE, "an array literal cannot be selected", term.span, _array_hint(term))
            return None
        repeats = not term.type.vector and functions.only_literals(term)
        return Select(term, source.name, where, repeats, term.type.as_vector(term.type.vector or repeats), found.span)

    def _column(self, found: syntax.Reference, source: SourceSchema | None) -> Node | None:
        if source is None:
            return None
        type_ = source.columns.get(found.name)
        if type_ is not None:
            return Column(found.name, type_.as_vector(), found.span)
        if not self.full:
            hint = _nearest(found.name, source.columns) or f"its columns are {', '.join(source.columns)}"
            self.wrong(Code.COLUMN, f"{source.name} has no column {_shown(found.name)}", found.span, hint)
        return None

    def _chain(self, found: syntax.Chain, source: SourceSchema | None) -> Node | None:
        terms = [found.first, *(operand for _, operand in found.rest)]
        parts = [self.scalar(each, source, (Kind.NUMERIC,), "arithmetic takes") for each in terms]
        kept = [part for part in parts if part is not None]
        if len(kept) < len(parts):
            return None
        rest = tuple((operator, part) for (operator, _), part in zip(found.rest, kept[1:], strict=True))
        return Arithmetic(kept[0], rest, _wide(NUMERIC, kept), found.span)

    def _array(self, found: syntax.Array) -> Node | None:
        long = array_too_long(len(found.elements), found.span)
        if long is not None:
            self.wrong(long.code, long.message, long.span, long.hint)
            return None
        values = [_element(each) for each in found.elements]
        for value, each in zip(values, found.elements, strict=True):
            if value is None:
                self.wrong(Code.TYPE, "only a number has a sign", each.span)
                return None
        types = [_type_of(value) for value in values if value is not None]
        for (before, after), each in zip(pairwise(types), found.elements[1:], strict=False):
            if before != after:
                message = f"an array has elements of one type: {before} and then {after}"
                self.wrong(Code.TYPE, message, each.span)
                return None
        kept: ConstantValue = tuple(values)  # type: ignore[assignment]
        return Constant(kept, Type(types[0].kind, array=True), found.span)

    def _comparison(self, found: syntax.Comparison, source: SourceSchema | None) -> Node | None:
        left = self.scalar(found.left, source, tuple(Kind), "a comparison takes")
        right = self.scalar(found.right, source, tuple(Kind), "a comparison takes")
        if left is None or right is None:
            return None
        return self._compared(found.operator, left, right, found.span)

    def _compared(self, operator: ComparisonOperator, left: Node, right: Node, span: Span) -> Node | None:
        if left.type.kind is not right.type.kind:
            hint = _CONVERSIONS.get(frozenset({left.type.kind, right.type.kind}), "nothing is converted")
            self.wrong(Code.TYPE, f"{left.type.name} cannot be compared with {right.type.name}", span, hint)
            return None
        if left.type.kind is Kind.BOOLEAN and operator in _ORDERED:
            self.wrong(Code.TYPE, f"booleans have no order for {operator}", span, "they take = and <>")
            return None
        return Compare(operator, left, right, _wide(BOOLEAN, (left, right)), span)

    def _between(self, found: syntax.Between, source: SourceSchema | None) -> Node | None:
        parts = [
            self.scalar(each, source, tuple(Kind), "BETWEEN takes") for each in (found.operand, found.low, found.high)
        ]
        operand, low, high = parts
        if operand is None or low is None or high is None:
            return None
        above = self._compared(ComparisonOperator.GREATER_OR_EQUAL, operand, low, found.span)
        below = self._compared(ComparisonOperator.LESS_OR_EQUAL, operand, high, found.span) if above else None
        if above is None or below is None:
            return None
        return And((above, below), _wide(BOOLEAN, (above, below)), found.span)

    def _membership(self, found: syntax.In, source: SourceSchema | None) -> Node | None:
        left = self.scalar(found.left, source, tuple(Kind), "the left of IN is")
        right = self.term(found.right, source)
        if left is None or right is None:
            return None
        if isinstance(right, Select) and not right.type.array and self.dialect is Dialect.EXTENDED:
            right = Gather(right, Type(right.type.kind, array=True), right.span)
        if not right.type.array:
            hint = "IN (SELECT ...) over single values is of the extended dialect" if isinstance(right, Select) else ""
            self.wrong(Code.TYPE, f"the right of IN is an array, this is {right.type.name}", right.span, hint)
            return None
        if left.type.kind is not right.type.kind:
            self.wrong(Code.TYPE, f"a {left.type.name} is never in a {right.type.name}", found.span)
            return None
        return Membership(left, right, _wide(BOOLEAN, (left, right)), found.span)


def _wide(type_: Type, parts: Iterable[Node]) -> Type:
    """The type, a vector when one of the parts is."""
    return type_.as_vector(any(part.type.vector for part in parts))


def _type_of(value: str | float | bool) -> Type:
    if isinstance(value, bool):
        return BOOLEAN
    return STRING if isinstance(value, str) else NUMERIC


def _element(found: syntax.Syntax) -> str | float | bool | None:
    if isinstance(found, syntax.Literal):
        return found.value
    assert isinstance(found, syntax.Negation)
    inner = found.operand
    if isinstance(inner, syntax.Literal) and isinstance(inner.value, float):
        return -inner.value
    return None


def _array_hint(node: Node) -> str:
    if isinstance(node, Constant) and node.type.array:
        return "an array literal stands only to the right of IN"
    return "an array is for the right of IN" if node.type.array else ""


def _nearest(name: str, names: Iterable[str]) -> str:
    """A hint with the names most like this one; "" when none is."""
    known = list(names)
    if len(name) > 64:
        return ""
    same = [each for each in known if each.lower() == name.lower()]
    near = same or get_close_matches(name, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else ""


def _shown(name: str) -> str:
    return name if len(name) <= 64 else name[:61] + "..."
