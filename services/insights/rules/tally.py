"""One rule's state for one user: the events counted, in the order of their own time, and what they come to.

Everything here is a function of the set of events alone, whatever order they came in. An event after all others costs
one step. One that comes late, and one that goes, fold again from the last mark before it, at most `MARK` events and
those behind it.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import NamedTuple

from services.insights.rules.compile import CompiledRule, Number, Test, decimal_of

MARK = 128
"""After so many events the tally is kept, to fold again from."""


class Event(NamedTuple):
    """A counted event; ordered by time, then id."""

    at_us: int
    event_id: str
    number: Number | None
    """What it adds to the sum."""


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
        if event.number is not None:
            tally.sum = self._arithmetic.add(tally.sum, decimal_of(event.number))
        met = True
        if self._count is not None:
            holds, tally.count_reached = self._count(tally.count, tally.count_reached)
            met &= holds
        if self._sum is not None:
            holds, tally.sum_reached = self._sum(tally.sum, tally.sum_reached)
            met &= holds
        is_edge = met and (self._pulse or not tally.met)
        if met != tally.met:
            tally.since_us = event.at_us
        tally.met = met
        if not is_edge:
            return None
        tally.edges += 1
        edge = Edge(tally.edges, event, tally.count, tally.sum)
        if self._reset:
            tally.count, tally.sum, tally.met = 0, Decimal(0), False
            tally.count_reached = tally.sum_reached = 0
        return edge


class Track:
    """The counted events of one user, and the tally after them."""

    __slots__ = ("base", "done", "events", "is_set", "marks", "moves", "shown", "tally")

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.base: Tally | None = None
        """After the events that were let go, if any were."""
        self.marks: list[Tally] = []
        """After each `MARK` events."""
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
            if len(self.events) % MARK == 0:
                self.marks.append(self.tally.copy())
            return [edge] if edge is not None and edge.ordinal > self.done else []
        place = bisect_left(self.events, event[:2], key=_order)
        self.events.insert(place, event)
        return self._fold_from(place, stepper)

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

    def trim(self, before_us: int) -> Iterable[Event]:
        """Lets events go that are older: what they came to stays, and they can no longer be corrected."""
        old = bisect_left(self.events, (before_us, ""), key=_order) // MARK
        if not old:
            return ()
        self.base = self.marks[old - 1]
        gone = self.events[: old * MARK]
        del self.events[: old * MARK], self.marks[:old]
        return gone

    def restore(self, events: list[Event], stepper: Stepper) -> None:
        """Takes events back, from a snapshot; `base` is there."""
        self.events = events
        self._fold_from(0, stepper)

    def _fold_from(self, place: int, stepper: Stepper) -> list[Edge]:
        kept = place // MARK
        del self.marks[kept:]
        before = self.marks[-1] if self.marks else self.base
        tally = Tally() if before is None else before.copy()
        edges = []
        for i in range(kept * MARK, len(self.events)):
            edge = stepper.step(tally, self.events[i])
            if edge is not None and edge.ordinal > self.done:
                edges.append(edge)
            if (i + 1) % MARK == 0:
                self.marks.append(tally.copy())
        self.tally = tally
        return edges


def _order(event: Event) -> tuple[int, str]:
    return event[:2]
