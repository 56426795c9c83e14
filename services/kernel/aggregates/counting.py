"""counter: how many events are in the window."""

import numpy as np
from numpy.typing import NDArray

from services.kernel.aggregates.base import Gathered, ManyReader, Reader, States, WindowedState
from services.kernel.aggregations import Aggregation
from services.kernel.jit import compiled
from services.kernel.rows import Rows, grown


class Count(WindowedState):
    """How many rows of the stream are in the window."""

    counts: NDArray[np.int64] = np.zeros(0, np.int64)

    def reserve_keys(self, count: int) -> None:
        if count > len(self.counts):
            self.counts = grown(self.counts, max(count, 2 * len(self.counts)))

    def enter(self, rows: NDArray[np.int32]) -> None:
        _add(self.counts, self.memory.store.columns, rows, *self.bit, 1)

    def leave(self, rows: NDArray[np.int32]) -> None:
        _add(self.counts, self.memory.store.columns, rows, *self.bit, -1)

    def forget_key(self, key: int) -> None:
        self.counts[key] = 0

    def dump(self) -> dict[str, NDArray[np.generic]]:
        return {"counts": self.counts}

    def load(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        self.counts = np.array(arrays["counts"])


@compiled
def _add(counts: NDArray[np.int64], columns: Rows, rows: NDArray[np.int32], word: int, mask: np.uint64, n: int) -> None:
    for i in range(len(rows)):
        if columns.flags[rows[i], word] & mask:
            counts[columns.keys[rows[i]]] += n


def counter(aggregation: Aggregation, states: States) -> Reader:
    """The number of events."""
    state = states.windowed(Count, aggregation)

    def read(key: int) -> int | None:
        return state.counts.item(key) or None

    return read


def many_counters(aggregation: Aggregation, states: States) -> ManyReader:
    """The same for many keys."""
    state = states.windowed(Count, aggregation)

    def read(keys: NDArray[np.int32]) -> Gathered:
        counts = state.counts[keys]
        return Gathered(counts, counts > 0)

    return read
