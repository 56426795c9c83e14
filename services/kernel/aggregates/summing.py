"""sum and mean, exact.

A sum is held as an integer in digits of 32 bits, so that adding and taking away are exact and in any order; it is
rounded once, when read. Each digit has 64 bits of room: 2^31 events of one key before one could overflow. Doubles are
scaled by 2^1074, of which only the digits that some value has touched are held (four or five for amounts of money).
"""

import math

import numpy as np
from numpy.typing import NDArray

from services.kernel.aggregates.base import Gathered, ManyReader, Reader, States, Value, WindowedState
from services.kernel.aggregates.counting import Count
from services.kernel.aggregations import Aggregation, TermType
from services.kernel.jit import compiled
from services.kernel.rows import Rows, grown

_SCALE = 1074
"""The least double is 2^-1074."""
_EXACT = 2**53
"""Up to here integers are doubles."""


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

    def integers(self, keys: NDArray[np.int32]) -> NDArray[np.int64] | None:
        """The sums of some keys, or None when one has no room in an int64."""
        low, high = self.digits[keys, 0], self.digits[keys, 1]
        high = high + (low >> 32)
        if len(high) and (high.min() < -(2**31) or high.max() >= 2**31):
            return None
        sums: NDArray[np.int64] = (high << 32) | (low & 0xFFFFFFFF)
        return sums

    def forget_key(self, key: int) -> None:
        self.digits[key] = 0

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
        return float(round_digits(self.digits, key, self.lowest, np.empty(self.digits.shape[1] + 1, np.int64)))

    def many_rounded(self, keys: NDArray[np.int32]) -> NDArray[np.float64]:
        """The sums of some keys, each correctly rounded."""
        result = np.empty(len(keys))
        _round_many(self.digits, keys, self.lowest, np.empty(self.digits.shape[1] + 1, np.int64), result)
        return result

    def forget_key(self, key: int) -> None:
        self.digits[key] = 0

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
def split_double(bits: int) -> tuple[int, int, int]:
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
            mantissa, digit, _ = split_double(values[rows[i]])
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
            add_double(digits, columns.keys[row], lowest, values[row], sign)


@compiled
def add_double(digits: NDArray[np.int64], at: int, lowest: int, bits: int, sign: int) -> None:
    """Adds a double, given by its bits, to the digits at an index, or takes it away."""
    mantissa, digit, shift = split_double(bits)
    if mantissa:
        n = -sign if bits < 0 else sign
        place = digit - lowest
        # 53 bits shifted by up to 31 touch three digits.
        low = (mantissa & np.int64(0xFFFFFFFF)) << shift
        high = (mantissa >> 32) << shift
        digits[at, place] += n * (low & np.int64(0xFFFFFFFF))
        digits[at, place + 1] += n * ((low >> 32) + (high & np.int64(0xFFFFFFFF)))
        digits[at, place + 2] += n * (high >> 32)


@compiled
def _carry(digits: NDArray[np.int64], at: int, sign: int, carried: NDArray[np.int64]) -> int:
    """Writes digits from 0 to 2^32 - 1 for a sum of either sign; returns what is left over above."""
    carry = np.int64(0)
    for i in range(digits.shape[1]):
        carry += sign * digits[at, i]
        carried[i] = carry & np.int64(0xFFFFFFFF)
        carry >>= 32
    carried[digits.shape[1]] = carry
    return int(carry)


@compiled
def round_digits(digits: NDArray[np.int64], at: int, lowest: int, scratch: NDArray[np.int64]) -> float:
    """The double nearest to the digits at an index, ties to even; infinite when it is beyond the doubles.

    `scratch` has room for one digit more than there are.
    """
    sign = 1.0
    if _carry(digits, at, 1, scratch) < 0:
        sign = -1.0
        _carry(digits, at, -1, scratch)
    top = digits.shape[1]
    while top >= 0 and scratch[top] == 0:
        top -= 1
    if top < 0:
        return 0.0
    width = 0
    while scratch[top] >> width:
        width += 1
    # The first 64 bits of the number, its highest being 1, and whether anything but zeros follows them.
    second = np.uint64(scratch[top - 1]) if top >= 1 else np.uint64(0)
    third = np.uint64(scratch[top - 2]) if top >= 2 else np.uint64(0)
    leading = np.uint64(scratch[top]) << np.uint64(64 - width)
    leading |= (second << np.uint64(32)) >> np.uint64(width)
    leading |= third >> np.uint64(width)
    inexact = bool(third & ((np.uint64(1) << np.uint64(width)) - np.uint64(1)))
    for i in range(top - 2):
        inexact |= scratch[i] != 0
    mantissa = np.int64(leading >> np.uint64(11))
    rest = np.int64(leading & np.uint64(0x7FF))
    if rest > 0x400 or (rest == 0x400 and (inexact or mantissa & 1)):
        mantissa += 1
    # Subnormal results need no second rounding: everything is a multiple of the least double.
    exponent = 32 * (top + lowest) + width - 53 - _SCALE
    if exponent > 971 or (exponent == 971 and mantissa == 1 << 53):
        return sign * np.inf
    return sign * math.ldexp(float(mantissa), exponent)


@compiled
def _round_many(
    digits: NDArray[np.int64],
    keys: NDArray[np.int32],
    lowest: int,
    scratch: NDArray[np.int64],
    result: NDArray[np.float64],
) -> None:
    for i in range(len(keys)):
        result[i] = round_digits(digits, keys[i], lowest, scratch)


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


def many_sums(aggregation: Aggregation, states: States) -> ManyReader:
    """Sum for many keys."""
    count, total = _states(aggregation, states)

    def read(keys: NDArray[np.int32]) -> Gathered | None:
        values = total.integers(keys) if isinstance(total, IntegerSum) else total.many_rounded(keys)
        return None if values is None else Gathered(values, count.counts[keys] > 0)

    return read


def many_means(aggregation: Aggregation, states: States) -> ManyReader:
    """Mean for many keys."""
    count, total = _states(aggregation, states)

    def read(keys: NDArray[np.int32]) -> Gathered | None:
        counts = count.counts[keys]
        sums: NDArray[np.int64] | NDArray[np.float64] | None
        if isinstance(total, IntegerSum):
            sums = total.integers(keys)
            # Beyond, an integer is no double, and the division would be rounded twice.
            if sums is None or (np.abs(sums) > _EXACT).any():
                return None
        else:
            sums = total.many_rounded(keys)
        return Gathered(sums / np.maximum(counts, 1), counts > 0)

    return read
