"""Conditions on profiles, typed: what the text means once names and types are known. Both evaluators read this.

A comparison with null is false, whatever it compares; `Not` turns the answer round, so `not plan = 'pro'` holds where
the plan is null and `plan != 'pro'` does not.
"""

from dataclasses import dataclass
from typing import Literal

from services.features.segments.schema import Field

Comparator = Literal["=", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Moment:
    """An instant that moves: so many microseconds after now, before it when negative."""

    offset_us: int


Operand = str | bool | int | float | Moment
"""A literal of the kind that its field has: an int for INTEGER, a float for NUMBER, an int or Moment for INSTANT."""


@dataclass(frozen=True, slots=True)
class Always:
    """The same for every profile."""

    answer: bool


@dataclass(frozen=True, slots=True)
class Compare:
    """A field against a literal."""

    place: int
    """Which field: its place in the condition's `fields`."""
    comparator: Comparator
    value: Operand


@dataclass(frozen=True, slots=True)
class OneOf:
    """A field that equals one of some literals. None of them is a Moment."""

    place: int
    values: frozenset[str | bool | int | float]


@dataclass(frozen=True, slots=True)
class Like:
    """A text that matches a pattern of SQL."""

    place: int
    pattern: str


@dataclass(frozen=True, slots=True)
class Contains:
    """A list that holds a value; counts that hold a category."""

    place: int
    value: str | bool | int | float


@dataclass(frozen=True, slots=True)
class IsNull:
    """A field without a value."""

    place: int


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    item: "Tree"


@dataclass(frozen=True, slots=True)
class AllOf:
    """All of them."""

    items: tuple["Tree", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of them."""

    items: tuple["Tree", ...]


Leaf = Always | Compare | OneOf | Like | Contains | IsNull
Tree = Leaf | Not | AllOf | AnyOf


@dataclass(frozen=True, slots=True)
class Condition:
    """A checked condition."""

    text: str
    tree: Tree
    fields: tuple[Field, ...]
    """What it reads, each once. A field with `elapsed` is read as the instant that the time goes by since."""


def moving(tree: Tree) -> list[Compare]:
    """The comparisons that time alone can change."""
    if isinstance(tree, Compare):
        return [tree] if isinstance(tree.value, Moment) else []
    if isinstance(tree, Not):
        return moving(tree.item)
    if isinstance(tree, AllOf | AnyOf):
        return list(dict.fromkeys(each for item in tree.items for each in moving(item)))
    return []
