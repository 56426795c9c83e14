"""The windows' edges: the calendar rule against its slow twin, monotone bounds, and when an event leaves."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from services.kernel.windows import CalendarWindow, Lifetime, Rolling, Window

from . import reference
from .reference import DAY_US, microseconds

SINCE, UNTIL = (microseconds(datetime(year, 1, 1, tzinfo=UTC)) for year in (1990, 2060))


def month_ends() -> st.SearchStrategy[int]:
    """Instants within a few days and microseconds of a month's end, where the calendar is uneven."""
    return st.builds(
        lambda year, month, days, jitter: microseconds(datetime(year, month, 1, tzinfo=UTC)) + days * DAY_US + jitter,
        st.integers(1990, 2059),
        st.integers(1, 12),
        st.integers(-3, 3),
        st.sampled_from((-1, 0, 1, 43_200_000_000)),
    )


def instants() -> st.SearchStrategy[int]:
    """Any instant, with the ends of months in favour."""
    return st.one_of(month_ends(), st.integers(SINCE, UNTIL))


def calendars() -> st.SearchStrategy[CalendarWindow]:
    """Calendar windows."""
    return st.builds(CalendarWindow, st.integers(0, 3), st.integers(0, 14), st.integers(0, 40))


def any_window() -> st.SearchStrategy[Window]:
    """Windows that events leave."""
    return st.one_of(calendars(), st.integers(1, 400 * DAY_US).map(Rolling))


def steps() -> st.SearchStrategy[int]:
    """How far time goes on."""
    return st.one_of(st.sampled_from((1, 2, DAY_US - 1, DAY_US)), st.integers(0, 90 * DAY_US))


@given(now=instants(), window=calendars())
def test_a_calendar_window_starts_just_after_the_cutoff_of_now(now: int, window: CalendarWindow) -> None:
    assert window.lower_bound_us(now + 1) == reference.cutoff(now, window.years, window.months, window.days) + 1


@given(first=instants(), step=steps(), window=any_window())
def test_a_lower_bound_never_goes_back(first: int, step: int, window: Window) -> None:
    assert window.lower_bound_us(first) <= window.lower_bound_us(first + step)


@given(occurred=instants(), window=any_window())
def test_an_event_is_inside_until_the_instant_at_which_it_leaves(occurred: int, window: Window) -> None:
    leaves = window.leaves_at_us(occurred)
    assert leaves is not None
    assert window.lower_bound_us(leaves) > occurred
    assert window.lower_bound_us(leaves - 1) <= occurred


def test_nothing_leaves_a_lifetime() -> None:
    assert Lifetime().leaves_at_us(5) is None
    assert Lifetime().lower_bound_us(5) <= -(2**62)


def test_a_rolling_window_holds_exactly_its_period() -> None:
    assert Rolling(7 * DAY_US).lower_bound_us(10 * DAY_US) == 3 * DAY_US


def test_a_cutoff_before_the_first_year_bounds_nothing() -> None:
    assert CalendarWindow(3_000, 0, 0).lower_bound_us(SINCE) <= -(2**62)
