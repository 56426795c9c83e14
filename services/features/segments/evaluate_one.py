"""Whether one profile meets a condition, and when time alone may change that."""

import json
import operator
from collections.abc import Callable, Sequence
from typing import Any

from services.features.definitions import CategoryCounts
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
    Tree,
    moving,
)
from services.kernel.expressions import like

COMPARE: dict[Comparator, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
Test = Callable[[Sequence[Any], int], bool]
"""From the values of a profile, by place, and now in microseconds."""


class OneProfile:
    """A condition made ready for values in Python's types: instants are int microseconds, lists are sequences, counts
    are CategoryCounts, arrays are JSON text; None is null.
    """

    def __init__(self, condition: Condition) -> None:
        self._test = _compiled(condition.tree)
        self._moving = moving(condition.tree)

    def holds(self, values: Sequence[Any], now_us: int) -> bool:
        """Whether the profile with these values meets the condition at an instant."""
        return self._test(values, now_us)

    def next_change_us(self, values: Sequence[Any], now_us: int) -> int | None:
        """The first instant after now at which the answer may be another though the values stay; None: never."""
        found = None
        for each in self._moving:
            value = values[each.place]
            if value is None:
                continue
            assert isinstance(each.value, Moment), "only these move"
            for step in TURNS[each.comparator]:
                instant = value - each.value.offset_us + step
                if instant > now_us and (found is None or instant < found):
                    found = instant
        return found


TURNS: dict[Comparator, tuple[int, ...]] = {
    ">": (0,),
    "<=": (0,),
    ">=": (1,),
    "<": (1,),
    "=": (0, 1),
    "!=": (0, 1),
}
"""When a comparison of an instant with now turns: so many microseconds after the instant."""


def _compiled(tree: Tree) -> Test:
    if isinstance(tree, Always):
        answer = tree.answer
        return lambda values, now_us: answer
    if isinstance(tree, AllOf):
        parts = [_compiled(item) for item in tree.items]
        return lambda values, now_us: all(part(values, now_us) for part in parts)
    if isinstance(tree, AnyOf):
        parts = [_compiled(item) for item in tree.items]
        return lambda values, now_us: any(part(values, now_us) for part in parts)
    if isinstance(tree, Not):
        inner = _compiled(tree.item)
        return lambda values, now_us: not inner(values, now_us)
    return _leaf(tree)


def _leaf(tree: Compare | OneOf | Like | Contains | IsNull) -> Test:
    place = tree.place
    if isinstance(tree, IsNull):
        return lambda values, now_us: values[place] is None
    if isinstance(tree, Compare):
        compare = COMPARE[tree.comparator]
        if isinstance(tree.value, Moment):
            offset = tree.value.offset_us
            return lambda values, now_us: values[place] is not None and compare(values[place], now_us + offset)
        literal = tree.value
        return lambda values, now_us: values[place] is not None and compare(values[place], literal)
    if isinstance(tree, OneOf):
        members = tree.values
        return lambda values, now_us: values[place] is not None and values[place] in members
    if isinstance(tree, Like):
        test = like(tree.pattern)
        return lambda values, now_us: values[place] is not None and test(values[place])
    holds = holder(tree.value)
    return lambda values, now_us: values[place] is not None and holds(values[place])


def holder(wanted: str | bool | float) -> Callable[[Any], bool]:
    """A test whether a list, counts by category or an array (as JSON text) holds a value."""
    truth = isinstance(wanted, bool)

    def holds(value: Any) -> bool:
        if isinstance(value, CategoryCounts):
            return any(category == wanted for category, _ in value.entries)
        items = json.loads(value) if isinstance(value, str) else value
        # True is 1 in Python; a boolean is no number here.
        return any(item == wanted and isinstance(item, bool) is truth for item in items)

    return holds
