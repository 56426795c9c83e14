"""A project's rules at work: follows the log, fills new rules from it, keeps actions and snapshots.

Actions go into the outbox before anything says that their records were applied. Whoever goes on from an older snapshot
comes to the same actions under the same ids, and the outbox takes each once.
"""

import asyncio
import contextlib
import io
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import numpy as np

from services.following.feed import Backoff, Feed, LogSettings, Part, PositionLostError, follow_steadily
from services.insights.actions.outbox import Outbox
from services.insights.rules.definitions import Rule
from services.insights.rules.engine import RuleEngine, running_instants
from services.insights.rules.storing import dump, load, missing
from services.kernel.columns import EventBatch
from services.kernel.dedup import Deduplicator
from services.kernel.erasing import Mark, pieces, subject_hash
from services.runtime.blobs import BlobStore
from services.runtime.clocks import Clock
from services.runtime.errors import Unavailable

_LOGGER = logging.getLogger(__name__)
KEPT = 2
_SNAPSHOT_SECONDS, _SNAPSHOT_EVENTS = 60.0, 500_000
_PART_BYTES = 512 * 1024
MEMORY_US = 400 * 86_400_000_000
"""How long counted events are held, by default."""


@dataclass
class Standing:
    """Rules at a position of the log."""

    engine: RuleEngine = field(default_factory=RuleEngine)
    deduplicator: Deduplicator = field(default_factory=lambda: Deduplicator(LogSettings().horizon_us))
    settings: LogSettings = field(default_factory=LogSettings)
    position: int = 0

    def take(self, project: str, part: Part, until: int | None = None) -> list[tuple[str, str]]:
        """Applies the records of a part that were not, up to a position; returns the users (key, value) erased."""
        if part.settings is not None:
            self.settings = part.settings
            self.deduplicator.horizon_us = part.settings.horizon_us
        if not self.position:
            self.engine.note_complete_since(part.complete_since_us)
        last = part.last_position if until is None else min(until, part.last_position)
        batch = part.batch()
        if batch is None or last <= self.position:
            self.position = max(self.position, last)
            return []
        skipped = max(self.position + 1 - part.first_position, 0)
        batch = batch.slice(skipped, last - part.first_position + 1 - skipped)
        erased = []
        for _, _, piece, mark in pieces(part.first_position + skipped, last, batch):
            if piece is not None:
                self._apply(piece)
            if mark is not None:
                erased += self._forget(project, mark)
        self.position = last
        return erased

    def _apply(self, batch: EventBatch) -> None:
        actions = self.deduplicator.resolve(batch).actions
        of_log = self.settings.clock == "log"
        self.engine.apply(batch, actions, running_instants(batch, actions, of_log, self.engine.as_of_us))

    def _forget(self, project: str, mark: Mark) -> list[tuple[str, str]]:
        users = {user for rule in self.engine.rules for user in self.engine.users(rule.rule_id)}
        found = [user for user in users if subject_hash(project, mark.attribute_key, user) == mark.subject]
        for user in found:
            self.engine.forget(user, mark.attribute_key)
        return [(mark.attribute_key, user) for user in found]


