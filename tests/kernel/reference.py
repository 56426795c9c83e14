"""What an attribute is worth: the slow and obvious reading of SEMANTICS 1 and 2.

Everything is computed again from the whole log for every question, with nested loops and exact fractions, so that a
reader can check it against the document line by line. It shares nothing with the engine but the value objects that
say what is asked. Where SEMANTICS leaves a choice, the choice is made here and marked *decided*:

* *decided* an id counts once while the newest received time of the log so far is less than the horizon after that of
  its first accepted record. A correction reaches an id whatever its age, and an id that was corrected is known for
  good: a deleted one stays deleted, also one deleted before it was ever added.
* *decided* a replacement is taken when its revision is higher than the present one; of equals the first in the log
  wins. Of an unknown id it is simply added.
* *decided* relevant means: has the key, matches the filter, happened before ``t``. ``last_event_us`` is the latest of
  these, inside the window or not.
* *decided* the present is ``now = t - 1`` microsecond: ages (ttl, time since) are measured from there.
* *decided* a calendar window starts one microsecond after INFER's cutoff for ``now`` (the cutoff is exclusive).
* *decided* numbers have no negative zero; a sum beyond the doubles is an infinity of its sign.
* *decided* "latest sighting" is the latest (occurred_at, event_id).
"""

from __future__ import annotations

import calendar
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, NamedTuple

from services.kernel.aggregations import Aggregation, Function, TermType
from services.kernel.building import EventRow
from services.kernel.columns import RESERVED_VENDOR
from services.kernel.expressions import (
    AllOf,
    AnyOf,
    Compare,
    Constant,
    EventTypeIs,
    Everything,
    Expression,
    Instant,
    OccurredWithin,
    Property,
)
from services.kernel.windows import CalendarWindow, Lifetime, Rolling

DAY_US = 86_400_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ADD, REPLACE, DELETE = 0, 1, 2


class Truth(NamedTuple):
    """The value of one attribute of one key: the value, the name of its status, the time of the last relevant event."""

    value: object
    status: str
    last_event_us: int | None


# --- SEMANTICS 1: which events there are ----------------------------------------------------------------------------


@dataclass
class _Life:
    """What the log has said so far of one event id."""

    first_received_us: int
    event: EventRow | None  # None: deleted
    corrected: bool = False


def surviving(log: Sequence[EventRow], horizon_us: int) -> list[EventRow]:
    """The events that count, after duplicates, replacements and deletions (SEMANTICS 1.3 and 1.5)."""
    current: dict[str, _Life] = {}
    forgotten: list[_Life] = []
    newest_us = 0
    for record in log:
        newest_us = max(newest_us, record.received_at_us)
        life = current.get(record.event_id)
        if record.operation == ADD:
            age_us = newest_us - life.first_received_us if life else 0
            if life and not life.corrected and age_us >= horizon_us:
                forgotten.append(life)
                life = None
            current[record.event_id] = life or _Life(record.received_at_us, record)
            continue
        if life is None:
            life = current[record.event_id] = _Life(record.received_at_us, record)
        if record.operation == DELETE:
            life.event = None
        elif life.event is not None and record.revision > life.event.revision:
            life.event = record
        life.corrected = True
    return [life.event for life in [*forgotten, *current.values()] if life.event is not None]


# --- SEMANTICS 2: expressions ---------------------------------------------------------------------------------------


def lookup(event: EventRow, place: Property) -> object:
    """The value at a place in an event, or None (SEMANTICS 2.3)."""
    if place.source == "atomic":
        return event.properties.get(place.path)
    if place.source == "event":
        wanted = (place.vendor, place.name, str(place.major_version))
        return event.data.get(place.path) if wanted == (event.vendor, event.name, event.version.split("-")[0]) else None
    kind = (place.vendor, place.name, place.major_version)
    entities = [one for one in event.entities if (one.vendor, one.name, one.major_version) == kind]
    if place.index >= len(entities):
        return None
    return entities[place.index].properties.get(place.path)


def like(text: str, pattern: str) -> bool:
    """SQL's LIKE over the whole string: ``%`` any run, ``_`` one character, a backslash escapes the next."""
    if not pattern:
        return not text
    if pattern[0] == "%":
        return any(like(text[skip:], pattern[1:]) for skip in range(len(text) + 1))
    if pattern[0] == "\\" and len(pattern) > 1:
        return text[:1] == pattern[1] and like(text[1:], pattern[2:])
    return bool(text) and pattern[0] in ("_", text[0]) and like(text[1:], pattern[1:])


