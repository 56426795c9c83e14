"""The pairs of a question, sorted by (key, instant), and what each of them sees."""

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from services.kernel.asof.bounds import lower_bounds_us
from services.kernel.asof.events import OrderedEvents
from services.kernel.jit import njit
from services.kernel.windows import Lifetime, Window

T = TypeVar("T", bound=np.generic)
Places = NDArray[np.int64]


class Span(NamedTuple):
    """The run of a stream's rows that each pair sees: [first, stop). Both are ascending where a run is not empty."""

    first: Places
    stop: Places


class Moments:
    """Pairs of (key's code, instant); arrays are in sorted order unless said otherwise."""

    def __init__(self, events: OrderedEvents, codes: NDArray[np.int32], instants_us: NDArray[np.int64]) -> None:
        self._events = events
        rises = (codes[1:] > codes[:-1]) | ((codes[1:] == codes[:-1]) & (instants_us[1:] >= instants_us[:-1]))
        self.order: NDArray[np.int64] | None = None if rises.all() else np.lexsort((instants_us, codes))
        """From a pair's place in sorted order to its place in the question; None when these are the same."""
        self.codes = codes if self.order is None else codes[self.order]
        self.instants_us = instants_us if self.order is None else instants_us[self.order]
        starts = np.append(events.key_starts, 0)
        self.starts: Places = np.where(self.codes >= 0, starts[self.codes], 0)
        """The first event of the pair's key."""
        self.stops = self._seek(self.instants_us)
        """The first event of the pair's key that is not before the instant."""
        self._begins: dict[Window, Places] = {}

    def __len__(self) -> int:
        return len(self.codes)

    def lower_bounds_us(self, window: Window) -> NDArray[np.int64]:
        """The first instant inside the window, by pair."""
        return lower_bounds_us(window, self.instants_us)

    def begins(self, window: Window) -> Places:
        """The first event of the pair's key that is inside the window, or `stops` when there is none."""
        if isinstance(window, Lifetime):
            return self.starts
        found = self._begins.get(window)
        if found is None:
            found = self._begins[window] = np.minimum(self._seek(self.lower_bounds_us(window)), self.stops)
        return found

    def restored(self, values: NDArray[T]) -> NDArray[T]:
        """Values of the pairs, in the order of the question."""
        if self.order is None:
            return values
        result = np.empty_like(values)
        result[self.order] = values
        return result

    def _seek(self, targets_us: NDArray[np.int64]) -> Places:
        return _seek(self._events.times, self._events.key_starts, self.codes, targets_us)


def ranks(places: NDArray[np.int32], targets: Places) -> Places:
    """How many of the ascending places are before each target; fast when the targets ascend too."""
    return _ranks(places, targets)


@njit
def _gallop(values: NDArray[np.int64] | NDArray[np.int32], target: int, low: int, high: int) -> int:
    """The index in [low, high] of the first value that is not less than the target; fast when it is near `low`."""
    if low >= high or values[low] >= target:
        return low
    step = 1
    while low + step < high and values[low + step] < target:
        low += step
        step *= 2
    high = min(high, low + step)
    while low + 1 < high:
        middle = (low + high) // 2
        if values[middle] < target:
            low = middle
        else:
            high = middle
    return high


@njit
def _seek(
    times: NDArray[np.int64], key_starts: NDArray[np.int64], codes: NDArray[np.int32], targets: NDArray[np.int64]
) -> NDArray[np.int64]:
    result = np.zeros(len(codes), np.int64)
    for i in range(len(codes)):
        code = codes[i]
        if code < 0:
            continue
        low = key_starts[code]
        if i > 0 and codes[i - 1] == code and targets[i - 1] <= targets[i]:
            low = result[i - 1]
        result[i] = _gallop(times, targets[i], low, key_starts[code + 1])
    return result


@njit
def _ranks(places: NDArray[np.int32], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    result = np.zeros(len(targets), np.int64)
    for i in range(len(targets)):
        low = result[i - 1] if i > 0 and targets[i - 1] <= targets[i] else 0
        result[i] = _gallop(places, targets[i], low, len(places))
    return result
