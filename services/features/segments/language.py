"""The language of conditions: from text to a tree of names and literals, with the place of everything.

    plan = 'pro' and num_page_views_l7d between 3 and 10 and not country in ('GB', 'FR') and last_seen > now - 7 days

The grammar is LALR(1), the lexer has no look-around: both take time in proportion to the text.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedToken, v_args

from services.features.definitions import suggestion
from services.features.durations import DAY_US, HOUR_US, MAX_DURATION_US, MINUTE_US, SECOND_US

MAX_TEXT = 16 * 1024
MAX_NESTING = 32
MAX_VALUES = 1_000
REMEMBERED = 1_024
"""Texts whose trees are kept: conditions are checked again whenever definitions change."""

COMPARATORS = ("=", "!=", "<", "<=", ">", ">=")
OPERATORS = (*COMPARATORS, "between", "in", "like", "contains", "is null", "is not null")
UNITS_US = {
    **dict.fromkeys(("second", "seconds", "s"), SECOND_US),
    **dict.fromkeys(("minute", "minutes", "min"), MINUTE_US),
    **dict.fromkeys(("hour", "hours", "h"), HOUR_US),
    **dict.fromkeys(("day", "days", "d"), DAY_US),
    **dict.fromkeys(("week", "weeks", "w"), 7 * DAY_US),
}

GRAMMAR = r"""
start: any
any: all (_OR all)*
all: negation (_AND negation)*
?negation: NOT negation -> negate
    | test
    | _OPEN any _CLOSE
?test: name -> holds
    | name COMPARATOR value -> compare
    | name [NOT] _BETWEEN value _AND value -> between
    | name [NOT] _IN _OPEN value (_COMMA value)* _CLOSE -> one_of
    | name [NOT] _LIKE value -> like
    | name [NOT] _CONTAINS value -> contains
    | value [NOT] _IN name -> contained
    | name _IS [NOT] NULL -> is_null
name: NAME (_DOT NAME)*
value: STRING -> string
    | [SIGN] NUMBER -> number
    | (TRUE | FALSE) -> boolean
    | NULL -> null
    | NOW (SIGN NUMBER NAME)* -> moment

