"""One segment at work: its members as published, and what is to be looked at again."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import pyarrow as pa

from services.features.segments.binding import Bound, SharedReadings
from services.features.segments.definitions import SegmentDefinition
from services.features.segments.language import Mistake
from services.features.segments.membership import Members, Saved, Timers
from services.features.segments.universe import Codes, Universe
from services.runtime.journal import Change, Entry

ENTERED, LEFT = "entered", "left"


class SegmentState(StrEnum):
    """Whether the members are current."""

    EVALUATING = "evaluating"
    """Not yet: after creation or a start, or while a group is being filled."""
    SERVING = "serving"
    BROKEN = "broken"
    """The condition names what does not exist any more; the members are those of before."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Profiles of one segment that were found to have changed, at one instant."""

    live: "LiveSegment"
    entered: Codes
    left: Codes
    now_us: int
    position: int

    def __len__(self) -> int:
        return len(self.entered) + len(self.left)

    def changes(self) -> list[Change]:
        """As the journal has them."""
        stream, universe = self.live.definition.stream, self.live.universe
        return [
            Change(stream, universe.text(number), what, self.now_us, self.position)
            for what, numbers in ((ENTERED, self.entered), (LEFT, self.left))
            for number in numbers.tolist()
        ]

    def publish(self) -> None:
        """Readers see it from here on."""
        self.live.members.enter(self.entered, self.now_us)
        self.live.members.leave(self.left)
        self.live.unsaved += len(self)


@dataclass
class Counts:
    """What was done for a segment since the start."""

    changes: int = 0
    """In the journal."""
    evaluations: int = 0
    """Profiles looked at."""
    seconds: float = 0.0


@dataclass(eq=False)
class LiveSegment:
    """A segment with its members."""

    definition: SegmentDefinition
    universe: Universe
    members: Members = field(default_factory=Members)
    timers: Timers = field(default_factory=Timers)
    bound: Bound | None = None
    state: SegmentState = SegmentState.EVALUATING
    mistakes: tuple[Mistake, ...] = ()
    recovered: bool = False
    """Whether `members` are those that were published last."""
    saved_sequence: int = -1
    """The membership on the shelf is that after this sequence of the journal."""
    unsaved: int = 0
    """Changes since then."""
    counts: Counts = field(default_factory=Counts)
    _pending: list[Codes] = field(default_factory=list)
    _seen: int = 0
    """Profiles of the universe that were looked at, or are pending."""

    def look_at(self, numbers: Codes) -> None:
        """These may have changed."""
        if len(numbers):
            self._pending.append(numbers)

    def begin(self, bound: Bound) -> None:
        """The values are somewhere else, or the condition is another: all profiles are looked at, once."""
        self.bound, self.state = bound, SegmentState.EVALUATING
        self.timers = Timers()
        self._pending, self._seen = [], 0

    def take_due(self, now_us: int) -> Codes:
        """Everything to be looked at now, each once. It stays pending until `settle`."""
        fresh = np.arange(self._seen, len(self.universe), dtype=np.int32)
        self._seen = len(self.universe)
        due = self.universe.alive(np.unique(np.concatenate([*self._pending, fresh, self.timers.take(now_us)])))
        self._pending = [due] if len(due) else []
        return due

    def settle(self) -> None:
        """All that was due has been looked at, and published."""
        self._pending = []

    def turn(self, numbers: Codes, now_us: int, position: int, shared: SharedReadings | None = None) -> Turn:
        """Looks at some profiles: how they differ from what is published. `shared`: see `Bound.holds`."""
        assert self.bound is not None, "bound before"
        begun = time.perf_counter()
        holds = self.bound.holds(numbers, now_us, self.timers, shared)
        were = self.members.are(numbers)
        self.counts.evaluations += len(numbers)
        self.counts.seconds += time.perf_counter() - begun
        return Turn(self, numbers[holds & ~were], numbers[~holds & were], now_us, position)

    def recover(self, saved: Saved) -> None:
        """Takes the members from the shelf."""
        self.members = Members()
        self.members.enter(self.universe.take_in(saved.keys), saved.since_us)
        self.saved_sequence, self.unsaved = saved.sequence, 0

    def repeat(self, entries: tuple[Entry, ...]) -> None:
        """Takes in what the journal says happened after that."""
        for entry in entries:
            change = entry.change
            number = self.universe.take_in(pa.array([change.key_value], pa.string()))
            if change.change == ENTERED:
                self.members.enter(number, change.instant_us)
            else:
                self.members.leave(number)
        self.unsaved += len(entries)


def alike(segments: Iterable[LiveSegment], now_us: int) -> list[tuple[list[LiveSegment], Codes]]:
    """Everything to be looked at now: segments with the same profiles together, in the order of the first of each."""
    found: dict[tuple[int, int], list[tuple[list[LiveSegment], Codes]]] = {}
    for live in segments:
        due = live.take_due(now_us)
        groups = found.setdefault((id(live.universe), hash(due.tobytes())), [])
        for group, same in groups:
            if np.array_equal(same, due):
                group.append(live)
                break
        else:
            groups.append(([live], due))
    return [group for groups in found.values() for group in groups]
