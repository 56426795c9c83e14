"""A rule made ready to be evaluated on batches of events: what it counts, by how much, and when it is met."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.insights.rules.dates import bounds
from services.insights.rules.definitions import Condition, Operator, Rule
from services.kernel.columns import RESERVED_VENDOR, EventBatch
from services.kernel.expressions import AllOf, AnyOf, Compare, EventTypeIs, Expression, OccurredWithin, Property

Number = int | float
Comparison = Callable[[Decimal | int, Decimal | int], bool]
_COMPARISONS: dict[Operator, Comparison] = {
    Operator.EQUAL: operator.eq,
    Operator.GREATER: operator.gt,
    Operator.GREATER_OR_EQUAL: operator.ge,
    Operator.LESS: operator.lt,
    Operator.LESS_OR_EQUAL: operator.le,
}
_DIGITS = 1_000
"""The sum of any doubles, each taken as its shortest decimal, has fewer."""


class Counted(NamedTuple):
    """The rows of a batch that a rule looks at."""

    rows: NDArray[np.int64]
    """Those it counts."""
    numbers: list[Number] | None
    """What each adds to the sum; None when the rule has none."""
    rejected: NDArray[np.int64]
    """Those it cannot count: their metric is no number, or nobody said which of several it is."""


@dataclass(frozen=True)
class CompiledRule:
    """A valid rule with what follows from it."""

    rule: Rule
    expression: Expression
    start_us: int | None
    end_us: int | None
    """The first instant after the period."""

    def reaches_before(self, instant_us: int) -> bool:
        """Whether events before an instant count."""
        return self.start_us is None or self.start_us < instant_us

    def counted(self, batch: EventBatch) -> Counted:
        """The rows that the rule counts."""
        rows = np.flatnonzero(self.expression.evaluate(batch))
        if self.rule.sum is None or not len(rows):
            return Counted(rows, None, np.empty(0, np.int64))
        numbers, bad = _metric(batch, self.rule.sum.metric, rows)
        if not bad.any():
            return Counted(rows, numbers, rows[:0])
        kept = [number for number, wrong in zip(numbers, bad.tolist(), strict=True) if not wrong]
        return Counted(rows[~bad], kept, rows[bad])


def compile_rule(rule: Rule) -> CompiledRule:
    """A rule ready to be evaluated; it must be valid."""
    start_us, end_us = bounds(rule.period)
    vendor = rule.event_vendor
    parts: list[Expression] = [EventTypeIs(vendor, rule.event_name, rule.event_version)]
    if rule.count_system_events and vendor is None:
        own = EventTypeIs(RESERVED_VENDOR, rule.event_name, rule.event_version)
        parts = [AnyOf((parts[0], own))]
    if rule.attribute is not None:
        parts.append(Compare(Property("atomic", rule.attribute.name), "in", rule.attribute.values))
    if rule.has_dates:
        parts.append(OccurredWithin(start_us, end_us))
    return CompiledRule(rule, AllOf(tuple(parts)), start_us, end_us)


def exact_arithmetic() -> Context:
    """Decimal arithmetic that never rounds: it would raise Inexact."""
    return Context(prec=_DIGITS, traps=[Inexact, InvalidOperation])


@lru_cache(maxsize=10_000, typed=True)
def decimal_of(number: Number) -> Decimal:
    """A number as the shortest decimal that reads back as it: what whoever sent it wrote."""
    return Decimal(number) if isinstance(number, int) else Decimal(repr(number))


class Test:
    """Whether a count or a sum meets its condition; `every` remembers in the caller's hands what was reached."""

    def __init__(self, condition: Condition, arithmetic: Context) -> None:
        if condition.operator is None or condition.target is None:
            raise ValueError("an incomplete condition cannot be evaluated")
        self._compare: Comparison | None = _COMPARISONS.get(condition.operator)
        self._target = condition.target
        self._operator = condition.operator
        floor, ceiling = math.floor(self._target), math.ceil(self._target)
        self._over, self._under = self._target.as_integer_ratio()
        self._whole = floor if floor == ceiling else -1
        self._beyond = ceiling if condition.operator in (Operator.GREATER_OR_EQUAL, Operator.LESS) else floor + 1
        """The first count on the other side of the target."""
        self._arithmetic = arithmetic

    @property
    def is_pulse(self) -> bool:
        """Whether it is met by single events, not from one event to the next."""
        return self._compare is None

    def __call__(self, total: Decimal | int, reached: int) -> tuple[bool, int]:
        """Whether it is met, and the highest multiple of the target that was reached now."""
        if self._compare is not None:
            return self._compare(total, self._target), reached
        multiple = int(self._arithmetic.divide_int(Decimal(total), self._target))
        return multiple > reached, max(multiple, reached)

    def next_change(self, met: bool, count: int, reached: int) -> int | None:
        """The next count, after this one, at which it is met and was not, the other way round, or met anew.

        None: there is none. `met` is what it said of `count`; False for 0.
        """
        following, which = count + 1, self._operator
        if which is Operator.GREATER_OR_EQUAL or which is Operator.GREATER:
            return None if met else max(self._beyond, following)
        if which is Operator.EQUAL:
            if met:
                return following
            return self._whole if self._whole > count else None
        if which is Operator.EVERY:
            return following if met else max(-(-(reached + 1) * self._over // self._under), following)
        if met:
            return max(self._beyond, following)
        return following if following < self._beyond else None


def _metric(batch: EventBatch, name: str, rows: NDArray[np.int64]) -> tuple[list[Number], NDArray[np.bool_]]:
    """The numbers of a metric, 0 where it is absent, and the rows where it is not one number."""
    columns = [f"a.{name}:{kind}" for kind in "id"] if name else _numeric_columns(batch)
    numbers: list[Number] = [0] * len(rows)
    found = np.zeros(len(rows), np.int64)
    bad = np.zeros(len(rows), np.bool_)
    for column in columns:
        cells = batch.numbers(column)
        if cells is None:
            continue
        values, present = np.asarray(cells[0][rows]), cells[1][rows]
        finite: NDArray[np.bool_] = np.isfinite(values.astype(np.float64))
        bad |= present & ~finite
        found += present
        listed: list[Number] = values.tolist()
        good = present & finite
        if good.all():
            numbers = listed
            continue
        for i in np.flatnonzero(good).tolist():
            numbers[i] = listed[i]
    if name:
        for kind in "sbtl":
            other = batch.present(f"a.{name}:{kind}")
            if other is not None:
                bad |= other[rows] & (found == 0)
    return numbers, bad | (found > 1)


def _numeric_columns(batch: EventBatch) -> list[str]:
    return [name for name in batch.names if name.startswith("a.") and name.endswith((":i", ":d"))]
