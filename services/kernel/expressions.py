"""Conditions on events, evaluated on whole batches.

Each expression is a small frozen tree with `evaluate(batch) -> bool array` of one entry per row. Comparisons with null
are false, also `!=`; only the null tests see it. A value of another type than the one compared with counts as null. A
condition on strings is evaluated once for each distinct value of the batch.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from services.kernel.columns import RESERVED_VENDOR, EventBatch

Bools = NDArray[np.bool_]
Operator = Literal["=", "!=", "<", ">", "<=", ">=", "like", "in", "is_null", "is_not_null"]
NUMERIC_KINDS = ("i", "d")
ALL_KINDS = ("s", "i", "d", "b", "t", "l")


@dataclass(frozen=True, slots=True)
class Instant:
    """An instant to compare with, in microseconds since the epoch."""

    us: int


Constant = str | int | float | bool | Instant


@dataclass(frozen=True, slots=True)
class Property:
    """A place in an event."""

    source: Literal["atomic", "event", "entity"]
    path: str
    """The property's name, or the path with fields joined by dots."""
    vendor: str = ""
    name: str = ""
    major_version: int = 0
    index: int = 0

    @property
    def column(self) -> str:
        """The name of its columns, without the kind."""
        if self.source == "atomic":
            return f"a.{self.path}"
        if self.source == "event":
            return f"d.{self.path}"
        return f"e.{self.vendor}/{self.name}/{self.major_version}[{self.index}].{self.path}"

    def applies(self, batch: EventBatch) -> Bools | None:
        """Rows where the place can exist: for event properties those of the event type; None means all."""
        if self.source != "event":
            return None
        prefix = f"{self.vendor}/{self.name}/"
        major = str(self.major_version)
        return _by_event_type(
            batch, lambda text: text.startswith(prefix) and re.split("[-.]", text[len(prefix) :])[0] == major
        )


@dataclass(frozen=True, slots=True)
class Everything:
    """Every event."""

    def evaluate(self, batch: EventBatch) -> Bools:
        """True for each row."""
        return np.ones(batch.num_rows, np.bool_)


@dataclass(frozen=True, slots=True)
class EventTypeIs:
    """Events of a type: given parts are equal, absent ones match all; the suite's own records only by their vendor."""

    vendor: str | None = None
    name: str | None = None
    version: str | None = None

    def evaluate(self, batch: EventBatch) -> Bools:
        """True for the rows of the type."""

        def matches(text: str) -> bool:
            wanted, parts = (self.vendor, self.name, self.version), text.split("/")
            if self.vendor is None and parts[0] == RESERVED_VENDOR:
                return False
            return all(w is None or w == part for w, part in zip(wanted, parts, strict=True))

        return _by_event_type(batch, matches)


@dataclass(frozen=True, slots=True)
class OccurredWithin:
    """Events of an absolute range of time: start inclusive, end exclusive, None is open."""

    start_us: int | None
    end_us: int | None

    def evaluate(self, batch: EventBatch) -> Bools:
        """True for the rows inside."""
        result = np.ones(batch.num_rows, np.bool_)
        if self.start_us is not None:
            result &= batch.occurred_at >= self.start_us
        if self.end_us is not None:
            result &= batch.occurred_at < self.end_us
        return result


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds; of none it is true."""

    parts: tuple["Expression", ...]

    def evaluate(self, batch: EventBatch) -> Bools:
        """True where every part is."""
        result = np.ones(batch.num_rows, np.bool_)
        for part in self.parts:
            result &= part.evaluate(batch)
        return result


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds; of none it is false."""

    parts: tuple["Expression", ...]

    def evaluate(self, batch: EventBatch) -> Bools:
        """True where a part is."""
        result = np.zeros(batch.num_rows, np.bool_)
        for part in self.parts:
            result |= part.evaluate(batch)
        return result


@dataclass(frozen=True, slots=True)
class Compare:
    """A property compared with constants: several for `in`, none for the null tests, else one."""

    property: Property
    operator: Operator
    values: tuple[Constant, ...] = ()

    def evaluate(self, batch: EventBatch) -> Bools:
        """True where the comparison holds."""
        applies = self.property.applies(batch)
        if self.operator in ("is_null", "is_not_null"):
            present = self._present(batch)
            if applies is not None:
                present &= applies
            return ~present if self.operator == "is_null" else present
        result = self._compare(batch)
        return result if applies is None else result & applies

    def _present(self, batch: EventBatch) -> Bools:
        result = np.zeros(batch.num_rows, np.bool_)
        for kind in ALL_KINDS:
            present = batch.present(f"{self.property.column}:{kind}")
            if present is not None:
                result |= present
        return result

    def _compare(self, batch: EventBatch) -> Bools:
        result = np.zeros(batch.num_rows, np.bool_)
        for value in self.values:
            result |= self._compare_one(batch, value)
        return result

    def _compare_one(self, batch: EventBatch, value: Constant) -> Bools:
        base = self.property.column
        if isinstance(value, str):
            return self._compare_strings(batch, value)
        if isinstance(value, bool):
            return self._compare_column(batch, f"{base}:b", value)
        if isinstance(value, Instant):
            return self._compare_column(batch, f"{base}:t", value.us)
        return self._compare_column(batch, f"{base}:i", value) | self._compare_column(batch, f"{base}:d", value)

    def _compare_column(self, batch: EventBatch, column: str, value: int | float) -> Bools:
        found = batch.numbers(column)
        if found is None:
            return np.zeros(batch.num_rows, np.bool_)
        cells, present = found
        operator = "=" if self.operator == "in" else self.operator
        return present & _compare_numbers(cells, operator, value)

    def _compare_strings(self, batch: EventBatch, value: str) -> Bools:
        strings = batch.strings(f"{self.property.column}:s")
        if strings is None:
            return np.zeros(batch.num_rows, np.bool_)
        test = _string_test(self.operator, value)
        return _spread(strings.codes, [test(text) for text in strings.values.to_pylist()])


