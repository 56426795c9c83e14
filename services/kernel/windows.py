"""Windows: which part of a key's past an aggregate looks at.

At an instant `t` a window holds the events with `lower_bound_us(t) <= occurred_at < t`. Every lower bound is monotone
in `t`, so each event leaves a window exactly once. An absolute range of time is not a window but a filter
(`expressions.OccurredWithin`) under `Lifetime`.
"""

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

MIN_US, MAX_US = -(2**63), 2**63 - 1
_DAY_US = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_US = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LAST_US = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Rolling:
    """The last `period_us` microseconds: `[t - period, t)`."""

    period_us: int

    def __post_init__(self) -> None:
        if self.period_us <= 0:
            raise ValueError("a period is positive")

    def lower_bound_us(self, t_us: int) -> int:
        """The first instant inside at `t_us`."""
        return max(t_us - self.period_us, MIN_US)

    def leaves_at_us(self, occurred_us: int) -> int | None:
        """The first instant `t` at which an event of this time is outside."""
        return occurred_us + self.period_us + 1


@dataclass(frozen=True, slots=True)
class CalendarWindow:
    """Events after a calendar cutoff: so many years, months and days back from now, where now is `t` - 1 us.

    INFER's rule: in UTC; years and months first, then days of 24 hours; if the day does not exist in the target month,
    the cutoff is the last instant of that month. The cutoff itself is outside.
    """

    years: int
    months: int
    days: int

    def __post_init__(self) -> None:
        if min(self.years, self.months, self.days) < 0:
            raise ValueError("years, months and days are not negative")

    def lower_bound_us(self, t_us: int) -> int:
        """The first instant inside at `t_us`."""
        return cutoff_us(t_us - 1, self.years, self.months, self.days) + 1

    def leaves_at_us(self, occurred_us: int) -> int | None:
        """The first instant `t` at which an event of this time is outside: by bisection, as the bound is monotone."""
        low = occurred_us
        high = occurred_us + (self.years * 366 + self.months * 31 + self.days + 32) * _DAY_US
        while low < high:
            middle = (low + high) // 2
            if self.lower_bound_us(middle) > occurred_us:
                high = middle
            else:
                low = middle + 1
        return low


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Everything before `t`."""

    def lower_bound_us(self, t_us: int) -> int:
        """The least instant there is."""
        return MIN_US

    def leaves_at_us(self, occurred_us: int) -> int | None:
        """Never."""
        return None


Window = Rolling | CalendarWindow | Lifetime


def cutoff_us(now_us: int, years: int, months: int, days: int) -> int:
    """The calendar cutoff so long before `now_us`, within the years 1 to 9999 that a calendar has."""
    if not _FIRST_US <= now_us < _LAST_US:
        return MIN_US if now_us < 0 else now_us
    now = _EPOCH + timedelta(microseconds=now_us)
    month_index = now.year * 12 + now.month - 1 - years * 12 - months
    year, month = divmod(month_index, 12)
    if year < 1:
        return MIN_US
    last_day = monthrange(year, month + 1)[1]
    if now.day <= last_day:
        moved = now.replace(year=year, month=month + 1)
    else:
        moved = datetime(year, month + 1, last_day, 23, 59, 59, 999_999, tzinfo=UTC)
    return (moved - _EPOCH) // timedelta(microseconds=1) - days * _DAY_US
