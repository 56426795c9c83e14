"""The reference implementation against tables worked out by hand from SEMANTICS 1 and 2."""

import math
from datetime import UTC, datetime

import pytest

from services.kernel.aggregations import Aggregation, Function, TermType
from services.kernel.building import Entity, EventRow
from services.kernel.expressions import (
    AllOf,
    Compare,
    EventTypeIs,
    Everything,
    Expression,
    Instant,
    OccurredWithin,
    Property,
)
from services.kernel.windows import CalendarWindow, Lifetime, Rolling, Window

from . import reference
from .reference import ADD, DELETE, REPLACE, Truth, microseconds

X = Property("atomic", "x")
HORIZON = 1_000


def event(event_id: str, at: int, x: object = None, **more: object) -> EventRow:
    """An event of ada with one property, received when it happened unless said otherwise."""
    values: dict[str, object] = {"name": "e", "received_at_us": at, "keys": {"user": "ada"}, "properties": {"x": x}}
    return EventRow(event_id=event_id, occurred_at_us=at, **(values | more))  # type: ignore[arg-type]


def over(function: Function, term_type: TermType | None = TermType.NUMBER, **more: object) -> Aggregation:
    """An aggregate of x."""
    term = None if term_type is None else X
    values: dict[str, object] = {"filter": Everything(), "term": term, "term_type": term_type}
    return Aggregation(function, **(values | more))  # type: ignore[arg-type]


def read(log: list[EventRow], aggregation: Aggregation, t: int) -> Truth:
    """What the aggregate of ada is worth at t."""
    return reference.profile(log, "user", "ada", [aggregation], t, HORIZON)[0]


PURCHASES = [event("c", 30, 1.5), event("a", 10, 4), event("b", 20, "free"), event("d", 40, 4), event("e", 50)]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (Function.SUM, 9.5),
        (Function.MEAN, 9.5 / 3),
        (Function.MIN, 1.5),
        (Function.MAX, 4.0),
        (Function.FIRST, 4.0),
        (Function.LAST, 4.0),
        (Function.UNIQUE_LIST, [1.5, 4.0]),
        (Function.COUNT_DISTINCT, 2),
        (Function.APPROX_COUNT_DISTINCT, 2),
        (Function.MOST_FREQUENT, 4.0),
        (Function.LEAST_FREQUENT, 1.5),
        (Function.CATEGORY_COUNT, {1.5: 1, 4.0: 2}),
    ],
)
def test_terms_are_aggregated_without_nulls_and_without_other_types(function: Function, expected: object) -> None:
    assert read(PURCHASES, over(function), 60) == Truth(expected, "PRESENT", 50)


def test_a_counter_counts_events_whatever_their_properties() -> None:
    assert read(PURCHASES, over(Function.COUNTER, None), 60).value == 5


def test_times_since_are_seconds_up_to_the_last_instant_before_t() -> None:
    assert read(PURCHASES, over(Function.TIME_SINCE_FIRST, None), 60).value == 49 / 1e6
    assert read(PURCHASES, over(Function.TIME_SINCE_LAST, None), 60).value == 9 / 1e6


@pytest.mark.parametrize(
    ("window", "t", "expected"),
    [
        (Rolling(20), 30, Truth(2, "PRESENT", 20)),
        (Rolling(20), 31, Truth(2, "PRESENT", 30)),
        (Rolling(20), 70, Truth(1, "PRESENT", 50)),
        (Rolling(20), 71, Truth(None, "EMPTY_WINDOW", 50)),
        (Lifetime(), 71, Truth(5, "PRESENT", 50)),
        (Lifetime(), 10, Truth(None, "NEVER_SEEN", None)),
        (Lifetime(), 11, Truth(1, "PRESENT", 10)),
    ],
)
def test_a_window_is_closed_at_its_start_and_open_at_t(window: Window, t: int, expected: Truth) -> None:
    assert read(PURCHASES, over(Function.COUNTER, None, window=window), t) == expected


