"""One rule's state for one user: the events counted, in the order of their own time, and what they come to.

Everything here is a function of the set of events alone, whatever order they came in. Events after all others are
passed over at once up to the one that changes something, which costs a step. One that comes late, and one that goes,
fold again from the last mark before it, some `MARK` events and those behind it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal

from services.insights.rules.compile import CompiledRule, Number, Test, decimal_of

MARK = 128
"""After so many events the tally is kept, to fold again from."""


Event = tuple[int, str, Number | None]
"""A counted event: its time, its id, and what it adds to the sum. Ordered by time, then id."""


@dataclass(frozen=True, slots=True)
class Edge:
    """An event with which the condition became true."""

    ordinal: int
    """1 for the user's first."""
    event: Event
    count: int
    sum: Decimal
    """Count and sum with the event, before a reset."""


class Tally:
    """Count, sum and whether the condition holds after some events."""

    __slots__ = ("count", "count_reached", "edges", "met", "since_us", "sum", "sum_reached")

    def __init__(self) -> None:
        self.count = 0
        self.sum = Decimal(0)
        self.met = False
        self.count_reached = 0
        self.sum_reached = 0
        """The highest multiple of an `every` condition's target."""
        self.edges = 0
        self.since_us = 0
        """The time of the event since which `met` is as it is."""

    def copy(self) -> "Tally":
        """The same, apart."""
        other = Tally()
        for name in Tally.__slots__:
            setattr(other, name, getattr(self, name))
        return other


class Stepper:
    """How a rule goes from one event to the next."""

    def __init__(self, compiled: CompiledRule, arithmetic: Context) -> None:
        rule = compiled.rule
        self._arithmetic = arithmetic
        self._reset = rule.reset
        self._count = Test(rule.count, arithmetic) if rule.count else None
        self._sum = Test(rule.sum.condition, arithmetic) if rule.sum else None
        self._pulse = any(test is not None and test.is_pulse for test in (self._count, self._sum))

    def step(self, tally: Tally, event: Event) -> Edge | None:
        """Counts an event; gives the edge that it made, if it did."""
        tally.count += 1
        if event[2] is not None:
            tally.sum = self._arithmetic.add(tally.sum, decimal_of(event[2]))
        met = True
        if self._count is not None:
            holds, tally.count_reached = self._count(tally.count, tally.count_reached)
            met &= holds
        if self._sum is not None:
            holds, tally.sum_reached = self._sum(tally.sum, tally.sum_reached)
            met &= holds
        is_edge = met and (self._pulse or not tally.met)
        if met != tally.met:
            tally.since_us = event[0]
        tally.met = met
        if not is_edge:
            return None
        tally.edges += 1
        edge = Edge(tally.edges, event, tally.count, tally.sum)
        if self._reset:
            tally.count, tally.sum, tally.met = 0, Decimal(0), False
            tally.count_reached = tally.sum_reached = 0
        return edge

    def glide(self, tally: Tally, events: Sequence[Event]) -> int:
        """Counts events up to the first that makes an edge, or changes whether the condition holds; gives how many."""
        if self._sum is None and self._count is not None:
            change = self._count.next_change(tally.met, tally.count, tally.count_reached)
            passed = len(events) if change is None else min(len(events), change - tally.count - 1)
            tally.count += passed
            return passed
        return self._glide_slowly(tally, events)

    def _glide_slowly(self, tally: Tally, events: Sequence[Event]) -> int:
        add, was_met, pulse = self._arithmetic.add, tally.met, self._pulse
        count_test, sum_test = self._count, self._sum
        total, count_reached, sum_reached = tally.sum, tally.count_reached, tally.sum_reached
        passed = 0
        for _, _, number in events:
            if number is not None:
                total = add(total, decimal_of(number))
            met = True
            if count_test is not None:
                met, count_reached = count_test(tally.count + passed + 1, count_reached)
            if sum_test is not None:
                holds, sum_reached = sum_test(total, sum_reached)
                met &= holds
            if met != was_met or (met and pulse):
                break
            tally.sum, tally.count_reached, tally.sum_reached = total, count_reached, sum_reached
            passed += 1
        tally.count += passed
        return passed


