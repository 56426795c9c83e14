"""Who is in a segment: as published, and when time alone may change it."""

import heapq
import io
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.features.segments.evaluate_many import NEVER_US
from services.features.segments.universe import Codes, Universe

OUTSIDE = -(2**63)
"""Stands for `since` where a profile is no member."""


class Timers:
    """When profiles are to be looked at again: at most one instant for each.

    The array holds the truth; the sorted batch and the heap only say where to look, and may name what has changed.
    """

    def __init__(self) -> None:
        self._due: NDArray[np.int64] = np.empty(0, np.int64)
        self._sorted_due: NDArray[np.int64] = np.empty(0, np.int64)
        self._sorted_numbers: Codes = np.empty(0, np.int32)
        self._next = 0
        """The first of the sorted that was not taken yet."""
        self._heap: list[tuple[int, int]] = []
        self._sorted = True
        """Whether batch and heap name all that is set; if not, they are made anew before they are asked."""

    def set(self, numbers: Codes, due_us: NDArray[np.int64]) -> None:
        """Looks at these profiles again at these instants (NEVER_US: not at all), in place of what was set before."""
        if not len(numbers):
            return
        self._reserve(int(numbers.max()) + 1)
        self._due[numbers] = due_us
        set_ = due_us != NEVER_US
        count = int(set_.sum())
        if count > 1_024:
            self._sorted = False
            return
        for entry in zip(due_us[set_].tolist(), numbers[set_].tolist(), strict=True):
            heapq.heappush(self._heap, entry)
        self._bound_heap()

    def set_one(self, number: int, due_us: int | None) -> None:
        """The same for one."""
        self._reserve(number + 1)
        if due_us is None:
            self._due[number] = NEVER_US
        elif self._due.item(number) != due_us:
            self._due[number] = due_us
            heapq.heappush(self._heap, (due_us, number))
            self._bound_heap()

    def take(self, now_us: int) -> Codes:
        """The profiles whose instant has come; they have none from here on."""
        if not self._sorted:
            self._sort()
        stop = int(np.searchsorted(self._sorted_due, now_us, side="right"))
        parts = []
        if stop > self._next:
            numbers, due = self._sorted_numbers[self._next : stop], self._sorted_due[self._next : stop]
            parts.append(numbers[self._due[numbers] == due])
            self._next = stop
        popped = []
        while self._heap and self._heap[0][0] <= now_us:
            instant, number = heapq.heappop(self._heap)
            if self._due.item(number) == instant:
                popped.append(number)
        parts.append(np.array(popped, np.int32))
        found = np.unique(np.concatenate(parts))
        self._due[found] = NEVER_US
        return found

    @property
    def count(self) -> int:
        """How many are set."""
        return int((self._due != NEVER_US).sum())

    def _sort(self) -> None:
        numbers = np.flatnonzero(self._due != NEVER_US).astype(np.int32)
        due = self._due[numbers]
        order = np.argsort(due, kind="stable")
        self._sorted_numbers, self._sorted_due, self._next = numbers[order], due[order], 0
        self._heap, self._sorted = [], True

    def _bound_heap(self) -> None:
        """What is in the heap and does not hold any more is dropped once it is the larger part."""
        if len(self._heap) > 65_536 and len(self._heap) > 2 * self.count:
            self._sorted = False

    def _reserve(self, count: int) -> None:
        if count > len(self._due):
            grown = np.full(max(count, 2 * len(self._due)), NEVER_US, np.int64)
            grown[: len(self._due)] = self._due
            self._due = grown


class Members:
    """The profiles in a segment, by their numbers in a universe, with the instants since when."""

    def __init__(self) -> None:
        self.count = 0
        self._since: NDArray[np.int64] = np.empty(0, np.int64)

    def since_us(self, number: int | None) -> int | None:
        """Since when a profile is a member; None when it is not."""
        if number is None or number >= len(self._since):
            return None
        since = self._since.item(number)
        return None if since == OUTSIDE else since

    def are(self, numbers: Codes) -> NDArray[np.bool_]:
        """Which of these are members."""
        inside = numbers < len(self._since)
        return inside & (self._since[np.where(inside, numbers, 0)] != OUTSIDE) if len(self._since) else inside

    def enter(self, numbers: Codes, since_us: int | NDArray[np.int64]) -> None:
        """These are members from here on."""
        if not len(numbers):
            return
        count = int(numbers.max()) + 1
        if count > len(self._since):
            grown = np.full(max(count, 2 * len(self._since)), OUTSIDE, np.int64)
            grown[: len(self._since)] = self._since
            self._since = grown
        self.count += int((self._since[numbers] == OUTSIDE).sum())
        self._since[numbers] = since_us

    def leave(self, numbers: Codes) -> None:
        """These are not."""
        gone = numbers[self.are(numbers)]
        self._since[gone] = OUTSIDE
        self.count -= len(gone)

    def numbers(self) -> Codes:
        """All members."""
        return np.flatnonzero(self._since != OUTSIDE).astype(np.int32)

    def since(self, numbers: Codes) -> NDArray[np.int64]:
        """Since when these members are."""
        return self._since[numbers]


@dataclass(frozen=True, slots=True)
class Saved:
    """A membership as it stood after a sequence of the journal."""

    sequence: int
    keys: pa.Array
    since_us: NDArray[np.int64]


def frozen(members: Members, universe: Universe, sequence: int) -> Saved:
    """A copy of a membership, which may then go on while this is written."""
    numbers = members.numbers()
    return Saved(sequence, universe.texts(numbers).cast(pa.string()), members.since(numbers))


def encode(saved: Saved) -> bytes:
    """A membership as one Arrow file."""
    schema = pa.schema([("key", pa.string()), ("since_us", pa.int64())], {"sequence": str(saved.sequence)})
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        writer.write_batch(pa.record_batch([saved.keys, pa.array(saved.since_us)], schema=schema))
    return sink.getvalue()


def decode(data: bytes) -> Saved:
    """The membership back; raises ArrowInvalid, KeyError or ValueError for other bytes."""
    reader = pa.ipc.open_file(data)
    table = reader.read_all().combine_chunks()
    sequence = int((reader.schema.metadata or {})[b"sequence"])
    key, since = (table.column(i).combine_chunks() for i in range(2))
    return Saved(sequence, key, since.to_numpy())
