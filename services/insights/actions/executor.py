"""Does what is in the outbox: in order for each user's property, again with longer waits, and never twice."""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from services.insights.actions.delivery import Delivery, ExecutorSettings, LaterError, RefusedError
from services.insights.actions.outbox import ActionState, Outbox, Outgoing
from services.insights.rules.actions import Effect
from services.insights.rules.dates import DateError, zone_of
from services.insights.rules.definitions import Limits, QuietHours
from services.runtime.clocks import Clock
from services.runtime.errors import InklingError

_LOGGER = logging.getLogger(__name__)
_HOUR_US = 3_600_000_000
_PROPERTY_EFFECTS = (Effect.SET_PROPERTY, Effect.UNSET_PROPERTY)
LimitsOf = Callable[[str, str], Limits | None]
"""The limits of a project's rule; None when it is gone."""


class Verdict(NamedTuple):
    """Whether an action may be done now."""

    suppressed: str = ""
    """Not at all, and why."""
    due_us: int = 0
    """Not before then."""


class Executor:
    """Works the outbox off. One for each process; several processes do no harm, ids see to that."""

    def __init__(
        self, outbox: Outbox, delivery: Delivery, limits_of: LimitsOf, clock: Clock, settings: ExecutorSettings
    ) -> None:
        self._outbox = outbox
        self._delivery = delivery
        self._limits_of = limits_of
        self._clock = clock
        self._settings = settings
        self._alone: dict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def run(self) -> None:
        """Works without end."""
        while True:
            worked = 0
            try:
                worked = await self.work()
                if not worked:
                    await self._outbox.trim(self._clock.now_us() - self._settings.kept_us)
            except InklingError as error:
                _LOGGER.warning("the outbox cannot be worked off now: %s", type(error).__name__)
            except Exception:
                _LOGGER.exception("the outbox cannot be worked off")
            if not worked:
                await asyncio.sleep(self._settings.poll_seconds)

    async def work(self) -> int:
        """Does what is due now; returns how many actions were looked at."""
        due = await self._outbox.due(self._clock.now_us(), self._settings.batch)
        by_user: dict[tuple[str, str, str], list[Outgoing]] = defaultdict(list)
        for action in due:
            by_user[action.project, action.user_key, action.user].append(action)
        free = asyncio.Semaphore(self._settings.concurrency)
        await asyncio.gather(*(self._do_all(actions, free) for actions in by_user.values()))
        return len(due)

    async def _do_all(self, actions: Sequence[Outgoing], free: asyncio.Semaphore) -> None:
        """One user's actions, in their order."""
        for action in actions:
            limits = self._limits_of(action.project, action.rule_id)
            # What is counted by the hour is counted one by one.
            counted = limits is not None and limits.per_hour > 0
            alone = self._alone[action.project, action.rule_id] if counted else contextlib.nullcontext()
            async with free, alone:
                await self._do(action)

    async def _do(self, action: Outgoing) -> None:
        now_us = self._clock.now_us()
        try:
            verdict = await self._judge(action, now_us)
            if verdict.suppressed:
                await self._outbox.settle([(action.sequence, ActionState.SUPPRESSED, verdict.suppressed)], now_us)
                return
            if verdict.due_us > now_us:
                await self._outbox.postpone(action.sequence, verdict.due_us, failed=False)
                return
            with self._outbox.delivering(action) as allowed:
                if not allowed:
                    # Whoever is being erased: the action is deleted next.
                    return
                await self._deliver(action)
            await self._outbox.settle([(action.sequence, ActionState.DONE, "")], self._clock.now_us())
        except RefusedError as error:
            await self._bury(action, error.reason, now_us)
        except LaterError as error:
            if action.attempts + 1 >= self._settings.max_attempts:
                await self._bury(action, error.reason, now_us)
                return
            wait_us = min(self._settings.first_wait_us << action.attempts, self._settings.longest_wait_us)
            await self._outbox.postpone(action.sequence, now_us + wait_us, failed=True)

    async def _bury(self, action: Outgoing, reason: str, now_us: int) -> None:
        _LOGGER.warning(
            "an action is given up",
            extra={
                "fields": {"project": action.project, "rule": action.rule_id, "id": action.action_id, "why": reason}
            },
        )
        await self._outbox.settle([(action.sequence, ActionState.DEAD, reason)], now_us)

    async def _deliver(self, action: Outgoing) -> None:
        if action.effect is Effect.FIRE_EVENT:
            await self._delivery.fire(action)
        elif action.effect is Effect.WEBHOOK:
            await self._delivery.call_webhook(action)
        else:
            await self._delivery.set_property(action)

    async def _judge(self, action: Outgoing, now_us: int) -> Verdict:
        # What was set is withdrawn even from whom said no since.
        asked = self._settings.consent_property if action.effect is not Effect.UNSET_PROPERTY else ""
        if asked and not await self._delivery.has_consent(action, asked):
            return Verdict(suppressed="NO_CONSENT")
        if action.effect in _PROPERTY_EFFECTS:
            place = (action.project, action.user_key, action.user, action.name, action.sequence)
            if await self._outbox.blocked(*place):
                return Verdict(due_us=now_us + self._settings.first_wait_us)
            return Verdict()
        limits = self._limits_of(action.project, action.rule_id)
        if limits is None:
            return Verdict(suppressed="RULE_DELETED")
        return await self._judge_limits(action, limits, now_us)

    async def _judge_limits(self, action: Outgoing, limits: Limits, now_us: int) -> Verdict:
        if limits.once_per_user or limits.cooldown_us:
            last_us = await self._outbox.last_done_us(action.project, action.rule_id, action.user)
            if last_us is not None and limits.once_per_user:
                return Verdict(suppressed="ONCE_PER_USER")
            if last_us is not None and now_us - last_us < limits.cooldown_us:
                return Verdict(suppressed="COOLDOWN")
        if limits.quiet_hours is not None:
            end_us = quiet_until_us(limits.quiet_hours, now_us)
            if end_us is not None:
                return Verdict(due_us=end_us)
        if limits.per_hour:
            done = await self._outbox.done_since(action.project, action.rule_id, now_us - _HOUR_US)
            if done >= limits.per_hour:
                return Verdict(due_us=now_us + _HOUR_US // max(limits.per_hour, 60))
        return Verdict()


def quiet_until_us(quiet: QuietHours, now_us: int) -> int | None:
    """When the quiet hours that an instant lies in end; None when it lies in none."""
    try:
        zone = zone_of(quiet.zone)
    except DateError:
        zone = UTC
    now = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now_us)).astimezone(zone)
    minute = f"{now:%H:%M}"
    over_midnight = quiet.start > quiet.end
    inside = minute >= quiet.start or minute < quiet.end if over_midnight else quiet.start <= minute < quiet.end
    if not inside:
        return None
    hour, minutes = map(int, quiet.end.split(":"))
    end = now.replace(hour=hour, minute=minutes, second=0, microsecond=0)
    if over_midnight and minute >= quiet.start:
        end += timedelta(days=1)
    return max(int(end.timestamp() * 1_000_000), now_us + 60_000_000)
