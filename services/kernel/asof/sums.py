"""sum and mean, exact: rows that come into the moving span are added and those that go out are taken away."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.kernel.aggregates.summing import add_double, round_digits, split_double
from services.kernel.aggregations import TermType
from services.kernel.asof.question import Question, Values
from services.kernel.jit import njit

_EXACT = 2**53
"""Up to here integers are doubles, so that one division is rounded once."""


def sum_(question: Question) -> Values:
    """The sum: an integer of integers, else a double."""
    if question.aggregation.term_type is not TermType.INTEGER:
        return Values(question.values(_double_sums(question)))
    low, high = _integer_sums(question)
    if _fits(high).all():
        return Values(question.values((high << 32) | low))
    restored = question.moments.restored
    totals = zip(restored(low).tolist(), restored(high).tolist(), restored(question.present).tolist(), strict=True)
    decimals = [Decimal((upper << 32) + lower) if present else None for lower, upper, present in totals]
    return Values(pa.array(decimals, pa.decimal128(38, 0)))


def mean(question: Question) -> Values:
    """The rounded sum divided by the number of terms; of integers the exact sum, rounded once."""
    counts = np.maximum(question.span.stop - question.span.first, 1)
    if question.aggregation.term_type is not TermType.INTEGER:
        return Values(question.values(_double_sums(question) / counts))
    low, high = _integer_sums(question)
    total = np.where(_fits(high), high << 32 | low, np.int64(2**62))
    means = total / counts
    for i in np.flatnonzero(np.abs(total) > _EXACT).tolist():
        means[i] = ((int(high[i]) << 32) + int(low[i])) / int(counts[i])
    return Values(question.values(means))


def _fits(high: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a sum with these upper digits is an int64."""
    fits: NDArray[np.bool_] = (high >= -(2**31)) & (high < 2**31)
    return fits


def _integer_sums(question: Question) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The sums as their lower 32 bits and the rest, from the running sums of both parts."""
    first, stop = question.span
    terms = question.terms
    parts = []
    for part in (terms & 0xFFFFFFFF, terms >> 32):
        running = np.concatenate([np.zeros(1, np.int64), np.cumsum(part)])
        parts.append(running[stop] - running[first])
    low, high = parts
    return low & 0xFFFFFFFF, high + (low >> 32)


def _double_sums(question: Question) -> NDArray[np.float64]:
    lowest, width = _digits(question.terms)
    return _running_sums(question.terms, lowest, width, *question.span)


@njit
def _digits(terms: NDArray[np.int64]) -> tuple[int, int]:
    """The lowest digit that any term touches, and how many from there on."""
    first, last = 1 << 30, -1
    for i in range(len(terms)):
        mantissa, digit, _ = split_double(terms[i])
        if mantissa:
            first, last = min(first, digit), max(last, digit)
    return (first, last + 3 - first) if last >= 0 else (0, 0)


@njit
def _running_sums(
    terms: NDArray[np.int64], lowest: int, width: int, first: NDArray[np.int64], stop: NDArray[np.int64]
) -> NDArray[np.float64]:
    result = np.zeros(len(first))
    digits = np.zeros((1, width), np.int64)
    scratch = np.zeros(width + 1, np.int64)
    low = high = 0
    for p in range(len(first)):
        if first[p] >= stop[p]:
            continue
        if first[p] >= high:
            digits[:] = 0
            low = high = first[p]
        for i in range(low, first[p]):
            add_double(digits, 0, lowest, terms[i], -1)
        for i in range(high, stop[p]):
            add_double(digits, 0, lowest, terms[i], 1)
        low, high = first[p], stop[p]
        result[p] = round_digits(digits, 0, lowest, scratch)
    return result