Expression = Everything | EventTypeIs | OccurredWithin | AllOf | AnyOf | Compare


def like(pattern: str) -> Callable[[str], bool]:
    """SQL's LIKE as a test: `%` any run, `_` one character, a backslash escapes; the whole string, case-sensitive.

    The pieces between the `%` are found one after the other, each as early as can be: linear in the text for each
    piece, where one regular expression for the whole could backtrack without end.
    """
    pieces = pattern.split("%")
    if len(pieces) == 3 and not pieces[0] and not pieces[2] and not set("\\_") & set(pieces[1]):
        # The common form, a text that contains another, without a regular expression.
        return lambda text: pieces[1] in text
    head, *rest = (re.compile(piece, re.DOTALL) for piece in _like_pieces(pattern))
    if not rest:
        return lambda text: head.fullmatch(text) is not None
    *middle, _ = rest
    tail_width = _width(_like_pieces(pattern)[-1])
    tail = rest[-1]

    def test(text: str) -> bool:
        found = head.match(text)
        for piece in middle:
            if found is None:
                return False
            found = piece.search(text, found.end())
        if found is None or len(text) - tail_width < found.end():
            return False
        return tail.fullmatch(text, len(text) - tail_width) is not None

    return test


def _like_pieces(pattern: str) -> list[str]:
    """The pieces between the `%` of a pattern, as regular expressions of a fixed width."""
    pieces = [""]
    characters = iter(pattern)
    for character in characters:
        if character == "%":
            pieces.append("")
        elif character == "_":
            pieces[-1] += "."
        else:
            literal = next(characters, "\\") if character == "\\" else character
            pieces[-1] += re.escape(literal)
    return pieces


def _width(piece: str) -> int:
    """How many characters a piece matches: an escaped one is one."""
    return len(re.sub(r"\\(.)", r"\1", piece, flags=re.DOTALL))


def _string_test(operator: str, value: str) -> Callable[[str], bool]:
    if operator == "like":
        return like(value)
    tests: dict[str, Callable[[str], bool]] = {
        "=": lambda text: text == value,
        "!=": lambda text: text != value,
        "in": lambda text: text == value,
        "<": lambda text: text < value,
        ">": lambda text: text > value,
        "<=": lambda text: text <= value,
        ">=": lambda text: text >= value,
    }
    return tests[operator]


def _compare_numbers(cells: NDArray[np.generic], operator: str, value: int | float) -> Bools:
    """Compares exactly: integers with integers as integers; an integer column with a fraction by its neighbours."""
    if cells.dtype == np.int64 and isinstance(value, float):
        return _compare_integers_with_float(cells, operator, value)
    if cells.dtype == np.float64 and isinstance(value, int) and abs(value) > 2**53:
        return np.fromiter((_python_compare(cell, operator, value) for cell in cells.tolist()), np.bool_, len(cells))
    if cells.dtype == np.int64 and not -(2**63) <= value < 2**63:
        return np.full(len(cells), _python_compare(0, operator, value))
    comparisons: dict[str, Callable[[], Bools]] = {
        "=": lambda: cells == value,
        "!=": lambda: cells != value,
        "<": lambda: cells < value,  # type: ignore[operator]
        ">": lambda: cells > value,  # type: ignore[operator]
        "<=": lambda: cells <= value,  # type: ignore[operator]
        ">=": lambda: cells >= value,  # type: ignore[operator]
        "like": lambda: np.zeros(len(cells), np.bool_),
    }
    return comparisons[operator]()


def _compare_integers_with_float(cells: NDArray[np.generic], operator: str, value: float) -> Bools:
    if value.is_integer():
        return _compare_numbers(cells, operator, int(value))
    # Between two integers nothing is equal, and `<=` is `<`.
    if operator in ("=", "!=", "like"):
        return np.full(len(cells), operator == "!=")
    floor = int(value // 1)
    return _compare_numbers(cells, "<=" if operator in ("<", "<=") else ">", floor)


def _python_compare(left: float, operator: str, right: int | float) -> bool:
    outcomes = {"=": left == right, "!=": left != right, "<": left < right, ">": left > right}
    return (outcomes | {"<=": left <= right, ">=": left >= right, "like": False})[operator]


def _by_event_type(batch: EventBatch, test: Callable[[str], bool]) -> Bools:
    strings = batch.strings("event_type")
    assert strings is not None, "every batch has event types"
    return _spread(strings.codes, [test(text) for text in strings.values.to_pylist()])


def _spread(codes: NDArray[np.int32], by_value: list[bool]) -> Bools:
    """Hands the answer for each distinct value to its rows; null, code -1, takes the last entry, False."""
    return np.array([*by_value, False], np.bool_)[codes]
