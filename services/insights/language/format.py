"""Queries as text again, one clause and one condition a line: `parse(format(tree)) == tree`."""

from decimal import Decimal

from services.insights.language import syntax
from services.insights.language.parsing import parse_query
from services.insights.language.tree import ArithmeticOperator, Dialect

_WIDTH = 100
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
_PRODUCTS = frozenset({ArithmeticOperator.MULTIPLY, ArithmeticOperator.DIVIDE})
_CONDITIONS = (
    syntax.Comparison,
    syntax.In,
    syntax.Between,
    syntax.Every,
    syntax.Either,
    syntax.Inverse,
)


def format_text(text: str, dialect: Dialect = Dialect.STRICT) -> str:
    """A query laid out afresh; its meaning is the same to the letter. Raises QueryError."""
    return format_query(parse_query(text, dialect), dialect)


def format_query(query: syntax.Query, dialect: Dialect = Dialect.STRICT) -> str:
    """A query's tree, in the dialect it was read in. Ends with a line break."""
    lines = [f"INFER {query.name.text} FROM {query.source.text}"]
    for keyword, condition in (("WHERE", query.where), ("HAVING", query.having)):
        if condition is not None:
            lines.append(f"{keyword} {_clause(condition, dialect)}")
    return "\n".join(lines) + "\n"


def format_syntax(found: syntax.Syntax, dialect: Dialect = Dialect.STRICT) -> str:
    """An expression or a term on one line."""
    return _Printer(dialect, broken=False).condition(found)


def _clause(condition: syntax.Syntax, dialect: Dialect) -> str:
    parts = condition.conditions if isinstance(condition, syntax.Every) else (condition,)
    lines = []
    for part in parts:
        inner = isinstance(condition, syntax.Every)
        line = _Printer(dialect, broken=False).part(part, inner=inner)
        lines.append(line if len(line) <= _WIDTH else _Printer(dialect, broken=True).part(part, inner=inner))
    return "\n  AND ".join(lines)


def string_literal(value: str) -> str:
    """A string in double quotes; what cannot be seen is escaped."""
    return '"' + "".join(map(_character, value)) + '"'


def number_literal(value: float) -> str:
    """A number from 0 without an exponent, exact."""
    return format(Decimal(int(value)) if value.is_integer() else Decimal(repr(value)), "f")


def _character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


class _Printer:
    """Syntax to text. `broken`: embedded SELECTs take lines of their own, as long clauses need."""

    def __init__(self, dialect: Dialect, *, broken: bool) -> None:
        self._dialect = dialect
        self._broken = broken
        self._depth = 0

    def part(self, found: syntax.Syntax, *, inner: bool) -> str:
        """A condition by itself or, `inner`, one of several joined by AND."""
        text = self.condition(found)
        return f"({text})" if inner and isinstance(found, (syntax.Every, syntax.Either)) else text

    def condition(self, found: syntax.Syntax) -> str:
        """Anything, where a condition may stand."""
        match found:
            case syntax.Every():
                return " AND ".join(self.part(each, inner=True) for each in found.conditions)
            case syntax.Either():
                shown = (self.condition(each) for each in found.conditions)
                wrap = [isinstance(each, syntax.Either) for each in found.conditions]
                return " OR ".join(f"({text})" if inside else text for text, inside in zip(shown, wrap, strict=True))
            case syntax.Inverse():
                return self._inverse(found.condition)
            case syntax.Comparison():
                return f"{self.term(found.left)} {found.operator} {self.term(found.right)}"
            case syntax.In():
                return self._in(found, "IN")
            case syntax.Between():
                return self._between(found, "BETWEEN")
            case _:
                return self.term(found)

    def term(self, found: syntax.Syntax) -> str:
        """Anything, where a term stands: a condition there is in parentheses."""
        match found:
            case syntax.Literal():
                return _literal(found.value)
            case syntax.Reference():
                return found.name
            case syntax.Array():
                return f"({', '.join(map(self.term, found.elements))})"
            case syntax.Negation():
                return f"-{self._wrapped(found.operand)}"
            case syntax.Chain():
                rest = (f" {operator} {self._operand(operand, operator)}" for operator, operand in found.rest)
                return self._operand(found.first, found.rest[0][0]) + "".join(rest)
            case syntax.Call():
                return self._call(found)
            case syntax.Subselect():
                return f"({self._select(found)})"
            case _:
                return f"({self.condition(found)})"

    def _operand(self, found: syntax.Syntax, operator: ArithmeticOperator) -> str:
        """An operand of a chain; school knows that products come before sums."""
        if isinstance(found, syntax.Chain) and self._dialect is Dialect.EXTENDED:
            products = all(each in _PRODUCTS for each, _ in found.rest)
            if products and operator not in _PRODUCTS:
                return self.term(found)
        return self._wrapped(found)

    def _wrapped(self, found: syntax.Syntax) -> str:
        text = self.term(found)
        return f"({text})" if isinstance(found, syntax.Chain) else text

    def _inverse(self, found: syntax.Syntax) -> str:
        if isinstance(found, syntax.In):
            return self._in(found, "NOT IN")
        if isinstance(found, syntax.Between):
            return self._between(found, "NOT BETWEEN")
        return f"NOT {self.part(found, inner=True)}"

    def _in(self, found: syntax.In, word: str) -> str:
        right = self.term(found.right)
        if isinstance(found.right, syntax.Negation) and isinstance(found.right.operand, syntax.Literal):
            # One pair of parentheses would make an array of it.
            right = f"(({right}))"
        elif isinstance(found.right, (syntax.Chain, syntax.Negation)):
            right = f"({right})"
        return f"{self.term(found.left)} {word} {right}"

    def _between(self, found: syntax.Between, word: str) -> str:
        return f"{self.term(found.operand)} {word} {self.term(found.low)} AND {self.term(found.high)}"

    def _call(self, found: syntax.Call) -> str:
        name = found.function.text
        if len(found.arguments) == 1 and isinstance(found.arguments[0], syntax.Subselect):
            return f"{name}({self._select(found.arguments[0])})"
        return f"{name}({', '.join(map(self.term, found.arguments))})"

    def _select(self, found: syntax.Subselect) -> str:
        head = f"SELECT {self.term(found.term)} FROM {found.source.text}"
        if found.where is None:
            return head
        if not self._broken:
            return f"{head} WHERE {self.condition(found.where)}"
        self._depth += 1
        indent = "    " * self._depth
        parts = found.where.conditions if isinstance(found.where, syntax.Every) else (found.where,)
        inner = isinstance(found.where, syntax.Every)
        joined = f"\n{indent}  AND ".join(self.part(each, inner=inner) for each in parts)
        self._depth -= 1
        return f"{head}\n{indent}WHERE {joined}"


def _literal(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    return string_literal(value) if isinstance(value, str) else number_literal(value)