@pytest.mark.parametrize(
    ("now", "back", "expected"),
    [
        ("2026-03-31T10:00:00", (0, 1, 0), "2026-02-28T23:59:59.999999"),
        ("2024-03-31T10:00:00", (0, 1, 0), "2024-02-29T23:59:59.999999"),
        ("2026-03-28T10:00:00", (0, 1, 0), "2026-02-28T10:00:00"),
        ("2024-02-29T10:00:00", (1, 0, 0), "2023-02-28T23:59:59.999999"),
        ("2026-01-15T10:00:00", (0, 1, 3), "2025-12-12T10:00:00"),
        ("2026-03-31T10:00:00", (0, 1, 1), "2026-02-27T23:59:59.999999"),
        ("2026-05-04T10:00:00", (0, 0, 3), "2026-05-01T10:00:00"),
    ],
)
def test_the_calendar_cutoff_goes_back_by_months_then_by_days(
    now: str, back: tuple[int, int, int], expected: str
) -> None:
    def instant(text: str) -> int:
        return microseconds(datetime.fromisoformat(text).replace(tzinfo=UTC))

    assert reference.cutoff(instant(now), *back) == instant(expected)


def test_an_event_exactly_at_the_calendar_cutoff_is_outside() -> None:
    day = reference.DAY_US
    log = [event("at", 10 * day), event("after", 10 * day + 1)]
    counter = over(Function.COUNTER, None, window=CalendarWindow(0, 0, 3))
    assert read(log, counter, 13 * day + 1).value == 1
    assert read(log, counter, 13 * day).value == 2


def test_ttl_counts_from_the_last_relevant_event_and_starts_from_empty() -> None:
    log = [event("a", 100, 1), event("b", 109, 2), event("c", 119, 4), event("d", 128, 8)]
    total = over(Function.SUM, TermType.INTEGER, ttl_us=10)
    assert read(log, total, 110) == Truth(3, "PRESENT", 109)
    assert read(log, total, 119) == Truth(3, "PRESENT", 109)
    assert read(log, total, 120) == Truth(4, "PRESENT", 119)
    assert read(log, total, 138) == Truth(12, "PRESENT", 128)
    assert read(log, total, 139) == Truth(None, "EXPIRED", 128)


def test_sums_are_exact_and_correctly_rounded() -> None:
    log = [event(str(i), i, x) for i, x in enumerate([1e308, 0.1, 1e308, -1e308, 5e-324, -1e308])]
    assert read(log, over(Function.SUM), 10).value == 0.1
    assert read(log[:3], over(Function.SUM), 10).value == math.inf
    big = [event("a", 1, 2**63 - 1), event("b", 2, 2**63 - 1)]
    assert read(big, over(Function.SUM, TermType.INTEGER), 10).value == 2**64 - 2


def test_an_integer_term_takes_whole_doubles_and_a_number_term_takes_integers() -> None:
    log = [event("a", 1, 2.0), event("b", 2, 2.5), event("c", 3, 1e300), event("d", 4, True), event("e", 5, 3)]
    assert read(log, over(Function.UNIQUE_LIST, TermType.INTEGER), 10).value == [2, 3]
    assert read(log, over(Function.UNIQUE_LIST, TermType.NUMBER), 10).value == [2.0, 2.5, 1e300, 3.0]
    assert read(log, over(Function.UNIQUE_LIST, TermType.BOOLEAN), 10).value == [True]


def test_ties_in_frequency_go_to_the_latest_sighting() -> None:
    log = [event(i, at, x) for i, at, x in [("a", 1, "u"), ("b", 2, "v"), ("c", 3, "u"), ("e", 4, "v"), ("d", 4, "w")]]
    assert read(log, over(Function.MOST_FREQUENT, TermType.STRING), 5).value == "v"
    assert read(log, over(Function.LEAST_FREQUENT, TermType.STRING), 5).value == "w"
    assert read(log, over(Function.LEAST_FREQUENT, TermType.STRING), 4).value == "v"


def test_a_limit_keeps_those_seen_last_and_says_so() -> None:
    log = [event(str(at), at, x) for at, x in enumerate("uvwu")]
    assert read(log, over(Function.UNIQUE_LIST, TermType.STRING, limit=2), 9) == Truth(["w", "u"], "TRUNCATED", 3)
    assert read(log, over(Function.UNIQUE_LIST, TermType.STRING, limit=3), 9).status == "PRESENT"
    counts = read(log, over(Function.CATEGORY_COUNT, TermType.STRING, limit=1), 9)
    assert counts == Truth({"u": 2}, "TRUNCATED", 3)


