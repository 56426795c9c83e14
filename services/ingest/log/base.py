"""The event log: what every implementation promises, and the values it speaks in.

A project's log is a sequence of events, each with a position: the first is 1, the next 2, without gaps. Events are
stored and read in the batches in which they were appended, as Arrow IPC bytes that the log does not look into. The
conformance suite in `tests/ingest/log` holds every implementation to this text.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from services.runtime.errors import Unavailable

MAX_BATCH_BYTES = 64 * 1024 * 1024
"""The largest batch a log takes."""


class PositionRange(NamedTuple):
    """The positions of the events of one batch, both ends included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class LogBatch:
    """One appended batch, as read back."""

    first_position: int
    last_position: int
    data: bytes
    """Arrow IPC, byte for byte as appended."""
    min_occurred_us: int
    max_occurred_us: int
    received_us: int

    @property
    def count(self) -> int:
        """How many events it holds."""
        return self.last_position - self.first_position + 1


@dataclass(frozen=True, slots=True)
class LogStats:
    """What a project's log holds."""

    count: int
    """Events kept."""
    bytes: int
    """Bytes of the batches kept."""
    appended_bytes: int
    """Bytes of all batches ever appended; trimming does not lower it."""
    max_occurred_us: int | None
    """The newest event time ever appended, also when it was trimmed; None when there was no event."""


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What a trim removed."""

    batches: int
    count: int
    """Events."""
    bytes: int

    def __add__(self, other: "Trimmed") -> "Trimmed":
        return Trimmed(self.batches + other.batches, self.count + other.count, self.bytes + other.bytes)


class EventLog(ABC):
    """An ordered, durable log of events for each project.

    Every method may raise Unavailable with reason LOG_UNAVAILABLE: a full disk, a lost database, a closed log. What
    was acknowledged before stays; calls work again when the cause is gone. Methods are called from the event loop in
    which the log was opened. A project that was never written reads as an empty log.
    """

    @abstractmethod
    async def append(
        self,
        project: str,
        record_batch: bytes | bytearray | memoryview,
        count: int,
        *,
        min_occurred_us: int,
        max_occurred_us: int,
        received_us: int,
    ) -> PositionRange:
        """Appends a batch of `count` events and returns their positions once it is durable.

        Callers that wait at the same time, of whatever project, share one transaction and one fsync. A batch is stored
        whole or not at all. After Unavailable nothing was stored, unless the connection broke while the database
        was committing: then, as after a cancelled call, it may have been, and the retry's duplicates are told by their
        event ids. Raises ValueError for an empty batch or one above MAX_BATCH_BYTES.
        """

    @abstractmethod
    async def read(self, project: str, after_position: int, max_bytes: int) -> list[LogBatch]:
        """The batches with events after a position, in order: up to `max_bytes`, but at least one if there is one.

        A batch that holds `after_position + 1` in its middle comes whole; the reader slices it. Positions have gaps
        where batches were trimmed. Empty at the head, and where everything up to the head was trimmed: a reader then
        goes on from a head that it asked for before it read.
        """

    @abstractmethod
    async def wait(self, project: str, after_position: int) -> int:
        """Returns the head as soon as it is beyond `after_position`, at once if it is already."""

    @abstractmethod
    async def head(self, project: str) -> int:
        """The position of the newest event, trimmed or not; 0 when nothing was ever appended."""

    @abstractmethod
    async def oldest(self, project: str) -> int:
        """The first position still kept; one more than the head when nothing is."""

    @abstractmethod
    async def complete_since_us(self, project: str) -> int | None:
        """The event time from which on nothing was trimmed: one more than the newest event time that was.

        None when nothing was trimmed.
        """

    @abstractmethod
    async def trim(self, project: str, before_occurred_us: int) -> Trimmed:
        """Removes the batches all of whose events occurred before an instant, wherever in the log they are.

        Trimming goes by event time, not by position: history that was loaded late is as old as it says. So what is kept
        may begin later than 1 and have gaps, and some events older than the instant stay, because a batch is kept
        whole. Positions are never used again.
        """

    @abstractmethod
    async def replace(self, project: str, before: LogBatch, after: LogBatch) -> bool:
        """Puts other content in the place of a stored batch; the positions are the same, the times may differ.

        False when the batch is not there as it was read: it was trimmed, or replaced by somebody else. From then on
        every reader, of this and of other processes, is given the new content. Only erasure does this: whoever read the
        old content must come to the same state by what follows in the log. Raises ValueError for other positions.
        """

    @abstractmethod
    async def scrub(self) -> None:
        """Leaves nothing in the log's own files of what was replaced or trimmed, as far as this process can see to it.

        Raises Unavailable when readers were in the way all the time: try again.
        """

    @abstractmethod
    async def projects(self) -> list[str]:
        """The projects that were ever written, by name."""

    @abstractmethod
    async def stats(self, project: str) -> LogStats:
        """What a project's log holds."""

    @abstractmethod
    async def close(self) -> None:
        """Finishes what was already handed in, wakes those who wait with Unavailable, and releases everything."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A batch on its way into the log."""

    project: str
    data: bytes
    count: int
    min_occurred_us: int
    max_occurred_us: int
    received_us: int

    @classmethod
    def checked(
        cls,
        project: str,
        record_batch: bytes | bytearray | memoryview,
        count: int,
        min_occurred_us: int,
        max_occurred_us: int,
        received_us: int,
    ) -> "Entry":
        """The entry of an append; raises ValueError for one that no log takes."""
        if not project or "\0" in project:
            raise ValueError("a project has a name without NUL")
        if count < 1 or min_occurred_us > max_occurred_us:
            raise ValueError(f"not a batch: {count} events from {min_occurred_us} to {max_occurred_us}")
        data = record_batch if isinstance(record_batch, bytes) else bytes(record_batch)
        if not 1 <= len(data) <= MAX_BATCH_BYTES:
            raise ValueError(f"a batch has 1 to {MAX_BATCH_BYTES} bytes, not {len(data)}")
        return cls(project, data, count, min_occurred_us, max_occurred_us, received_us)

    def at(self, first_position: int) -> LogBatch:
        """The batch as it will be read back."""
        return LogBatch(
            first_position,
            first_position + self.count - 1,
            self.data,
            self.min_occurred_us,
            self.max_occurred_us,
            self.received_us,
        )


