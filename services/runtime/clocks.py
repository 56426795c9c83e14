"""Where the time comes from: a seam, so that tests can hold it still."""

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now_us(self) -> int:
        """Microseconds since the epoch, UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_us(self) -> int:
        return time.time_ns() // 1_000


class ManualClock:
    """A clock that moves only when told to: for tests."""

    def __init__(self, now_us: int = 0) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        return self._now_us

    def advance(self, microseconds: int) -> None:
        """Moves forward by so many microseconds."""
        self._now_us += microseconds

    def set(self, now_us: int) -> None:
        """Jumps to an instant."""
        self._now_us = now_us
