"""All rows in order of time: what leaves a window, or enters the past, is a slice of it.

Kept as a few sorted runs, each at least twice as long as the next: rows that come in order extend the last run, others
make a new one, and runs are merged when they are of like length. So adding costs O(log n) a row whatever the order of
arrival, and a slice is one binary search for each run.
"""

import numpy as np
from numpy.typing import NDArray

from services.kernel.rows import grown


class _Run:
    """Sorted times with their rows, with room to grow at the end."""

    def __init__(self, times: NDArray[np.int64], rows: NDArray[np.int32]) -> None:
        self.times, self.rows, self.count = times, rows, len(times)

    def extend(self, times: NDArray[np.int64], rows: NDArray[np.int32]) -> None:
        end = self.count + len(times)
        if end > len(self.times):
            self.times, self.rows = grown(self.times, 2 * end), grown(self.rows, 2 * end)
        self.times[self.count : end] = times
        self.rows[self.count : end] = rows
        self.count = end

    def span(self, first_us: int, last_us: int) -> slice:
        times = self.times[: self.count]
        return slice(*(int(i) for i in np.searchsorted(times, [first_us, last_us])))


class TimeOrder:
    """Rows by time."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(run.times.nbytes + run.rows.nbytes for run in self._runs)

    def add(self, times: NDArray[np.int64], rows: NDArray[np.int32]) -> None:
        """Adds rows, in any order."""
        if not len(times):
            return
        if len(times) > 1 and (times[1:] < times[:-1]).any():
            order = np.argsort(times, kind="stable")
            times, rows = times[order], rows[order]
        last = self._runs[-1] if self._runs else None
        if last is not None and last.times[last.count - 1] <= times[0]:
            last.extend(times, rows)
        else:
            self._runs.append(_Run(times.copy(), rows.copy()))
        while len(self._runs) > 1 and self._runs[-2].count < 2 * self._runs[-1].count:
            self._merge_last_two()

    def _merge_last_two(self) -> None:
        b, a = self._runs.pop(), self._runs.pop()
        times = np.concatenate([a.times[: a.count], b.times[: b.count]])
        rows = np.concatenate([a.rows[: a.count], b.rows[: b.count]])
        order = np.argsort(times, kind="stable")
        self._runs.append(_Run(times[order], rows[order]))

    def between(self, first_us: int, last_us: int) -> NDArray[np.int32]:
        """The rows with first <= time < last, in order of time within each run."""
        if first_us >= last_us:
            return np.empty(0, np.int32)
        parts = [run.rows[run.span(first_us, last_us)] for run in self._runs]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def next_time(self, from_us: int) -> int | None:
        """The least time that is not before `from_us`, or None."""
        found = [
            int(run.times[i])
            for run in self._runs
            if (i := int(np.searchsorted(run.times[: run.count], from_us))) < run.count
        ]
        return min(found, default=None)
