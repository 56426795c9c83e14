"""Where windows begin, for many instants at once: `Window.lower_bound_us` as array arithmetic."""

import numpy as np
from numpy.typing import NDArray

from services.kernel.windows import MIN_US, CalendarWindow, Rolling, Window, cutoff_us

Times = NDArray[np.int64]
_DAY_US = 86_400_000_000
_SAFE_US = (-62_000_000_000_000_000, 253_000_000_000_000_000)
"""Instants between the years 6 and 9987: beyond them the calendar's ends are near."""


def lower_bounds_us(window: Window, instants_us: Times) -> Times:
    """The first instant inside the window at each instant."""
    if isinstance(window, Rolling):
        period = np.int64(min(window.period_us, 2**63 - 1))
        # Written so that nothing overflows.
        safe = instants_us >= MIN_US + period
        return np.where(safe, instants_us - np.where(safe, period, 0), MIN_US)
    if isinstance(window, CalendarWindow):
        return _calendar_bounds_us(window, instants_us)
    return np.full(len(instants_us), MIN_US)


def _calendar_bounds_us(window: CalendarWindow, instants_us: Times) -> Times:
    now = np.maximum(instants_us, MIN_US + 1) - 1
    months = window.years * 12 + window.months
    low, high = _SAFE_US
    safe = (now > low + months * 31 * _DAY_US) & (now < high)
    inside = np.where(safe, now, 0)
    days = inside // _DAY_US
    this_month = days.astype("M8[D]").astype("M8[M]")
    day_of_month = days - this_month.astype("M8[D]").astype(np.int64)
    first = (this_month - months).astype("M8[D]").astype(np.int64)
    length = (this_month - months + 1).astype("M8[D]").astype(np.int64) - first
    fits = day_of_month < length
    moved = np.where(fits, (first + day_of_month) * _DAY_US + inside % _DAY_US, (first + length) * _DAY_US - 1)
    result = moved - window.days * _DAY_US + 1
    for i in np.flatnonzero(~safe).tolist():
        result[i] = cutoff_us(int(now[i]), window.years, window.months, window.days) + 1
    return result