_OR.2: /or\b/i
_AND.2: /and\b/i
NOT.2: /not\b/i
_BETWEEN.2: /between\b/i
_IN.2: /in\b/i
_LIKE.2: /like\b/i
_CONTAINS.2: /contains\b/i
_IS.2: /is\b/i
NULL.2: /null\b/i
TRUE.2: /true\b/i
FALSE.2: /false\b/i
NOW.2: /now\b/i
NAME: /[A-Za-z_][A-Za-z0-9_]*|`[^`]{1,128}`/
STRING: /'(?:[^']|'')*'|"[^"]*"/
NUMBER: /[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/
COMPARATOR: /<=|>=|<>|!=|==|=|<|>/
SIGN: /[+-]/
_OPEN: "("
_CLOSE: ")"
_COMMA: ","
_DOT: "."
%ignore /[ \t\r\n]+/
"""


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with a condition, and where: line and column from 1."""

    description: str
    hint: str = ""
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.description}" + (f" ({self.hint})" if self.hint else "")


class ConditionError(Exception):
    """A text is no condition; `mistakes` are all that were found."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("; ".join(str(each) for each in self.mistakes))


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in the text."""

    line: int
    column: int

    def mistake(self, description: str, hint: str = "") -> Mistake:
        """A mistake at this place."""
        return Mistake(description, hint, self.line, self.column)


@dataclass(frozen=True, slots=True)
class Name:
    """A name as it stands in the text."""

    parts: tuple[str, ...]
    spot: Spot


@dataclass(frozen=True, slots=True)
class Value:
    """A literal: str, bool, int, float, None, or `now` with an offset in microseconds."""

    content: str | bool | int | float | None
    spot: Spot
    is_moment: bool = False


@dataclass(frozen=True, slots=True)
class Test:
    """A test of a field; `operator` is a comparator or holds, between, in, like, contains, null."""

    operator: str
    name: Name
    values: tuple[Value, ...] = ()
    negated: bool = False
    spot: Spot = Spot(1, 1)


@dataclass(frozen=True, slots=True)
class Negation:
    """`not`."""

    item: "Node"
    depth: int


@dataclass(frozen=True, slots=True)
class Combination:
    """`and`, `or`."""

    every: bool
    items: tuple["Node", ...]
    depth: int


Node = Test | Negation | Combination


class ConditionParser:
    """Parses conditions."""

    def __init__(self) -> None:
        self.parse = lru_cache(REMEMBERED)(self._parse)
        """The tree of a text; raises ConditionError."""
        self._lark = Lark(GRAMMAR, parser="lalr", lexer="basic", transformer=_Builder(), maybe_placeholders=True)

    def _parse(self, text: str) -> Node:
        if not text.strip():
            raise ConditionError([Mistake("there is no condition", "such as plan = 'pro'")])
        if len(text) > MAX_TEXT:
            raise ConditionError([Mistake(f"the text has {len(text)} characters", f"at most {MAX_TEXT}")])
        try:
            tree: Any = self._lark.parse(text)
        except UnexpectedCharacters as error:
            raise ConditionError([_strange_character(text, error)]) from None
        except UnexpectedToken as error:
            raise ConditionError([_misplaced(error)]) from None
        node: Node = tree
        return node


@v_args(inline=True)
class _Builder(Transformer[Token, Any]):
    """Builds nodes bottom-up, while parsing: no recursion, whatever the nesting."""

    def start(self, node: Node) -> Node:
        return node

    def any(self, *items: Node) -> Node:
        return _combined(False, items)

    def all(self, *items: Node) -> Node:
        return _combined(True, items)

    def negate(self, word: Token, item: Node) -> Node:
        return Negation(item, _deeper(item, spot=_spot(word)))

    def holds(self, name: Name) -> Node:
        return Test("holds", name, spot=name.spot)

    def compare(self, name: Name, comparator: Token, value: Value) -> Node:
        if comparator == "==":
            raise ConditionError([_spot(comparator).mistake("`==` is no operator", "equality is `=`")])
        return Test("!=" if comparator == "<>" else str(comparator), name, (value,), spot=_spot(comparator))

    def between(self, name: Name, negated: Token | None, low: Value, high: Value) -> Node:
        return Test("between", name, (low, high), negated is not None, name.spot)

    def one_of(self, name: Name, negated: Token | None, *values: Value) -> Node:
        if len(values) > MAX_VALUES:
            raise ConditionError([name.spot.mistake(f"`in` has {len(values)} values", f"at most {MAX_VALUES}")])
        return Test("in", name, values, negated is not None, name.spot)

    def like(self, name: Name, negated: Token | None, value: Value) -> Node:
        return Test("like", name, (value,), negated is not None, name.spot)

    def contains(self, name: Name, negated: Token | None, value: Value) -> Node:
        return Test("contains", name, (value,), negated is not None, name.spot)

    def contained(self, value: Value, negated: Token | None, name: Name) -> Node:
        return Test("contains", name, (value,), negated is not None, name.spot)

    def is_null(self, name: Name, negated: Token | None, _null: Token) -> Node:
        return Test("null", name, (), negated is not None, name.spot)

    def name(self, *parts: Token) -> Name:
        return Name(tuple(part.strip("`") for part in parts), _spot(parts[0]))

    def string(self, token: Token) -> Value:
        inner = str(token)[1:-1]
        return Value(inner.replace("''", "'") if token[0] == "'" else inner, _spot(token))

    def number(self, sign: Token | None, token: Token) -> Value:
        return Value(_number(token, -1 if sign == "-" else 1), _spot(sign or token))

    def boolean(self, token: Token) -> Value:
        return Value(token.lower() == "true", _spot(token))

    def null(self, token: Token) -> Value:
        return Value(None, _spot(token))

    def moment(self, now: Token, *steps: Token) -> Value:
        offset = 0
        for sign, number, unit in zip(steps[::3], steps[1::3], steps[2::3], strict=True):
            unit_us = UNITS_US.get(unit.lower())
            if unit_us is None:
                hint = "days or weeks" if unit.lower().startswith(("month", "year")) else suggestion(unit, UNITS_US)
                raise ConditionError([_spot(unit).mistake(f"`{unit[:64]}` is no unit of a fixed length", hint)])
            offset += _microseconds(number, unit_us) * (-1 if sign == "-" else 1)
        if abs(offset) > MAX_DURATION_US:
            raise ConditionError([_spot(now).mistake("is too far from now", "at most 365,000 days")])
        return Value(offset, _spot(now), is_moment=True)