def check_replacement(before: LogBatch, after: LogBatch) -> None:
    """Raises ValueError for a batch that no log puts in the place of another."""
    if (before.first_position, before.last_position) != (after.first_position, after.last_position):
        raise ValueError("a batch keeps its positions")
    Entry.checked("-", after.data, after.count, after.min_occurred_us, after.max_occurred_us, after.received_us)


@dataclass(slots=True)
class Totals:
    """What a group of entries adds to one project's row."""

    count: int = 0
    bytes: int = 0
    max_occurred_us: int = -(2**63)

    @staticmethod
    def of(entries: Sequence["Entry"]) -> "dict[str, Totals]":
        """By project, in the order of their names: all writers lock the rows in the same order."""
        totals: dict[str, Totals] = {}
        for entry in entries:
            total = totals.setdefault(entry.project, Totals())
            total.count += entry.count
            total.bytes += len(entry.data)
            total.max_occurred_us = max(total.max_occurred_us, entry.max_occurred_us)
        return dict(sorted(totals.items()))


def place(entries: Sequence[Entry], heads: dict[str, int]) -> list[LogBatch]:
    """Gives the entries of a group their positions, in order, given each project's head *after* the group."""
    totals = Totals.of(entries)
    following = {project: heads[project] - total.count + 1 for project, total in totals.items()}
    batches = []
    for entry in entries:
        batches.append(entry.at(following[entry.project]))
        following[entry.project] += entry.count
    return batches


def log_unavailable(message: str) -> Unavailable:
    """The error for whatever the log cannot do now. The message reaches callers: it names no file and no host."""
    return Unavailable(message, reason="LOG_UNAVAILABLE")