def microseconds(instant: datetime) -> int:
    """An instant as microseconds since the epoch."""
    return (instant - EPOCH) // timedelta(microseconds=1)


def _typed(value: object) -> tuple[str, Any]:
    """A value with its family. Values compare within their family only: nothing is coerced."""
    if isinstance(value, bool):
        return "boolean", value
    if isinstance(value, int | float):
        return "number", value
    if isinstance(value, datetime):
        return "instant", microseconds(value)
    if isinstance(value, Instant):
        return "instant", value.us
    return type(value).__name__, value


def compare(found: object, operator: str, values: Sequence[Constant]) -> bool:
    """One criterion over one found value (SEMANTICS 2.3)."""
    if operator == "is_null":
        return found is None
    if operator == "is_not_null":
        return found is not None
    family, left = _typed(found)
    wanted = [right for kind, right in map(_typed, values) if kind == family]
    if found is None or not wanted:
        return False
    if operator == "in":
        return left in wanted
    (right,) = wanted
    if operator == "like":
        return family == "str" and like(left, right)
    if operator in ("=", "!="):
        return bool((left == right) == (operator == "="))
    outcomes = {"<": left < right, ">": left > right, "<=": left <= right, ">=": left >= right}
    return bool(outcomes[operator])


def matches(event: EventRow, condition: Expression) -> bool:
    """Whether an event fulfils a condition."""
    match condition:
        case Everything():
            return True
        case AllOf(parts):
            return all(matches(event, part) for part in parts)
        case AnyOf(parts):
            return any(matches(event, part) for part in parts)
        case EventTypeIs(vendor, name, version):
            given = ((vendor, event.vendor), (name, event.name), (version, event.version))
            hidden = vendor is None and event.vendor == RESERVED_VENDOR
            return not hidden and all(wanted is None or wanted == actual for wanted, actual in given)
        case OccurredWithin(start_us, end_us):
            after_start = start_us is None or event.occurred_at_us >= start_us
            return after_start and (end_us is None or event.occurred_at_us < end_us)
        case Compare(place, operator, values):
            return compare(lookup(event, place), operator, values)
    raise AssertionError(f"unknown condition {condition!r}")


def term_of(event: EventRow, aggregation: Aggregation) -> object:
    """The value that enters the aggregate, or None when there is none of the right type."""
    if aggregation.term is None:
        return None
    family, found = _typed(lookup(event, aggregation.term))
    match aggregation.term_type:
        case TermType.STRING:
            return found if family == "str" else None
        case TermType.BOOLEAN:
            return found if family == "boolean" else None
        case TermType.TIMESTAMP:
            return found if family == "instant" else None
        case TermType.NUMBER:
            # Adding zero makes a negative zero a positive one.
            return float(found) + 0.0 if family == "number" else None
        case TermType.INTEGER:
            whole = family == "number" and found == math.floor(found)
            return int(found) if whole and (isinstance(found, int) or abs(found) < 2**63) else None
    raise AssertionError(f"a term without a type: {aggregation!r}")


# --- SEMANTICS 2.2: windows -----------------------------------------------------------------------------------------


def cutoff(now_us: int, years: int, months: int, days: int) -> int:
    """INFER's cutoff (SEMANTICS 3): years and months back (a missing day: the month's last instant), then days."""
    now = EPOCH + timedelta(microseconds=now_us)
    count = now.year * 12 + now.month - 1 - years * 12 - months
    year, month = count // 12, count % 12 + 1
    last_day = calendar.monthrange(year, month)[1]
    if now.day <= last_day:
        back = now.replace(year=year, month=month)
    else:
        back = datetime(year, month, last_day, 23, 59, 59, 999_999, tzinfo=UTC)
    return microseconds(back) - days * DAY_US


def inside(event: EventRow, aggregation: Aggregation, t_us: int) -> bool:
    """Whether an event from before ``t`` lies in the window ``[lower bound, t)``."""
    match aggregation.window:
        case Lifetime():
            return True
        case Rolling(period_us):
            return event.occurred_at_us >= t_us - period_us
        case CalendarWindow(years, months, days):
            return event.occurred_at_us > cutoff(t_us - 1, years, months, days)
    raise AssertionError(f"unknown window {aggregation.window!r}")


def last_run(events: Sequence[EventRow], ttl_us: int) -> list[EventRow]:
    """The events since the last gap of at least ``ttl`` (SEMANTICS 2.7)."""
    run: list[EventRow] = []
    for event in events:
        if run and event.occurred_at_us - run[-1].occurred_at_us >= ttl_us:
            run = []
        run.append(event)
    return run


