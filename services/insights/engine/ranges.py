"""Ranges: the part of time that a block looks at, `lower < time <= upper`, where both bounds move on with now.

The DATETIME_FROM and DATETIME_TO conditions of a block on its source's time give one range: the latest cutoff of the
FROMs is the lower bound, the earliest cutoff of the TOs the upper one. Cutoffs are monotone in now, so each row enters
a range at most once and leaves it at most once.
"""

from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from services.kernel.windows import MIN_US, cutoff_us

MAX_US = 2**63 - 1
UNDEFINED_US = MIN_US
"""The time of a row that has none: in no range."""
_MINUTE_US = 60_000_000
_DAY_US = 86_400_000_000
_LAST_MONTH = 12 * 10_000
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_214_400_000_000
"""The calendar's first instant, and that of its last day."""
_MONTH = np.dtype("datetime64[M]")
_INSTANT = np.dtype("datetime64[us]")


@dataclass(frozen=True, slots=True, order=True)
class Back:
    """So far back from now: calendar years and months first, then days, hours and minutes of fixed length."""

    years: int
    months: int
    days: int
    hours: int = 0
    minutes: int = 0

    @property
    def _fixed_us(self) -> int:
        return self.days * _DAY_US + (self.hours * 60 + self.minutes) * _MINUTE_US

    def cutoff_us(self, now_us: int) -> int:
        """The instant so far back; `MIN_US` when the calendar does not reach there."""
        start = cutoff_us(now_us, self.years, self.months, 0)
        return MIN_US if start == MIN_US else max(start - self._fixed_us, MIN_US + 1)

    def passes_us(self, time_us: int) -> int:
        """The first now at which the cutoff is at or past an instant: the inverse."""
        target = time_us + self._fixed_us
        months = self.years * 12 + self.months
        if months > _LAST_MONTH or not _FIRST_US <= target < _LAST_US:
            # Where the calendar ends, cutoffs stand at now itself.
            return max(time_us, _LAST_US)
        month = np.datetime64(target, "us").astype(_MONTH)
        inside = target - int(month.astype(_INSTANT).astype(np.int64))
        arrives = month + np.timedelta64(months, "M")
        first = int(arrives.astype(_INSTANT).astype(np.int64))
        after = int((arrives + np.timedelta64(1, "M")).astype(_INSTANT).astype(np.int64))
        # Where the month has no such day, the days before fall short of it, and the month after is past it.
        return min(first + inside, after, _LAST_US)

    def all_pass_us(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same for many instants."""
        target = np.minimum(times, _LAST_US) + self._fixed_us
        months = self.years * 12 + self.months
        reached = (target >= _FIRST_US) & (target < _LAST_US) & (months <= _LAST_MONTH)
        beyond = np.maximum(times, _LAST_US)
        if not reached.any():
            return beyond
        target = np.where(reached, target, 0)
        month = target.astype(_INSTANT).astype(_MONTH)
        inside = target - month.astype(_INSTANT).astype(np.int64)
        arrives = month + np.timedelta64(months, "M")
        first = arrives.astype(_INSTANT).astype(np.int64)
        after = (arrives + np.timedelta64(1, "M")).astype(_INSTANT).astype(np.int64)
        return np.where(reached, np.minimum(np.minimum(first + inside, after), _LAST_US), beyond)


@dataclass(frozen=True, slots=True)
class Range:
    """After every cutoff of `after`, and at or before every cutoff of `until`; of neither, all rows.

    With either, rows without a time are outside.
    """

    after: tuple[Back, ...] = ()
    until: tuple[Back, ...] = ()

    @property
    def everything(self) -> bool:
        """Whether every row is inside, whatever its time."""
        return not self.after and not self.until

    def bounds_us(self, now_us: int) -> tuple[int, int]:
        """The bounds at an instant: `lower < time <= upper`."""
        lower = max((back.cutoff_us(now_us) for back in self.after), default=MIN_US)
        upper = min((back.cutoff_us(now_us) for back in self.until), default=MAX_US)
        return lower, upper

    def enters_us(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """The first now at which the end has reached rows of these times."""
        return reduce(np.maximum, (back.all_pass_us(times) for back in self.until))

    def leaves_us(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """The first now at which the start is past rows of these times; `MAX_US` for ever inside."""
        if not self.after:
            return np.full(len(times), MAX_US, np.int64)
        return reduce(np.minimum, (back.all_pass_us(times) for back in self.after))

    def next_change_us(self, times: NDArray[np.int64], now_us: int) -> int | None:
        """The next now at which a row of these times enters or leaves, or None."""
        if self.everything or not len(times):
            return None
        lower, upper = self.bounds_us(now_us)
        found: list[int] = []
        inside = times[(times > lower) & (times <= upper)]
        if len(inside) and self.after:
            found += [back.passes_us(int(inside.min())) for back in self.after]
        waiting = times[times > max(lower, upper)]
        if len(waiting) and self.until:
            found.append(max(back.passes_us(int(waiting.min())) for back in self.until))
        return min(found, default=None)
