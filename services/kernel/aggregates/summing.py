"""sum and mean, exact.

A sum is held as an integer in digits of 32 bits, so that adding and taking away are exact and in any order; it is
rounded once, when read. Each digit has 64 bits of room: 2^31 events of one key before one could overflow. Doubles are
scaled by 2^1074, of which only the digits that some value has touched are held (four or five for amounts of money).
"""

import math

import numpy as np
from numpy.typing import NDArray

from services.kernel.aggregates.base import Reader, States, Value, WindowedState
from services.kernel.aggregates.counting import Count
from services.kernel.aggregations import Aggregation, TermType
from services.kernel.jit import compiled
from services.kernel.rows import Rows, grown

_SCALE = 1074
"""The least double is 2^-1074."""


class IntegerSum(WindowedState):
    """The exact sum of integers."""

    digits: NDArray[np.int64] = np.zeros((0, 2), np.int64)

    def reserve_keys(self, count: int) -> None:
        if count > len(self.digits):
            self.digits = grown(self.digits, max(count, 2 * len(self.digits)))

    def enter(self, rows: NDArray[np.int32]) -> None:
        _add_integers(self.digits, self.memory.store.columns, rows, *self.bit, self.values, 1)

    def leave(self, rows: NDArray[np.int32]) -> None:
        _add_integers(self.digits, self.memory.store.columns, rows, *self.bit, self.values, -1)

    def total(self, key: int) -> int:
        """The sum, of any size."""
        low, high = self.digits[key].tolist()
        return (int(high) << 32) + int(low)

    def rounded(self, key: int) -> float:
        """The sum as the nearest double."""
        return float(self.total(key))

    def dump(self) -> dict[str, NDArray[np.generic]]:
        return {"digits": self.digits}

    def load(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        self.digits = np.array(arrays["digits"])


class NumberSum(WindowedState):
    """The exact sum of doubles."""

    digits: NDArray[np.int64] = np.zeros((0, 0), np.int64)
    """Keys by digits."""
    lowest = 0
    """Which digit of the scaled integer the first column is."""

    def reserve_keys(self, count: int) -> None:
        if count > len(self.digits):
            self.digits = grown(self.digits, max(count, 2 * len(self.digits)))

    def enter(self, rows: NDArray[np.int32]) -> None:
        self._reserve_digits(rows)
        _add_doubles(self.digits, self.lowest, self.memory.store.columns, rows, *self.bit, self.values, 1)

    def leave(self, rows: NDArray[np.int32]) -> None:
        _add_doubles(self.digits, self.lowest, self.memory.store.columns, rows, *self.bit, self.values, -1)

    def _reserve_digits(self, rows: NDArray[np.int32]) -> None:
        first, last = _digit_range(self.memory.store.columns, rows, *self.bit, self.values)
        if first > last:
            return
        keys, width = self.digits.shape
        low = min(self.lowest, first) if width else first
        high = max(self.lowest + width, last + 3) if width else last + 3
        if high - low > width:
            wider = np.zeros((keys, high - low), np.int64)
            if width:
                wider[:, self.lowest - low : self.lowest - low + width] = self.digits
            self.digits, self.lowest = wider, low

    def rounded(self, key: int) -> float:
        """The sum, correctly rounded; infinite when it is beyond the doubles."""
        total = 0
        for digit in reversed(self.digits[key].tolist()):
            total = (total << 32) + digit
        exponent = 32 * self.lowest - _SCALE
        try:
            # True division of integers is correctly rounded.
            return float(total << exponent) if exponent >= 0 else total / (1 << -exponent)
        except OverflowError:
            return math.inf if total > 0 else -math.inf

    def dump(self) -> dict[str, NDArray[np.generic]]:
        return {"digits": self.digits, "lowest": np.array([self.lowest])}

    def load(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        self.digits, self.lowest = np.array(arrays["digits"]), int(arrays["lowest"].tolist()[0])


@compiled
def _add_integers(
    digits: NDArray[np.int64],
    columns: Rows,
    rows: NDArray[np.int32],
    word: int,
    mask: np.uint64,
    values: NDArray[np.int64],
    sign: int,
) -> None:
    for i in range(len(rows)):
        row = rows[i]
        if columns.flags[row, word] & mask:
            key = columns.keys[row]
            digits[key, 0] += sign * (values[row] & np.int64(0xFFFFFFFF))
            digits[key, 1] += sign * (values[row] >> 32)


@compiled
def _split(bits: int) -> tuple[int, int, int]:
    """A double by its bits: its mantissa, the digit where it starts and the shift within."""
    exponent = (bits >> 52) & 0x7FF
    mantissa = bits & 0xFFFFFFFFFFFFF
    if exponent:
        mantissa |= 1 << 52
        exponent -= 1
    return mantissa, exponent >> 5, exponent & 31


@compiled
def _digit_range(
    columns: Rows, rows: NDArray[np.int32], word: int, mask: np.uint64, values: NDArray[np.int64]
) -> tuple[int, int]:
    first, last = 1 << 30, -1
    for i in range(len(rows)):
        if columns.flags[rows[i], word] & mask:
            mantissa, digit, _ = _split(values[rows[i]])
            if mantissa:
                first, last = min(first, digit), max(last, digit)
    return first, last


@compiled
def _add_doubles(
    digits: NDArray[np.int64],
    lowest: int,
    columns: Rows,
    rows: NDArray[np.int32],
    word: int,
    mask: np.uint64,
    values: NDArray[np.int64],
    sign: int,
) -> None:
    for i in range(len(rows)):
        row = rows[i]
        if columns.flags[row, word] & mask:
            mantissa, digit, shift = _split(values[row])
            if mantissa:
                n = -sign if values[row] < 0 else sign
                key = columns.keys[row]
                at = digit - lowest
                # 53 bits shifted by up to 31 touch three digits.
                low = (mantissa & np.int64(0xFFFFFFFF)) << shift
                high = (mantissa >> 32) << shift
                digits[key, at] += n * (low & np.int64(0xFFFFFFFF))
                digits[key, at + 1] += n * ((low >> 32) + (high & np.int64(0xFFFFFFFF)))
                digits[key, at + 2] += n * (high >> 32)


def _states(aggregation: Aggregation, states: States) -> tuple[Count, IntegerSum | NumberSum]:
    integers = aggregation.term_type is TermType.INTEGER
    total: IntegerSum | NumberSum = (
        states.windowed(IntegerSum, aggregation) if integers else states.windowed(NumberSum, aggregation)
    )
    return states.windowed(Count, aggregation), total


def sum_(aggregation: Aggregation, states: States) -> Reader:
    """The sum: an integer of integers, else a double."""
    count, total = _states(aggregation, states)

    def read(key: int) -> Value | None:
        if not count.counts[key]:
            return None
        return total.total(key) if isinstance(total, IntegerSum) else total.rounded(key)

    return read


def mean(aggregation: Aggregation, states: States) -> Reader:
    """The rounded sum divided by the number of terms."""
    count, total = _states(aggregation, states)

    def read(key: int) -> Value | None:
        n = int(count.counts[key])
        if not n:
            return None
        return total.total(key) / n if isinstance(total, IntegerSum) else total.rounded(key) / n

    return read
