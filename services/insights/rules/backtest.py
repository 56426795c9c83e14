"""Whom a rule would have hit: a rule over events that have been, without doing anything."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np

from services.insights.rules.compile import CompiledRule, compile_rule
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


def back_test(rule: Rule, batches: Iterable[EventBatch], start_us: int, end_us: int, max_hits: int = 1_000) -> BackTest:
    """Whom a valid rule would have hit in [start, end), had it been there from the first of these events on.

    The batches are records in the order of the log, with corrections among them. Each event is taken at its own time,
    as if none had come late, and in its last version.
    """
    # Whatever the rule does, a hit is an edge: a fired event is one.
    engine = RuleEngine([replace(rule, action=RuleAction(ActionKind.FIRE_EVENT))], Past.ASKED)
    final = _final(compile_rule(rule), batches, end_us)
    if final is not None:
        engine.apply(final, np.full(final.num_rows, ADDED, np.int8), final.occurred_at + 1)
    # What would have happened before the start is not told; the state that it left is.
    hits = [
        Hit(each.at_us, each.user, each.count, each.sum) for each in engine.take_actions() if each.at_us >= start_us
    ]
    hits.sort(key=lambda hit: (hit.at_us, hit.user))
    statistics = engine.statistics(rule.rule_id)
    return BackTest(
        statistics.events,
        statistics.users,
        len({hit.user for hit in hits}),
        statistics.holding,
        len(hits),
        tuple(hits[:max_hits]),
        statistics.rejected,
    )


def _final(compiled: CompiledRule, batches: Iterable[EventBatch], end_us: int) -> EventBatch | None:
    """The rows that a rule looks at, in their last versions and in the order of their own time; None for none."""
    deduplicator = Deduplicator(MAX_HORIZON_US)
    pieces: list[EventBatch] = []
    places: dict[str, int] = {}
    total = 0
    for batch in batches:
        actions = deduplicator.resolve(batch).actions
        ids = batch.record_batch.column("event_id")
        selected = compiled.expression.evaluate(batch) & (batch.occurred_at < end_us)
        kept = np.flatnonzero(selected & ((actions == ADDED) | (actions == REPLACED)))
        place = {row: total + i for i, row in enumerate(kept.tolist())}
        for row in np.union1d(np.flatnonzero(actions >= REPLACED), kept).tolist():
            event_id = ids[row].as_py()
            if row in place:
                places[event_id] = place[row]
            else:
                places.pop(event_id, None)
        if len(kept):
            pieces.append(batch.take(kept))
            total += len(kept)
    if not places:
        return None
    whole = merge(pieces)
    times = whole.occurred_at
    rows = sorted(places.items(), key=lambda item: (int(times[item[1]]), item[0]))
    return whole.take(np.array([row for _, row in rows], np.int64))
