"""A log in memory: the seam where ingest is."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from services.following.feed import LogSettings, Part, PositionLostError
from services.kernel.building import EventRow, build_batch
from services.kernel.columns import to_ipc

NOW_US = 1_700_000_000_000_000


@dataclass
class MemoryLog:
    """A log of one project as a feed: the seam where ingest is."""

    settings: LogSettings = field(default_factory=LogSettings)
    rows: list[EventRow] = field(default_factory=list)
    complete_since_us: int | None = None
    part_rows: int = 50
    grown: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def append(self, *rows: EventRow) -> int:
        """Adds events; returns the position of the last."""
        async with self.grown:
            self.rows.extend(rows)
            self.grown.notify_all()
        return len(self.rows)

    async def follow(
        self, project: str, after_position: int, max_bytes: int, *, stop_at_head: bool = False
    ) -> AsyncGenerator[Part, None]:
        """See Feed."""
        if after_position > len(self.rows):
            raise PositionLostError("beyond the head")
        yield Part(self.settings, 0, 0, b"", len(self.rows), self.complete_since_us)
        position = after_position
        while True:
            async with self.grown:
                while len(self.rows) <= position:
                    if stop_at_head:
                        return
                    await self.grown.wait()
            rows = self.rows[position : position + self.part_rows]
            data = to_ipc(build_batch(rows))
            yield Part(None, position + 1, position + len(rows), data, len(self.rows), self.complete_since_us)
            position += len(rows)
            await asyncio.sleep(0)


def purchase(number: int, user: str, at_us: int, price: float | None = None, name: str = "buy") -> EventRow:
    """An event of a user."""
    return EventRow(
        event_id=f"e{number}",
        name=name,
        occurred_at_us=at_us,
        received_at_us=at_us,
        keys={"user_id": user},
        vendor="shop",
        version="1-0-0",
        properties={"price": price},
    )