# --- SEMANTICS 2.1: aggregates --------------------------------------------------------------------------------------


def exact_sum(terms: Sequence[int] | Sequence[float]) -> int | float:
    """The exact sum: an int of ints, else the double nearest to the true sum (an infinity beyond the doubles)."""
    if all(isinstance(term, int) for term in terms):
        return sum(terms)  # exact: ints only
    total = sum((Fraction(term) for term in terms), Fraction(0))
    try:
        return float(total)
    except OverflowError:
        return math.inf if total > 0 else -math.inf


def aggregate(function: Function, sightings: Sequence[tuple[EventRow, object]], limit: int, now_us: int) -> object:
    """The aggregate over (event, term) pairs in order of (occurred_at, event_id); there is at least one."""
    terms = [term for _, term in sightings]
    last_place: dict[object, int] = {}
    counts: dict[object, int] = {}
    for place, term in enumerate(terms):
        last_place[term] = place
        counts[term] = counts.get(term, 0) + 1
    by_sighting = sorted(last_place, key=lambda term: last_place[term])
    kept = by_sighting[-limit:] if limit else by_sighting
    match function:
        case Function.COUNTER:
            return len(terms)
        case Function.SUM:
            return exact_sum(terms)  # type: ignore[arg-type]
        case Function.MEAN:
            return exact_sum(terms) / len(terms)  # type: ignore[arg-type]
        case Function.MIN:
            return min(terms)  # type: ignore[type-var]
        case Function.MAX:
            return max(terms)  # type: ignore[type-var]
        case Function.FIRST:
            return terms[0]
        case Function.LAST | Function.LATEST:
            return terms[-1]
        case Function.UNIQUE_LIST:
            return kept
        case Function.CATEGORY_COUNT:
            return {term: counts[term] for term in kept}
        case Function.COUNT_DISTINCT | Function.APPROX_COUNT_DISTINCT:
            return len(counts)
        case Function.MOST_FREQUENT:
            return max(counts, key=lambda term: (counts[term], last_place[term]))
        case Function.LEAST_FREQUENT:
            return min(counts, key=lambda term: (counts[term], -last_place[term]))
        case Function.TIME_SINCE_FIRST:
            return (now_us - sightings[0][0].occurred_at_us) / 1e6
        case Function.TIME_SINCE_LAST:
            return (now_us - sightings[-1][0].occurred_at_us) / 1e6
    raise AssertionError(f"unknown function {function!r}")


def truth(events: Sequence[EventRow], aggregation: Aggregation, t_us: int) -> Truth:
    """The value at ``t`` of one attribute, given the surviving events of one key in any order."""
    ordered = sorted(events, key=lambda event: (event.occurred_at_us, event.event_id))
    relevant = [e for e in ordered if e.occurred_at_us < t_us and matches(e, aggregation.filter)]
    if not relevant:
        return Truth(None, "NEVER_SEEN", None)
    last_us = relevant[-1].occurred_at_us
    window = [event for event in relevant if inside(event, aggregation, t_us)]
    if aggregation.ttl_us is not None:
        if t_us - 1 - last_us >= aggregation.ttl_us:
            return Truth(None, "EXPIRED", last_us)
        window = last_run(relevant, aggregation.ttl_us)
    if not window:
        return Truth(None, "EMPTY_WINDOW", last_us)
    if aggregation.function is Function.LATEST:
        window = window[-1:]
    sightings = [(event, term_of(event, aggregation)) for event in window]
    if aggregation.term is not None:
        sightings = [(event, term) for event, term in sightings if term is not None]
    if not sightings:
        return Truth(None, "NULL", last_us)
    value = aggregate(aggregation.function, sightings, aggregation.limit, t_us - 1)
    limited = aggregation.function in (Function.UNIQUE_LIST, Function.CATEGORY_COUNT) and aggregation.limit > 0
    cut = limited and len({term for _, term in sightings}) > aggregation.limit
    return Truth(value, "TRUNCATED" if cut else "PRESENT", last_us)


def profile(
    log: Sequence[EventRow],
    attribute_key: str,
    key_value: str,
    aggregations: Sequence[Aggregation],
    t_us: int,
    horizon_us: int = 7 * DAY_US,
) -> list[Truth]:
    """All attributes of one key at ``t``, from the whole log."""
    events = [event for event in surviving(log, horizon_us) if event.keys.get(attribute_key) == key_value]
    return [truth(events, aggregation, t_us) for aggregation in aggregations]
