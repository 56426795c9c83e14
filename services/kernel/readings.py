"""Readings: the values of a key with how they came about."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from services.kernel.aggregates import READERS
from services.kernel.aggregates.base import Bounds, Stream, Value
from services.kernel.aggregates.endpoints import Last
from services.kernel.aggregations import Aggregation
from services.kernel.registry import Registry
from services.kernel.windows import MIN_US


class Status(StrEnum):
    """How a value came about."""

    PRESENT = "present"
    EMPTY_WINDOW = "empty_window"
    """There were relevant events, none of them in the window now."""
    NEVER_SEEN = "never_seen"
    """There was never a relevant event."""
    NULL = "null"
    """There are relevant events, but no term in them."""
    EXPIRED = "expired"
    """The last relevant event is longer ago than the ttl."""
    LEFT_TRUNCATED = "left_truncated"
    """The log did not reach back to the start of the window."""
    TRUNCATED = "truncated"
    """The value was cut to its limit."""


class Reading(NamedTuple):
    """The value of one aggregate for one key."""

    value: Value | None
    status: Status
    last_event_us: int | None
    """The time of the last relevant event before t, in the window or not."""
    covered_fraction: float = 1.0
    """With LEFT_TRUNCATED: the part of the window that the log covers; 0 for a lifetime."""


class Answers:
    """Makes the readings of an engine from its states."""

    def __init__(self, aggregations: Sequence[Aggregation], registry: Registry, complete_since_us: int | None) -> None:
        self.complete_since_us = complete_since_us
        self._memory = registry.memory
        self._readers = [
            (
                aggregation,
                READERS[aggregation.function](aggregation, registry),
                registry.state_of(Last, Stream(aggregation.filter)),
                registry.bounds(aggregation),
            )
            for aggregation in aggregations
        ]

    def reading(self, index: int, code: int | None) -> Reading:
        """The reading of one aggregation for the key of a code; None is a key never seen."""
        aggregation, reader, last, bounds = self._readers[index]
        row = -1 if code is None else last.rows.item(code)
        if row < 0 or code is None:
            return self._judged(bounds, None, Status.NEVER_SEEN, None, self._memory.now_us)
        last_us: int = self._memory.store.columns.times.item(row)
        if aggregation.ttl_us is not None and self._memory.now_us - 1 - last_us >= aggregation.ttl_us:
            return Reading(None, Status.EXPIRED, last_us)
        lower = bounds.lower(code)
        if last_us < lower:
            return self._judged(bounds, None, Status.EMPTY_WINDOW, last_us, lower)
        value = reader(code)
        if value is None:
            return self._judged(bounds, None, Status.NULL, last_us, lower)
        limit = aggregation.limit
        if limit and isinstance(value, (list, dict)) and len(value) > limit:
            kept = value[-limit:] if isinstance(value, list) else dict(list(value.items())[-limit:])
            return self._judged(bounds, kept, Status.TRUNCATED, last_us, lower)
        return self._judged(bounds, value, Status.PRESENT, last_us, lower)

    def _judged(self, bounds: Bounds, value: Value | None, status: Status, last_us: int | None, lower: int) -> Reading:
        """The reading, marked when the log did not reach back to the start of the window."""
        since = self.complete_since_us
        if since is None:
            return Reading(value, status, last_us)
        lower = bounds.lower_us if bounds.ttl_us is None else lower
        if lower >= since:
            return Reading(value, status, last_us)
        now = self._memory.now_us
        covered = 0.0 if lower == MIN_US or lower >= now else max(0.0, (now - since) / (now - lower))
        return Reading(value, Status.LEFT_TRUNCATED, last_us, covered)
