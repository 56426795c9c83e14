"""Distinct values behind small integers: the texts and arrays of all sources of a project.

A text or an array is kept once and rows hold its code, so that a condition is decided once for each distinct value.
Code 0 is the missing value: the empty text, the empty array.
"""

from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.kernel.interning import FORGOTTEN, Interner

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

    def forget(self, codes: Iterable[int]) -> None:
        """Takes the arrays of codes away: the codes stay."""
        for code in codes:
            value = self.values[code]
            self._codes.pop((_kind(value), value), None)
            self.values[code] = (f"{FORGOTTEN}{code:x}",)
            self._codes[_kind(self.values[code]), self.values[code]] = code


def _unused(count: int, wanted: set[int], columns: Iterable[NDArray[np.int64]]) -> Bools:
    unused: Bools = np.ones(count, np.bool_)
    unused[list(wanted)] = False
    for cells in columns:
        unused[cells] = False
    return unused


def _kind(value: ArrayValue) -> type | None:
    # True == 1.0 in Python: arrays of booleans and of numbers are kept apart.
    return type(value[0]) if value else None


class Pools:
    """The texts and arrays of a project's rows."""

    def __init__(self) -> None:
        self.texts = Interner()
        self.arrays = ArrayPool()
        self._wanted_texts: set[int] = set()
        self._wanted_arrays: set[int] = {0}
        self.code("")

    def code(self, text: str) -> int:
        """The code of a text that a query names, given now if it is new: it stays whatever rows hold."""
        code = int(self.texts.codes(pa.array([text], pa.string()))[0])
        self._wanted_texts.add(code)
        return code

    def array_code(self, value: ArrayValue) -> int:
        """The code of an array that a query names, given now if it is new: it stays whatever rows hold."""
        code = self.arrays.code(value)
        self._wanted_arrays.add(code)
        return code

    def forget_unused(self, texts: Iterable[NDArray[np.int64]], arrays: Iterable[NDArray[np.int64]]) -> None:
        """Takes away the texts and arrays that neither a query names nor a cell of these columns holds.

        Their codes stay, and mean nothing any more.
        """
        unused = _unused(len(self.texts), self._wanted_texts, texts)
        # Those forgotten before are placeholders already.
        fillers = [code for code in np.flatnonzero(unused).tolist() if self.texts.text(code).startswith(FORGOTTEN)]
        unused[fillers] = False
        self.texts.forget(unused)
        self.arrays.forget(np.flatnonzero(_unused(len(self.arrays), self._wanted_arrays, arrays)).tolist())


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
