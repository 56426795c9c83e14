"""From where on the logs are kept, remembered: every message to every subscriber tells it."""

import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple


class Extent(NamedTuple):
    """What is kept of a project's log."""

    oldest: int | None
    """The first position kept; None when nothing is."""
    complete_since_us: int | None
    """As `EventLog.complete_since_us`."""


class Extents:
    """Asks for a project's extent once, and again after it was trimmed here or so many seconds have passed."""

    def __init__(self, ask: Callable[[str], Awaitable[Extent]], seconds: float) -> None:
        self._ask = ask
        self._seconds = seconds
        self._known: dict[str, tuple[Extent, float]] = {}
        self._changes = 0

    async def get(self, project: str) -> Extent:
        """The extent of a project."""
        known = self._known.get(project)
        if known is not None and time.monotonic() < known[1]:
            return known[0]
        changes = self._changes
        extent = await self._ask(project)
        # With nothing kept the next append changes it, and what was asked for during a trim may be from before it.
        if extent.oldest is not None and changes == self._changes:
            self._known[project] = (extent, time.monotonic() + self._seconds)
        return extent

    def change(self, project: str) -> None:
        """To be called before a project is trimmed, and again after it."""
        self._changes += 1
        self._known.pop(project, None)
