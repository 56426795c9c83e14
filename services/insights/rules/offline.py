"""Evaluates rules over events in hand, without any service: what `inkling rules eval` prints."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from services.insights.rules.actions import Action
from services.insights.rules.dates import instant_text
from services.insights.rules.definitions import Rule, plain
from services.insights.rules.engine import RuleEngine, running_instants
from services.insights.rules.events_csv import EventLine, batch_of
from services.kernel.dedup import ADDED
from services.kernel.expressions import Instant
from services.kernel.windows import MIN_US

BATCH_EVENTS = 4_096


def evaluate(rules: Iterable[Rule], events: Sequence[EventLine], user_key: str) -> Iterator[Action]:
    """The actions in the order of decision. The events come as given, each once, with the clock of the log: its now
    is the newest `at_us` so far.
    """
    engine = RuleEngine(rules)
    now_us = MIN_US
    for start in range(0, len(events), BATCH_EVENTS):
        batch = batch_of(events[start : start + BATCH_EVENTS], user_key)
        added = np.full(batch.num_rows, ADDED, np.int8)
        instants = running_instants(batch, added, of_log=True, before_us=now_us)
        engine.apply(batch, added, instants)
        now_us = int(instants[-1])
        yield from engine.take_actions()


def as_json(action: Action) -> dict[str, Any]:
    """An action as a JSON object."""
    value = instant_text(action.value.us) if isinstance(action.value, Instant) else action.value
    return {
        "instant": instant_text(action.at_us),
        "rule": action.rule_id,
        "user": action.user,
        "action": action.effect.value,
        "name": action.name,
        "value": value,
        "count": action.count,
        "sum": None if action.sum is None else plain(action.sum),
    }
