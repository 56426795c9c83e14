"""An outbox that counts what becomes of actions."""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from services.insights.actions.outbox import ActionState, Outbox
from services.insights.rules.actions import Action
from services.runtime.database import Database
from services.runtime.errors import InklingError

_LOGGER = logging.getLogger(__name__)
_SECONDS = 5.0


class CountedOutbox(Outbox):
    """The outbox with counters of this process; `keep_counting` reads how many actions wait."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.asked = Counter[str]()
        """Actions taken in, by project."""
        self.settled = Counter[tuple[str, str]]()
        """Actions settled, by state and reason."""
        self.waiting: dict[str, int] = {}
        """Actions to be done, by project, as last read."""

    async def add(self, project: str, actions: Sequence[Action], user_keys: Mapping[str, str], now_us: int) -> int:
        """See Outbox."""
        added = await super().add(project, actions, user_keys, now_us)
        self.asked[project] += added
        return added

    async def settle(self, outcomes: Sequence[tuple[int, ActionState, str]], now_us: int) -> None:
        """See Outbox."""
        await super().settle(outcomes, now_us)
        self.settled.update((state.value, reason) for _, state, reason in outcomes)

    async def keep_counting(self) -> None:
        """Reads every few seconds how many actions wait, without end."""
        while True:
            try:
                counts = await self.pending()
                self.waiting = dict.fromkeys(self.waiting, 0) | counts
            except InklingError as error:
                _LOGGER.warning("the outbox cannot be counted now: %s", type(error).__name__)
            await asyncio.sleep(_SECONDS)
