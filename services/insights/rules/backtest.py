"""Whom a rule would have hit: a rule over events that have been, without doing anything."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np

from services.insights.rules.compile import compile_rule
from services.insights.rules.definitions import ActionKind, Rule, RuleAction
from services.insights.rules.engine import RuleEngine
from services.insights.rules.state import Past
from services.kernel.columns import EventBatch, merge
from services.kernel.dedup import ADDED, REPLACED, Deduplicator

MAX_HORIZON_US = 2**62


@dataclass(frozen=True, slots=True)
class Hit:
    """The condition becoming true for a user."""

    at_us: int
    """The time of the event with which it did."""
    user: str
    count: int
    sum: Decimal | None
    """None when the rule has no condition on a sum."""


@dataclass(frozen=True, slots=True)
class BackTest:
    """What would have happened from the start to the end."""

    events: int
    """Events that the rule counts before the end, from the first that is retained."""
    users: int
    """Users with such an event."""
    hit_users: int
    """Users who would have been hit."""
    holding_users: int
    """Users for whom the condition holds at the end."""
    hit_count: int
    hits: tuple[Hit, ...]
    """The first of them in the order of time, then user; as many as asked for."""
    rejected: int
    """Events whose metric was no number, or nobody said which of several it is."""
    complete_since_us: int | None = None
    """Events before this time were trimmed from the log; None: nothing is lacking."""


class BackTester:
    """Takes the records of a log, with corrections among them, in its order; holds only those that the rule counts."""

    def __init__(self, rule: Rule, end_us: int) -> None:
        """`rule` is valid; events from `end_us` on are not looked at."""
        # Whatever the rule does, a hit is an edge: a fired event is one.
        self._rule = replace(rule, action=RuleAction(ActionKind.FIRE_EVENT))
        self._compiled = compile_rule(rule)
        self._end_us = end_us
        self._deduplicator = Deduplicator(MAX_HORIZON_US)
        self._pieces: list[EventBatch] = []
        self._places: dict[str, int] = {}
        """Of the last version of each event its place among the pieces."""
        self._total = 0
        self._complete_since_us: int | None = None

    def note_complete_since(self, since_us: int | None) -> None:
        """Says from which event time on the log is complete."""
        if since_us is not None and self._compiled.reaches_before(since_us):
            self._complete_since_us = since_us

    def add(self, batch: EventBatch) -> None:
        """Takes records."""
        actions = self._deduplicator.resolve(batch).actions
        ids = batch.record_batch.column("event_id")
        selected = self._compiled.expression.evaluate(batch) & (batch.occurred_at < self._end_us)
        kept = np.flatnonzero(selected & ((actions == ADDED) | (actions == REPLACED)))
        place = {row: self._total + i for i, row in enumerate(kept.tolist())}
        for row in np.union1d(np.flatnonzero(actions >= REPLACED), kept).tolist():
            event_id = ids[row].as_py()
            if row in place:
                self._places[event_id] = place[row]
            else:
                self._places.pop(event_id, None)
        if len(kept):
            self._pieces.append(batch.take(kept))
            self._total += len(kept)

    def answer(self, start_us: int, max_hits: int = 1_000) -> BackTest:
        """Whom the rule would have hit from `start_us` on, had it been there from the first of the events on.

        Each event is taken at its own time, as if none had come late, and in its last version.
        """
        engine = RuleEngine([self._rule], Past.ASKED)
        if self._places:
            final = self._final()
            engine.apply(final, np.full(final.num_rows, ADDED, np.int8), final.occurred_at + 1)
        # What would have happened before the start is not told; the state that it left is.
        fired = [action for action in engine.take_actions() if action.at_us >= start_us]
        hits = [Hit(action.at_us, action.user, action.count, action.sum) for action in fired]
        hits.sort(key=lambda hit: (hit.at_us, hit.user))
        statistics = engine.statistics(self._rule.rule_id)
        return BackTest(
            statistics.events,
            statistics.users,
            len({hit.user for hit in hits}),
            statistics.holding,
            len(hits),
            tuple(hits[:max_hits]),
            statistics.rejected,
            self._complete_since_us,
        )

    def _final(self) -> EventBatch:
        """The last versions in the order of their own time."""
        whole = merge(self._pieces)
        times = whole.occurred_at
        rows = sorted(self._places.items(), key=lambda item: (int(times[item[1]]), item[0]))
        return whole.take(np.array([row for _, row in rows], np.int64))


def back_test(rule: Rule, batches: Iterable[EventBatch], start_us: int, end_us: int, max_hits: int = 1_000) -> BackTest:
    """Whom a valid rule would have hit in [start, end) by these records, in the order of the log: see `BackTester`."""
    tester = BackTester(rule, end_us)
    for batch in batches:
        tester.add(batch)
    return tester.answer(start_us, max_hits)
