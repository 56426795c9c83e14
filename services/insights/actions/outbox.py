"""Actions to be done, in SQL. An id is taken once: a fold that goes over the same log again adds nothing."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa

from services.insights.rules.actions import Action, Effect
from services.insights.rules.definitions import Constant, plain
from services.insights.rules.documents import constant_json, read_constant
from services.runtime.database import Database

_ACTIONS = sa.table(
    "rule_actions",
    sa.column("sequence", sa.BigInteger),
    sa.column("project", sa.String),
    sa.column("action_id", sa.String),
    sa.column("rule_id", sa.String),
    sa.column("user_key", sa.String),
    sa.column("user", sa.String),
    sa.column("document", sa.String),
    sa.column("state", sa.String),
    sa.column("reason", sa.String),
    sa.column("attempts", sa.Integer),
    sa.column("due_us", sa.BigInteger),
    sa.column("create_time_us", sa.BigInteger),
    sa.column("done_time_us", sa.BigInteger),
)
_CHUNK = 500
_LOOK_SECONDS = 0.02


class ActionState(StrEnum):
    """Where an action is in its life."""

    PENDING = "pending"
    DONE = "done"
    DEAD = "dead"
    """Given up; `reason` says why."""
    SUPPRESSED = "suppressed"
    """Not to be done; `reason` says why."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An action in the outbox."""

    sequence: int
    project: str
    action_id: str
    rule_id: str
    version: int
    user_key: str
    user: str
    effect: Effect
    name: str
    value: Constant | None
    at_us: int
    count: int
    sum: int | float | None
    state: ActionState
    reason: str
    attempts: int
    create_time_us: int
    done_time_us: int | None


