"""From names and literals to a typed tree: what each name means, whether it fits what it is compared with."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from services.features.durations import parse_instant
from services.features.segments.elapsed import ElapsedTimes
from services.features.segments.language import (
    ConditionError,
    ConditionParser,
    Mistake,
    Negation,
    Node,
    Spot,
    Test,
    Value,
)
from services.features.segments.schema import LISTS, NUMERIC, Field, Kind, Schema, UnknownFieldError
from services.features.segments.tree import (
    AllOf,
    Always,
    AnyOf,
    Comparator,
    Compare,
    Condition,
    Contains,
    IsNull,
    Like,
    Moment,
    Not,
    OneOf,
    Operand,
    Tree,
)

MAX_FIELDS = 200
_ORDERED = ("<", "<=", ">", ">=")
_HINTS = {
    Kind.BOOLEAN: "compare with true or false, or write the name alone",
    Kind.STRING: "write 'text' in quotes",
    Kind.INTEGER: "write a number without quotes",
    Kind.NUMBER: "write a number without quotes",
    Kind.INSTANT: "write '2026-01-31', '2026-01-31T12:00:00Z' or now - 7 days",
}
NEVER, EVER = Always(False), Always(True)


def check(parser: ConditionParser, text: str, schema: Schema) -> Condition:
    """The condition that a text means for the profiles of a schema; raises ConditionError with all mistakes."""
    node = parser.parse(text)
    checker = _Checker(schema)
    tree = checker.tree(node)
    if len(checker.places) > MAX_FIELDS:
        checker.mistakes.append(Mistake(f"reads {len(checker.places)} fields", f"at most {MAX_FIELDS}"))
    if checker.mistakes:
        raise ConditionError(sorted(checker.mistakes, key=lambda each: (each.line, each.column)))
    return Condition(text, tree, tuple(checker.places))


class _RefusedError(Exception):
    """A part has a mistake; it was noted."""


@dataclass
class _Checker:
    schema: Schema
    mistakes: list[Mistake] = field(default_factory=list)
    places: dict[Field, int] = field(default_factory=dict)

    def tree(self, node: Node) -> Tree:
        """The typed tree of a node; where something is wrong, some tree."""
        if isinstance(node, Test):
            try:
                return self._test(node)
            except _RefusedError:
                return NEVER
        if isinstance(node, Negation):
            return Not(self.tree(node.item))
        items = tuple(self.tree(item) for item in node.items)
        return AllOf(items) if node.every else AnyOf(items)

    def _refuse(self, spot: Spot, description: str, hint: str = "") -> _RefusedError:
        self.mistakes.append(spot.mistake(description, hint))
        return _RefusedError()

    def _test(self, test: Test) -> Tree:
        spot = test.name.spot
        try:
            found = self.schema.find(test.name.parts)
        except UnknownFieldError as error:
            raise self._refuse(spot, str(error), error.hint) from None
        place = self.places.setdefault(found, len(self.places))
        if test.operator == "null":
            return self._null(found, place, negated=test.negated)
        if test.operator == "holds":
            if found.kind is not Kind.BOOLEAN:
                text = f"`{found.name}` is no boolean: its kind is {found.kind}"
                raise self._refuse(spot, text, "compare it, or write `is not null`")
            return Compare(place, "=", True)
        if test.operator == "contains":
            tree = self._contains(test, found, place)
        elif found.kind in LISTS or found.kind is Kind.RECORD:
            hint = "write `contains`, `is null` or `is not null`" if found.kind in LISTS else "only null tests"
            raise self._refuse(test.spot, f"`{found.name}` cannot be compared: its kind is {found.kind}", hint)
        elif test.operator == "like":
            tree = self._like(test, found, place)
        elif test.operator == "in":
            tree = self._one_of(test, found, place)
        elif test.operator == "between":
            low, high = test.values
            parts = (self._compare(test, found, place, ">=", low), self._compare(test, found, place, "<=", high))
            tree = AllOf(parts)
        else:
            return self._compare(test, found, place, _comparator(test.operator), test.values[0])
        # `not in` and its like are operators of their own: false for null, as each comparison is.
        return AllOf((Not(tree), Not(self._null(found, place, negated=False)))) if test.negated else tree

    def _null(self, found: Field, place: int, *, negated: bool) -> Tree:
        tree = IsNull(place) if found.elapsed is None else ElapsedTimes(place, found.elapsed).is_null()
        return Not(tree) if negated else tree

    def _contains(self, test: Test, found: Field, place: int) -> Tree:
        value = test.values[0]
        content = value.content
        if content is None or value.is_moment:
            raise self._refuse(value.spot, "a list is searched for a text, a number or a boolean")
        if found.kind not in LISTS:
            hint = "like '%…%' searches a text" if found.kind is Kind.STRING else ""
            raise self._refuse(test.spot, f"`{found.name}` is no list: its kind is {found.kind}", hint)
        if found.kind in (Kind.STRINGS, Kind.COUNTS) and not isinstance(content, str):
            raise self._refuse(value.spot, f"`{found.name}` holds texts", _HINTS[Kind.STRING])
        if found.kind in (Kind.INTEGERS, Kind.NUMBERS):
            if isinstance(content, str | bool):
                raise self._refuse(value.spot, f"`{found.name}` holds numbers", _HINTS[Kind.NUMBER])
            if found.kind is Kind.NUMBERS:
                content = self._double(value)
            elif content != int(content):
                return NEVER if not test.negated else self._null(found, place, negated=True)
            else:
                content = int(content)
        return Contains(place, content)

    def _like(self, test: Test, found: Field, place: int) -> Tree:
        value = test.values[0]
        if found.kind is not Kind.STRING:
            raise self._refuse(test.spot, f"`{found.name}` is no text: its kind is {found.kind}")
        if not isinstance(value.content, str):
            raise self._refuse(value.spot, "`like` takes a pattern", "such as '%@example.com'")
        return Like(place, value.content)

    def _one_of(self, test: Test, found: Field, place: int) -> Tree:
        if found.elapsed is not None or found.kind is Kind.INSTANT:
            return AnyOf(tuple(self._compare(test, found, place, "=", value) for value in test.values))
        literals = []
        for value in test.values:
            try:
                literals.append(self._literal(found, value))
            except _RefusedError:
                continue
        return OneOf(place, frozenset(each for each in literals if not isinstance(each, Moment)))

    def _compare(self, test: Test, found: Field, place: int, comparator: Comparator, value: Value) -> Tree:
        if found.kind is Kind.BOOLEAN and comparator in _ORDERED:
            raise self._refuse(test.spot, f"`{comparator}` does not order booleans", "use = or !=")
        literal = self._literal(found, value)
        if found.elapsed is not None:
            assert isinstance(literal, int | float), "its kind is numeric"
            return ElapsedTimes(place, found.elapsed).compare(comparator, literal)
        if found.kind is Kind.INTEGER and isinstance(literal, float):
            return _between_integers(place, comparator, literal)
        return Compare(place, comparator, literal)

    def _literal(self, found: Field, value: Value) -> Operand:
        """The literal as the field's kind has it. For INTEGER it may be a float that is not whole."""
        content = value.content
        if content is None:
            raise self._refuse(value.spot, "a comparison with null is never true", "write `is null` or `is not null`")
        if value.is_moment:
            if found.kind is not Kind.INSTANT:
                text = f"`{found.name}` is no instant: its kind is {found.kind}"
                hint = "seconds, as a number" if found.elapsed is not None else _HINTS.get(found.kind, "")
                raise self._refuse(value.spot, text, hint)
            assert isinstance(content, int), "the parser gives microseconds"
            return Moment(content)
        if found.kind is Kind.INSTANT:
            instant = parse_instant(content) if isinstance(content, str) else None
            if instant is None:
                raise self._refuse(value.spot, f"`{found.name}` is an instant", _HINTS[Kind.INSTANT])
            return instant
        expected: dict[Kind, Callable[[], bool]] = {
            Kind.STRING: lambda: isinstance(content, str),
            Kind.BOOLEAN: lambda: isinstance(content, bool),
        }
        fits = expected.get(found.kind, lambda: not isinstance(content, str | bool))
        if not fits():
            text = f"`{found.name}` is compared with {_described(content)}, but its kind is {found.kind}"
            raise self._refuse(value.spot, text, _HINTS[found.kind])
        if found.kind is Kind.NUMBER:
            return self._double(value)
        if found.kind in NUMERIC and isinstance(content, float) and content.is_integer():
            return int(content)
        return content

    def _double(self, value: Value) -> float:
        assert isinstance(value.content, int | float), "checked before"
        try:
            return float(value.content)
        except OverflowError:
            raise self._refuse(value.spot, "is too large for a number", "at most 1.7e308") from None


def _comparator(operator: str) -> Comparator:
    comparators: tuple[Comparator, ...] = ("=", "!=", "<", "<=", ">", ">=")
    return next(each for each in comparators if each == operator)


def _between_integers(place: int, comparator: Comparator, value: float) -> Tree:
    """A comparison of integers with a number between two of them, as one with an integer."""
    if comparator == "=":
        return NEVER
    if comparator == "!=":
        return Not(IsNull(place))
    return Compare(place, comparator, math.floor(value) if comparator in ("<=", ">") else math.ceil(value))


def _described(content: str | bool | float) -> str:
    return "a text" if isinstance(content, str) else "a boolean" if isinstance(content, bool) else "a number"
