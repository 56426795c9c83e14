"""What operators do to single values, the same wherever a query is evaluated. None is the undefined value."""

import math
from collections.abc import Iterable
from fractions import Fraction

from services.insights.language.tree import ArithmeticOperator, ComparisonOperator

Scalar = str | float | bool | int
"""A string, a number (float), a truth value, or an instant (int, microseconds)."""


def number(value: float) -> float | None:
    """The number, or undefined where it overflowed."""
    return value if math.isfinite(value) else None


def arithmetic(operator: ArithmeticOperator, left: float | None, right: float | None) -> float | None:
    """IEEE doubles; undefined for division by zero, for overflow and when a side is."""
    if left is None or right is None:
        return None
    if operator is ArithmeticOperator.ADD:
        return number(left + right)
    if operator is ArithmeticOperator.SUBTRACT:
        return number(left - right)
    if operator is ArithmeticOperator.MULTIPLY:
        return number(left * right)
    return None if right == 0 else number(left / right)


def compare(operator: ComparisonOperator, left: Scalar | None, right: Scalar | None) -> bool:
    """Of two values of one kind; false when a side is undefined. Strings go by code points, as Python's do."""
    if left is None or right is None:
        return False
    if operator is ComparisonOperator.EQUAL:
        return left == right
    if operator is ComparisonOperator.NOT_EQUAL:
        return left != right
    if operator is ComparisonOperator.GREATER:
        return left > right  # type: ignore[operator]
    if operator is ComparisonOperator.GREATER_OR_EQUAL:
        return left >= right  # type: ignore[operator]
    if operator is ComparisonOperator.LESS:
        return left < right  # type: ignore[operator]
    return left <= right  # type: ignore[operator]


def exact_sum(values: Iterable[float]) -> float | None:
    """The correctly rounded sum, whatever the order; undefined where it overflows."""
    kept = list(values)
    try:
        return math.fsum(kept)
    except OverflowError:
        # Partial sums may overflow where the whole does not.
        return rounded(sum(map(Fraction, kept), Fraction()))


def exact_mean(values: Iterable[float]) -> float | None:
    """The correctly rounded mean; undefined of nothing."""
    kept = list(values)
    return rounded(sum(map(Fraction, kept), Fraction()) / len(kept)) if kept else None


def rounded(value: Fraction) -> float | None:
    """The nearest double, ties to even; undefined beyond the largest."""
    try:
        return float(value)
    except OverflowError:
        return None


def whole(value: float | None) -> int | None:
    """A whole number from 0; None for anything else."""
    if value is None or value < 0 or not value.is_integer():
        return None
    return int(value)