def _spot(token: Token) -> Spot:
    return Spot(token.line or 1, token.column or 1)


def _deeper(*items: Node, spot: Spot) -> int:
    depth = 1 + max(0 if isinstance(item, Test) else item.depth for item in items)
    if depth > MAX_NESTING:
        raise ConditionError([spot.mistake("is nested too deeply", f"at most {MAX_NESTING} levels")])
    return depth


def _combined(every: bool, items: tuple[Node, ...]) -> Node:
    if len(items) == 1:
        return items[0]
    first = items[0]
    while not isinstance(first, Test):
        first = first.item if isinstance(first, Negation) else first.items[0]
    return Combination(every, items, _deeper(*items, spot=first.spot))


def _number(token: Token, sign: int) -> int | float:
    if token.isdigit() and len(token) <= 40:
        return sign * int(token)
    number = sign * float(token)
    if number in (float("inf"), float("-inf")):
        raise ConditionError([_spot(token).mistake("is too large for a number", "at most 1.7e308")])
    return number


def _microseconds(number: Token, unit_us: int) -> int:
    amount = _number(number, 1)
    if amount * unit_us > 2 * MAX_DURATION_US:
        raise ConditionError([_spot(number).mistake("is too far from now", "at most 365,000 days")])
    return round(amount * unit_us)


def _strange_character(text: str, error: UnexpectedCharacters) -> Mistake:
    spot = Spot(error.line, error.column)
    character = text[error.pos_in_stream] if error.pos_in_stream is not None else ""
    if character in "'\"`":
        return spot.mistake("the quoted text does not end", f"close it with {character}")
    hints = {"&": "write `and`", "|": "write `or`", "!": "write `not` or `!=`", "%": "write like '…%'"}
    return spot.mistake(f"{character!r} has no meaning here", hints.get(character, ""))


def _misplaced(error: UnexpectedToken) -> Mistake:
    token, expected = error.token, set(error.accepts or error.expected)
    spot = Spot(max(1, error.line), max(1, error.column))
    if token.type == "$END":
        return spot.mistake("the condition ends too early", _wanted(expected))
    if "COMPARATOR" in expected and token.type == "NAME":
        return spot.mistake(f"`{token[:64]}` is no operator", suggestion(token, OPERATORS))
    return spot.mistake(f"`{token[:64]}` is out of place", _wanted(expected))


def _wanted(expected: set[str]) -> str:
    if "STRING" in expected and "NAME" in expected:
        return "expected a name or a value"
    if "STRING" in expected:
        return "expected a value: 'text', a number, true, false or now - 7 days; a comparison has its name on the left"
    if "NAME" in expected:
        return "expected a name; words of the language that are names stand in `backticks`"
    if "COMPARATOR" in expected:
        return "expected an operator: " + ", ".join(OPERATORS)
    if expected <= {"NOT", "NULL"}:
        return "expected `null` or `not null`"
    if expected <= {"NOT", "_IN"}:
        return "a comparison has its name on the left; after a value comes only `in`"
    return "expected `and` or `or`"
