"""One project's load: events sent until they are acknowledged, some of them again, and reads meanwhile that check."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from random import Random

from inkling.client import AsyncClient
from inkling.errors import Unavailable
from inkling.events import CustomerEvent

USERS = 100
SENDERS = 3
# Sums of these depend on the order in every naive summation; the first two lose the last bits of the others.
AMOUNTS = (1e15, -1e15, 0.1, 0.2, 0.7, 1e-9)
SELECTION = ("load/1",)
GROUP = {
    "name": "load",
    "version": 1,
    "owner": "tests@example.org",
    "attribute_key": {"name": "user_id"},
    "attributes": [
        {"name": "bought", "type": "int64", "aggregation": "counter", "events": [{"name": "buy"}]},
        {
            "name": "bought_30d",
            "type": "int64",
            "aggregation": "counter",
            "events": [{"name": "buy"}],
            "period": "P30D",
        },
        {
            "name": "spent",
            "type": "double",
            "aggregation": "sum",
            "events": [{"name": "buy"}],
            "property": {"type": "atomic", "name": "amount"},
        },
    ],
}


@dataclass
class Load:
    """What one project sends, and what it may expect to read."""

    client: AsyncClient
    total: int
    scale: float
    """Multiplies the amounts, so that another project's values are other values."""
    random: Random
    batch: int = 500
    pause: float = 0.0
    """Seconds that each sender waits between batches, so that a small load lasts as long as the killing."""
    started: Counter[int] = field(default_factory=Counter)
    """Events by user that were sent at least once: none above this may be counted."""
    acknowledged: Counter[int] = field(default_factory=Counter)
    """Events by user that were acknowledged: none below this may be counted at a position after them."""
    position: int = 0
    reads: int = 0
    _next: int = 0
    _since: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(hours=3))

    @property
    def done(self) -> bool:
        """Whether everything was acknowledged."""
        return self.acknowledged.total() == self.total

    def amount(self, number: int) -> float:
        """The amount of an event."""
        return AMOUNTS[number % len(AMOUNTS)] * self.scale

    def spent(self, user: int) -> float:
        """The exact sum of a user's amounts, correctly rounded."""
        return float(sum((Fraction(self.amount(n)) for n in range(user, self.total, USERS)), Fraction(0)))

    def event(self, number: int) -> CustomerEvent:
        """An event by number: the same whenever it is made. Ids are the same in every project."""
        return CustomerEvent(
            event_id=f"event-{number}",
            name="buy",
            occurred_at=self._since + timedelta(seconds=number * 10_000 / self.total),
            keys={"user_id": f"user-{number % USERS}"},
            properties={"amount": self.amount(number)},
        )

    async def send_all(self) -> None:
        """Sends everything, several batches at a time."""
        await asyncio.gather(*(self._send() for _ in range(SENDERS)))

    async def _send(self) -> None:
        while self._next < self.total:
            first, self._next = self._next, min(self._next + self.batch, self.total)
            numbers = range(first, self._next)
            self.started.update(number % USERS for number in numbers)
            position = await self._until_acknowledged(numbers)
            self.acknowledged.update(number % USERS for number in numbers)
            self.position = max(self.position, position)
            if self.random.random() < 0.2:
                # As a client does that never heard the answer.
                await self._until_acknowledged(numbers)
            await asyncio.sleep(self.pause)

    async def _until_acknowledged(self, numbers: Sequence[int]) -> int:
        events = [self.event(number) for number in numbers]
        while True:
            try:
                if self.random.random() < 0.5:
                    result = await self.client.events.ingest(events)
                    assert (result.accepted, result.rejected) == (len(events), ())
                    return result.position
                acknowledgements = [each.result async for each in self.client.events.stream(events, batch_size=100)]
                assert sum(each.accepted for each in acknowledgements) == len(events)
                return max(each.position for each in acknowledgements)
            except Unavailable:
                await asyncio.sleep(0.1)

    async def keep_reading(self) -> None:
        """Reads at the newest acknowledged position until all is sent: never older, never more than was sent."""
        while not self.done:
            await asyncio.sleep(self.random.random() * 0.05)
            user, position = self.random.randrange(USERS), self.position
            if not position:
                continue
            least = self.acknowledged[user]
            try:
                profile = await self.client.profiles.get(
                    f"user-{user}", groups=SELECTION, min_position=position, wait=timedelta(seconds=30)
                )
            except Unavailable:
                continue
            assert profile.position >= position
            assert least <= int(str(profile["bought"] or 0)) <= self.started[user]
            assert profile["bought"] == profile["bought_30d"]
            self.reads += 1

    async def check_all(self) -> None:
        """Every user's values are exact."""
        profiles = await self.client.profiles.batch_get(
            [f"user-{user}" for user in range(USERS)],
            groups=SELECTION,
            min_position=self.position,
            wait=timedelta(seconds=60),
        )
        counts = Counter(number % USERS for number in range(self.total))
        assert [profile["bought"] for profile in profiles] == [counts[user] for user in range(USERS)]
        assert [profile["spent"] for profile in profiles] == [self.spent(user) for user in range(USERS)]