def test_only_null_terms_in_the_window_read_as_null() -> None:
    log = [event("a", 1), event("b", 2, "text")]
    assert read(log, over(Function.SUM), 5) == Truth(None, "NULL", 2)
    assert read(log, over(Function.SUM, filter=OccurredWithin(3, None)), 5) == Truth(None, "NEVER_SEEN", None)


def test_an_id_counts_once_within_the_horizon_and_the_first_wins() -> None:
    log = [
        event("a", 1, 1, received_at_us=0),
        event("a", 1, 2, received_at_us=HORIZON - 1),
        event("a", 2, 4, received_at_us=HORIZON),
    ]
    assert read(log, over(Function.SUM, TermType.INTEGER), 5).value == 5


def test_a_correction_reaches_an_event_of_any_age_and_is_known_for_good() -> None:
    total = over(Function.SUM, TermType.INTEGER)
    add = event("a", 1, 1, received_at_us=0)
    replacement = event("a", 1, 2, received_at_us=5 * HORIZON, operation=REPLACE, revision=1)
    deletion = event("a", 1, received_at_us=10 * HORIZON, operation=DELETE)
    late = event("a", 1, 4, received_at_us=20 * HORIZON)
    assert read([add, replacement, late], total, 20).value == 2
    assert read([add, deletion, late], total, 20).value is None


def test_corrections_act_as_if_the_event_had_always_been_so() -> None:
    total = over(Function.SUM, TermType.INTEGER)
    add, replacement = event("a", 1, 1), event("a", 9, 2, operation=REPLACE, revision=1)
    stale = event("a", 3, 4, operation=REPLACE, revision=1)
    deletion = event("a", 0, operation=DELETE)
    assert read([add, replacement, stale], total, 20) == Truth(2, "PRESENT", 9)
    assert read([replacement, add], total, 20) == Truth(2, "PRESENT", 9)
    assert read([add, deletion], total, 20) == Truth(None, "NEVER_SEEN", None)
    assert read([deletion, add, replacement], total, 20) == Truth(None, "NEVER_SEEN", None)
    moved = event("a", 1, 1, operation=REPLACE, revision=1, keys={"user": "bob"})
    assert read([add, moved], total, 20) == Truth(None, "NEVER_SEEN", None)


def test_conditions_see_types_entities_and_nulls() -> None:
    page = event(
        "a", 1, "5", name="view", vendor="v", version="2-0-1",
        data={"path": "/x"}, entities=(Entity("n", "ua", 1, {"device": "Phone"}), Entity("n", "ua", 1, {"n": 2})),
        properties={"x": "5", "at": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)},
    )  # fmt: skip
    own = Property("event", "path", vendor="v", name="view", major_version=2)
    holds: list[Expression] = [
        EventTypeIs("v", None, "2-0-1"),
        Compare(X, "=", ("5",)),
        Compare(X, "in", (5, "5")),
        Compare(own, "like", ("/_",)),
        Compare(Property("entity", "n", "n", "ua", 1, 1), ">", (1.5,)),
        Compare(Property("atomic", "at"), "<=", (Instant(1_000_000),)),
        Compare(Property("atomic", "none"), "is_null"),
    ]
    fails: list[Expression] = [
        EventTypeIs("v", "view", "2"),
        Compare(X, "=", (5,)),
        Compare(Property("atomic", "none"), "!=", ("5",)),
        Compare(Property("event", "path", vendor="v", name="view", major_version=1), "is_not_null"),
        Compare(Property("entity", "device", "n", "ua", 1, 2), "is_not_null"),
    ]
    assert all(reference.matches(page, condition) for condition in holds)
    assert not any(reference.matches(page, condition) for condition in fails)
    assert reference.matches(page, AllOf(tuple(holds)))


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        ("abc", "a%", True), ("abc", "%b%", True), ("abc", "a_c", True), ("abc", "ab", False), ("", "%", True),
        ("a%c", "a\\%c", True), ("abc", "a\\%c", False), ("a\nb", "a_b", True), ("ABC", "abc", False),
    ],
)  # fmt: skip
def test_like_is_that_of_sql(text: str, pattern: str, expected: bool) -> None:
    assert reference.like(text, pattern) is expected


def test_the_operations_are_those_of_the_log() -> None:
    assert (ADD, REPLACE, DELETE) == (0, 1, 2)