class Track:
    """The counted events of one user, and the tally after them."""

    __slots__ = ("base", "done", "events", "is_set", "marks", "moves", "shown", "tally")

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.base: Tally | None = None
        """After the events that were let go, if any were."""
        self.marks: list[tuple[int, Tally]] = []
        """After so many of the events, `MARK` apart or a little more."""
        self.tally = Tally()
        self.done = 0
        """Edges that were decided about: none is decided about twice."""
        self.shown = False
        """Whether the condition held when it was last looked at."""
        self.is_set = False
        """Whether the property is set by this rule."""
        self.moves = 0
        """How often the property was set or withdrawn."""

    def add(self, event: Event, stepper: Stepper) -> list[Edge]:
        """Counts an event; gives the edges that were not decided about, in order."""
        if not self.events or event[:2] > self.events[-1][:2]:
            self.events.append(event)
            edge = stepper.step(self.tally, event)
            self._mark()
            return [edge] if edge is not None and edge.ordinal > self.done else []
        place = bisect_left(self.events, event[:2], key=_order)
        self.events.insert(place, event)
        return self._fold_from(place, stepper)

    def glide(self, events: list[Event], stepper: Stepper) -> int:
        """Counts events after all others up to the first that changes something; gives how many."""
        passed = stepper.glide(self.tally, events)
        if passed:
            self.events += events if passed == len(events) else events[:passed]
            self._mark()
        return passed

    def _mark(self) -> None:
        if len(self.events) - (self.marks[-1][0] if self.marks else 0) >= MARK:
            self.marks.append((len(self.events), self.tally.copy()))

    def remove(self, at_us: int, event_id: str, stepper: Stepper) -> list[Edge]:
        """Takes an event out; gives the edges that were not decided about, in order."""
        place = bisect_left(self.events, (at_us, event_id), key=_order)
        if place == len(self.events) or self.events[place][:2] != (at_us, event_id):
            return []
        del self.events[place]
        return self._fold_from(place, stepper)

    def holds(self, at_us: int, event_id: str) -> bool:
        """Whether an event is counted and still held."""
        place = bisect_left(self.events, (at_us, event_id), key=_order)
        return place < len(self.events) and self.events[place][:2] == (at_us, event_id)

    def trim(self, before_us: int, stepper: Stepper) -> Sequence[Event]:
        """Lets events go that are older, if they are all or many: what they came to stays, and they can no longer be
        corrected. Gives them.
        """
        old = bisect_left(self.events, (before_us, ""), key=_order)
        if not old or (old < MARK and old < len(self.events)):
            return ()
        place, tally = self._before(old)
        for event in self.events[place:old]:
            stepper.step(tally, event)
        gone = self.events[:old]
        self.base, self.marks = tally, [(at - old, mark) for at, mark in self.marks if at > old]
        del self.events[:old]
        return gone

    def restore(self, events: list[Event], stepper: Stepper) -> None:
        """Takes events back, from a snapshot; `base` is there."""
        self.events = events
        self._fold_from(0, stepper)

    def _before(self, place: int) -> tuple[int, Tally]:
        """The last mark at or before a place among the events, to go on from."""
        kept = bisect_right(self.marks, place, key=_place)
        if kept:
            return self.marks[kept - 1][0], self.marks[kept - 1][1].copy()
        return 0, Tally() if self.base is None else self.base.copy()

    def _fold_from(self, place: int, stepper: Stepper) -> list[Edge]:
        start, tally = self._before(place)
        del self.marks[bisect_right(self.marks, place, key=_place) :]
        edges = []
        for i in range(start, len(self.events)):
            edge = stepper.step(tally, self.events[i])
            if edge is not None and edge.ordinal > self.done:
                edges.append(edge)
            if i + 1 - start >= MARK:
                start = i + 1
                self.marks.append((start, tally.copy()))
        self.tally = tally
        return edges


def _order(event: Event) -> tuple[int, str]:
    return event[:2]


def _place(mark: tuple[int, Tally]) -> int:
    return mark[0]