class Outbox:
    """Reads and writes the outbox. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held: set[tuple[str, str, str]] = set()
        self._delivering = Counter[tuple[str, str, str]]()

    async def hold(self, project: str, user_key: str, user: str) -> None:
        """From now on nothing is done for a user, who is being erased, until `release`; nor is anything on its way."""
        place = (project, user_key, user)
        self._held.add(place)
        while self._delivering[place]:  # noqa: ASYNC110 (some milliseconds)
            await asyncio.sleep(_LOOK_SECONDS)

    def release(self, project: str, user_key: str, user: str) -> None:
        """Actions are done for a user again."""
        self._held.discard((project, user_key, user))

    @contextlib.contextmanager
    def delivering(self, action: Outgoing) -> Iterator[bool]:
        """Within it an action is being done; gives whether it may be."""
        place = (action.project, action.user_key, action.user)
        self._delivering[place] += 1
        try:
            yield place not in self._held
        finally:
            self._delivering[place] -= 1
            if not self._delivering[place]:
                del self._delivering[place]

    async def add(self, project: str, actions: Sequence[Action], user_keys: Mapping[str, str], now_us: int) -> int:
        """Adds actions in their order; those whose ids are known are passed over. Returns how many are new."""
        added = 0
        actions = [each for each in actions if (project, user_keys[each.rule_id], each.user) not in self._held]
        async with self._database.session() as session:
            for start in range(0, len(actions), _CHUNK):
                rows = [
                    _row(project, each, user_keys[each.rule_id], now_us) for each in actions[start : start + _CHUNK]
                ]
                ids = [row["action_id"] for row in rows]
                known = sa.select(_ACTIONS.c.action_id)
                known = known.where(_ACTIONS.c.project == project, _ACTIONS.c.action_id.in_(ids))
                present = set(await session.scalars(known))
                new = {row["action_id"]: row for row in rows if row["action_id"] not in present}
                if new:
                    await session.execute(sa.insert(_ACTIONS), list(new.values()))
                added += len(new)
        return added

    async def due(self, now_us: int, limit: int) -> list[Outgoing]:
        """Actions to be done now, the oldest first."""
        query = sa.select(_ACTIONS).where(_ACTIONS.c.state == ActionState.PENDING, _ACTIONS.c.due_us <= now_us)
        async with self._database.session(read_only=True) as session:
            found = await session.execute(query.order_by(_ACTIONS.c.sequence).limit(limit))
            return [_outgoing(row) for row in found]

    async def blocked(self, project: str, user_key: str, user: str, name: str, before: int) -> bool:
        """Whether an earlier change of the same property of the same user waits still."""
        query = sa.select(_ACTIONS.c.document).where(
            _ACTIONS.c.project == project,
            _ACTIONS.c.user_key == user_key,
            _ACTIONS.c.user == user,
            _ACTIONS.c.state == ActionState.PENDING,
            _ACTIONS.c.sequence < before,
        )
        async with self._database.session(read_only=True) as session:
            return any(json.loads(text)["name"] == name for text in await session.scalars(query))

    async def settle(self, outcomes: Sequence[tuple[int, ActionState, str]], now_us: int) -> None:
        """Notes what became of actions: sequence, state and reason."""
        async with self._database.session() as session:
            for sequence, state, reason in outcomes:
                change = sa.update(_ACTIONS).where(_ACTIONS.c.sequence == sequence)
                await session.execute(change.values(state=state, reason=reason, done_time_us=now_us))

    async def postpone(self, sequence: int, due_us: int, *, failed: bool) -> None:
        """Puts an action off; `failed` counts the attempt."""
        async with self._database.session() as session:
            change = sa.update(_ACTIONS).where(_ACTIONS.c.sequence == sequence)
            more = {"attempts": _ACTIONS.c.attempts + 1} if failed else {}
            await session.execute(change.values(due_us=due_us, **more))

    async def last_done_us(self, project: str, rule_id: str, user: str) -> int | None:
        """When an action of a rule was last done for a user."""
        query = sa.select(sa.func.max(_ACTIONS.c.done_time_us)).where(
            _ACTIONS.c.project == project,
            _ACTIONS.c.rule_id == rule_id,
            _ACTIONS.c.user == user,
            _ACTIONS.c.state == ActionState.DONE,
        )
        async with self._database.session(read_only=True) as session:
            found: int | None = await session.scalar(query)
            return found

    async def done_since(self, project: str, rule_id: str, since_us: int) -> int:
        """How many actions of a rule were done since an instant."""
        query = sa.select(sa.func.count()).where(
            _ACTIONS.c.project == project,
            _ACTIONS.c.rule_id == rule_id,
            _ACTIONS.c.state == ActionState.DONE,
            _ACTIONS.c.done_time_us >= since_us,
        )
        async with self._database.session(read_only=True) as session:
            return int(await session.scalar(query.select_from(_ACTIONS)) or 0)

    async def states(self, project: str, rule_id: str) -> dict[tuple[ActionState, str], int]:
        """How many actions of a rule there are by state and reason."""
        columns = (_ACTIONS.c.state, _ACTIONS.c.reason, sa.func.count())
        query = sa.select(*columns).where(_ACTIONS.c.project == project, _ACTIONS.c.rule_id == rule_id)
        async with self._database.session(read_only=True) as session:
            rows = await session.execute(query.group_by(_ACTIONS.c.state, _ACTIONS.c.reason))
            return {(ActionState(state), reason): count for state, reason, count in rows}

    async def pending(self) -> dict[str, int]:
        """How many actions wait to be done, by project."""
        query = sa.select(_ACTIONS.c.project, sa.func.count().label("pending")).where(
            _ACTIONS.c.state == ActionState.PENDING
        )
        async with self._database.session(read_only=True) as session:
            rows = await session.execute(query.group_by(_ACTIONS.c.project))
            return {row.project: row.pending for row in rows}

    async def page(self, project: str, rule_id: str, before: int, limit: int) -> list[Outgoing]:
        """Actions of a rule (empty: of all), the newest first, with a sequence below `before` (0: any)."""
        query = sa.select(_ACTIONS).where(_ACTIONS.c.project == project)
        if rule_id:
            query = query.where(_ACTIONS.c.rule_id == rule_id)
        if before:
            query = query.where(_ACTIONS.c.sequence < before)
        async with self._database.session(read_only=True) as session:
            found = await session.execute(query.order_by(_ACTIONS.c.sequence.desc()).limit(limit))
            return [_outgoing(row) for row in found]

    async def cancel(self, project: str, rule_id: str, now_us: int) -> None:
        """Suppresses what a deleted rule had asked for and was not done, except withdrawals."""
        query = sa.select(_ACTIONS).where(
            _ACTIONS.c.project == project, _ACTIONS.c.rule_id == rule_id, _ACTIONS.c.state == ActionState.PENDING
        )
        async with self._database.session(read_only=True) as session:
            pending = [_outgoing(row) for row in await session.execute(query)]
        gone = [each for each in pending if each.effect in (Effect.FIRE_EVENT, Effect.WEBHOOK)]
        await self.settle([(each.sequence, ActionState.SUPPRESSED, "RULE_DELETED") for each in gone], now_us)

    async def forget(self, project: str, user_key: str, user: str) -> int:
        """Deletes all actions of a user; returns how many."""
        mine = (_ACTIONS.c.project == project, _ACTIONS.c.user_key == user_key, _ACTIONS.c.user == user)
        async with self._database.session() as session:
            count = await session.scalar(sa.select(sa.func.count()).select_from(_ACTIONS).where(*mine))
            await session.execute(sa.delete(_ACTIONS).where(*mine))
        return int(count or 0)

    async def trim(self, before_us: int) -> None:
        """Deletes what was settled before an instant."""
        async with self._database.session() as session:
            await session.execute(sa.delete(_ACTIONS).where(_ACTIONS.c.done_time_us < before_us))


def _row(project: str, action: Action, user_key: str, now_us: int) -> dict[str, object]:
    document = {
        "version": action.version,
        "effect": action.effect.value,
        "name": action.name,
        "value": None if action.value is None else constant_json(action.value),
        "at_us": action.at_us,
        "count": action.count,
        "sum": None if action.sum is None else plain(action.sum),
    }
    return {
        "project": project,
        "action_id": action.action_id,
        "rule_id": action.rule_id,
        "user_key": user_key,
        "user": action.user,
        "document": json.dumps(document),
        "state": ActionState.PENDING,
        "reason": "",
        "attempts": 0,
        "due_us": now_us,
        "create_time_us": now_us,
        "done_time_us": None,
    }


def _outgoing(row: "sa.Row[tuple[object, ...]]") -> Outgoing:
    document = json.loads(row.document)
    value = document["value"]
    return Outgoing(
        row.sequence,
        row.project,
        row.action_id,
        row.rule_id,
        document["version"],
        row.user_key,
        row.user,
        Effect(document["effect"]),
        document["name"],
        None if value is None else read_constant(value),
        document["at_us"],
        document["count"],
        document["sum"],
        ActionState(row.state),
        row.reason,
        row.attempts,
        row.create_time_us,
        row.done_time_us,
    )
