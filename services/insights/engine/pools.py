"""Distinct values behind small integers: the texts and arrays of all sources of a project.

A text or an array is kept once and rows hold its code, so that a condition is decided once for each distinct value.
Code 0 is the missing value: the empty text, the empty array.
"""

from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.kernel.interning import Interner

ArrayValue = tuple[str, ...] | tuple[float, ...] | tuple[bool, ...]
Bools = NDArray[np.bool_]


class ArrayPool:
    """Gives each distinct array the next integer from 0, for ever."""

    def __init__(self, values: Iterable[ArrayValue] = ((),)) -> None:
        self.values: list[ArrayValue] = list(values)
        self._codes = {(_kind(value), value): code for code, value in enumerate(self.values)}

    def __len__(self) -> int:
        return len(self.values)

    def code(self, value: ArrayValue) -> int:
        """The code of an array, given now if it is new."""
        key = (_kind(value), value)
        code = self._codes.get(key)
        if code is None:
            code = self._codes[key] = len(self.values)
            self.values.append(value)
        return code


def _kind(value: ArrayValue) -> type | None:
    # True == 1.0 in Python: arrays of booleans and of numbers are kept apart.
    return type(value[0]) if value else None


class Pools:
    """The texts and arrays of a project's rows."""

    def __init__(self) -> None:
        self.texts = Interner()
        self.arrays = ArrayPool()
        self.code("")

    def code(self, text: str) -> int:
        """The code of a text, given now if it is new."""
        return int(self.texts.codes(pa.array([text], pa.string()))[0])


class Lookup:
    """The answers of a test for every text or array there is, by code; new ones are asked about when they come."""

    def __init__(self, count: Callable[[], int], test: Callable[[int], bool]) -> None:
        self._count, self._test = count, test
        self._answers: Bools = np.zeros(0, np.bool_)

    def __call__(self, codes: NDArray[np.int64]) -> Bools:
        """The answers for some codes."""
        known, there = len(self._answers), self._count()
        if there > known:
            new = [self._test(code) for code in range(known, there)]
            self._answers = np.concatenate([self._answers, np.array(new, np.bool_)])
        answers: Bools = self._answers[codes]
        return answers


def of_texts(pools: Pools, test: Callable[[str], bool]) -> Lookup:
    """A test of texts."""
    return Lookup(lambda: len(pools.texts), lambda code: test(pools.texts.text(code)))


def of_arrays(pools: Pools, test: Callable[[ArrayValue], bool]) -> Lookup:
    """A test of arrays."""
    return Lookup(lambda: len(pools.arrays), lambda code: test(pools.arrays.values[code]))
