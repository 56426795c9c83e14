"""What goes into an evaluation and what comes out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from services.insights.language.diagnostics import Diagnostic
from services.insights.language.format import string_literal
from services.insights.language.scalars import Scalar

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Cell = Scalar | tuple[Scalar, ...] | None
"""One value of a row: an instant is an int (microseconds UTC), a number a float, an array a tuple; None is missing."""


@dataclass(frozen=True)
class Rows:
    """One customer's rows of one source: lists of equal length by column; a column that is absent is missing in all."""

    count: int
    columns: Mapping[str, Sequence[Cell]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", MappingProxyType(dict(self.columns)))
        for name, values in self.columns.items():
            if len(values) != self.count:
                raise ValueError(f"{name} has {len(values)} values for {self.count} rows")


NO_ROWS = Rows(0, {})


class State(StrEnum):
    """An insight about a customer."""

    APPLIES = "APPLIES"
    NOT = "NOT"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class Operand:
    """One condition of HAVING as it came out: "250 > 200" and whether it held.

    `operator` is a comparison, `IN`, or "" for a term that is itself a truth value (`left`); None is undefined.
    """

    text: str
    left: Cell
    operator: str
    right: Cell
    result: bool

    @property
    def values(self) -> str:
        """The sides as they came out, for people: `250 > 200`."""
        return f"{shown(self.left)} {self.operator} {shown(self.right)}" if self.operator else shown(self.left)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A query about one customer at one instant.

    `matched`: the indices of the rows that WHERE keeps (all without one), in the source's order. `undefined_count`:
    how often an undefined value made a comparison false or was left out of an aggregate. `error`: why the state is
    ERROR; then nothing is matched.
    """

    state: State
    matched: tuple[int, ...] = ()
    operands: tuple[Operand, ...] = ()
    undefined_count: int = 0
    error: Diagnostic | None = None


def shown(value: Cell) -> str:
    """A value for people: numbers in short, strings in quotes, instants as ISO 8601, `undefined`."""
    if value is None:
        return "undefined"
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, str):
        return string_literal(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))})"
    if isinstance(value, int):
        try:
            return (_EPOCH + timedelta(microseconds=value)).isoformat().replace("+00:00", "Z")
        except OverflowError:
            return f"{value} us"
    return f"{value:.15g}"