class RuleProject:
    """One project's rules."""

    def __init__(
        self, name: str, feed: Feed, blobs: BlobStore, outbox: Outbox, clock: Clock, memory_us: int = MEMORY_US
    ) -> None:
        self.name = name
        self.ready = asyncio.Event()
        """Set once what the log held at the start is applied."""
        self.standing = Standing()
        self._feed = feed
        self._blobs = blobs
        self._outbox = outbox
        self._clock = clock
        self._memory_us = memory_us
        self.head_position = 0
        self.failures = 0
        """Times that it had to start over."""
        self._evaluated = 0
        self._rules: dict[str, Rule] = {}
        self._task: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._saved_position, self._saved_at = 0, time.monotonic()
        self._kept_position = 0
        self._holds_erased = False
        """Whether snapshots may hold somebody who was erased."""
        self._replaced = 0
        """How many snapshots the last one took the place of."""
        self._advanced = asyncio.Condition()

    @property
    def position(self) -> int:
        """The position of the last record that is applied, with its actions kept."""
        return self._kept_position

    @property
    def evaluated(self) -> int:
        """Events counted, once for each rule, since the process began."""
        return self._evaluated + self.standing.engine.evaluated

    def serving(self) -> RuleEngine:
        """The engine to read from. Raises Unavailable while the project recovers."""
        if not self.ready.is_set():
            raise Unavailable("the project's rules are being recovered: try again", reason="NOT_READY")
        return self.standing.engine

    def start(self, rules: Sequence[Rule]) -> None:
        """Begins to follow the log with these rules."""
        self._rules = {rule.rule_id: rule for rule in rules}
        self._task = asyncio.create_task(self._run(), name=f"rules of {self.name}")

    async def stop(self) -> None:
        """Ends following, and writes a last snapshot."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
            if self.ready.is_set():
                await self._save()

    async def _run(self) -> None:
        backoff = Backoff()
        while True:
            try:
                self.ready.clear()
                # A rule that comes meanwhile would join a state that is about to be replaced.
                async with self._changing:
                    await self._recover()
                async with aclosing(follow_steadily(self._feed, self.name, self, _PART_BYTES)) as parts:
                    async for part in parts:
                        async with self._changing:
                            await self._take(part)
                        backoff.reset()
            except PositionLostError as error:
                self.failures += 1
                for key in await self._keys():
                    await self._blobs.delete(key)
                await backoff.wait("starting the rules over from the log", self.name, error)
            except Exception as error:
                self.failures += 1
                _LOGGER.exception("the rules of a project failed", extra={"fields": {"project": self.name}})
                await backoff.wait("recovering the rules", self.name, error)

    async def _take(self, part: Part) -> None:
        if part.settings is not None and self.standing.position and part.settings.clock != self.standing.settings.clock:
            raise PositionLostError("the project's clock was changed")
        self.head_position = part.head_position
        erased = self.standing.take(self.name, part)
        await self._keep(erased)
        if self.position >= part.head_position:
            self.ready.set()
        self._holds_erased |= bool(erased)
        due = self._holds_erased or time.monotonic() - self._saved_at >= _SNAPSHOT_SECONDS
        if self.ready.is_set() and (due or self.position - self._saved_position >= _SNAPSHOT_EVENTS):
            await self._save()

    async def _keep(self, erased: Sequence[tuple[str, str]] = ()) -> None:
        engine = self.standing.engine
        actions = engine.take_actions()
        if actions:
            keys = {rule.rule_id: rule.user_key for rule in (*self._rules.values(), *engine.rules)}
            known = [action for action in actions if action.rule_id in keys]
            try:
                await self._outbox.add(self.name, known, keys, self._clock.now_us())
            except BaseException:
                engine.put_back(actions)
                raise
        for user_key, user in erased:
            await self._outbox.forget(self.name, user_key, user)
        async with self._advanced:
            self._kept_position = self.standing.position
            self._advanced.notify_all()

    async def tick(self) -> None:
        """Time has passed: events that were ahead count now."""
        standing = self.standing
        if not self.ready.is_set() or standing.settings.clock != "wall":
            return
        next_us, now_us = standing.engine.next_change_us(), self._clock.now_us()
        if next_us is not None and next_us <= now_us + 1:
            async with self._changing:
                standing.engine.advance(now_us + 1)
                await self._keep()

    async def wait_for(self, position: int, seconds: float) -> bool:
        """Waits until a position is applied; whether it was in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._advanced:
                await self._advanced.wait_for(lambda: self.position >= position)
        return self.position >= position

    # Rules come and go.

    def live_now(self, rule: Rule) -> Rule:
        """The rule as one that begins now: what is in the log up to here is past."""
        return replace(rule, live_from_us=self.serving().as_of_us)

    async def put(self, rules: Sequence[Rule], progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Takes rules, or new versions, in: filled from the log beside the others, then joined at one position."""
        filling = Standing(RuleEngine(rules))
        await self._fill(filling, self.position, progress)
        async with self._changing:
            # Now nothing moves: the rest is what came meanwhile.
            await self._fill(filling, self.position, progress)
            self._rules |= {rule.rule_id: rule for rule in rules}
            self.standing.engine.adopt(filling.engine)
            await self._keep()
            await self._save()

    async def _fill(self, filling: Standing, goal: int, progress: Callable[[int, int], None]) -> None:
        while filling.position < goal:
            parts = self._feed.follow(self.name, filling.position, _PART_BYTES, stop_at_head=True)
            async with aclosing(parts):
                async for part in parts:
                    await asyncio.to_thread(filling.take, self.name, part, goal)
                    progress(filling.position, goal)
                    if filling.position >= goal:
                        break

    async def remove(self, rule_id: str) -> None:
        """Deletes a rule's state; what it had set is withdrawn, unless it is sticky."""
        async with self._changing:
            if any(rule.rule_id == rule_id for rule in self.standing.engine.rules):
                self.standing.engine.remove(rule_id)
                await self._keep()
                await self._save()
            self._rules.pop(rule_id, None)

    async def forget(self, user_key: str, user: str, position: int, seconds: float) -> int:
        """Forgets an erased user once a position is applied; returns how many actions went. Raises Unavailable."""
        if not await self.wait_for(position, seconds):
            raise Unavailable("the rules have not applied the erasure yet: try again", reason="NOT_READY")
        async with self._changing:
            await self._keep()
            return await self._outbox.forget(self.name, user_key, user)

    # Snapshots.

    async def renew_snapshots(self) -> int:
        """Writes the state as it is now in place of all that was written before; returns how many were deleted."""
        async with self._changing:
            self.serving()
            await self._save(1)
            return self._replaced

    @staticmethod
    async def clear(project: str, blobs: BlobStore) -> int:
        """Deletes the snapshots of a project that has no rules; returns how many there were."""
        found = await blobs.list(f"rules/{project}/")
        for info in found:
            await blobs.delete(info.key)
        return len(found)

    async def _recover(self) -> None:
        self._evaluated = self.evaluated
        self.standing = Standing(RuleEngine(self._rules.values()))
        self._saved_position = 0
        for key in reversed(await self._keys()):
            try:
                standing, lacking = await asyncio.to_thread(
                    _decode, await self._blobs.get(key), list(self._rules.values())
                )
            except Exception as error:
                _LOGGER.warning("a snapshot of rules is left out: %s", type(error).__name__)
                continue
            if lacking:
                # Made, and not yet in a snapshot: filled from the log up to the snapshot's position.
                filling = Standing(RuleEngine(lacking))
                await self._fill(filling, standing.position, lambda done, total: None)
                standing.engine.adopt(filling.engine)
            self.standing, self._saved_position = standing, standing.position
            break
        await self._keep()

    async def _save(self, kept: int = KEPT) -> None:
        # What was written before holds whom the log has erased since.
        kept = 1 if self._holds_erased else kept
        standing, keys = self.standing, await self._keys()
        # Nothing changes meanwhile: whoever saves holds the lock, or has ended all others.
        data = await asyncio.to_thread(_encode, standing, standing.engine.as_of_us - self._memory_us)
        key = f"rules/{self.name}/{standing.position:020d}.npz"
        await self._blobs.put(key, data)
        self._saved_position, self._saved_at = standing.position, time.monotonic()
        others = [each for each in keys if each != key]
        replaced = others[: len(others) - (kept - 1)]
        for old in replaced:
            await self._blobs.delete(old)
        self._replaced = len(replaced)
        self._holds_erased = False

    async def _keys(self) -> list[str]:
        return sorted(info.key for info in await self._blobs.list(f"rules/{self.name}/"))


def _encode(standing: Standing, before_us: int) -> bytes:
    """A snapshot, once what is older is let go."""
    standing.engine.trim(before_us)
    arrays = dump(standing.engine) | {f"ids.{name}": a for name, a in standing.deduplicator.dump().items()}
    arrays["position"] = np.array([standing.position, standing.settings.clock == "log"], np.int64)
    out = io.BytesIO()
    np.savez_compressed(out, allow_pickle=False, **arrays)
    return out.getvalue()


def _decode(data: bytes, rules: Sequence[Rule]) -> tuple[Standing, list[Rule]]:
    """A snapshot, without the rules that it does not have; those are given beside."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    lacking = missing(rules, arrays)
    engine = load([rule for rule in rules if rule not in lacking], arrays)
    ids = {name.removeprefix("ids."): array for name, array in arrays.items() if name.startswith("ids.")}
    position, of_log = arrays["position"].tolist()
    settings = LogSettings("log" if of_log else "wall")
    return Standing(engine, Deduplicator.load(ids), settings, position), lacking
