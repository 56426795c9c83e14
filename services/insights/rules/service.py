"""All projects' rules: made, changed, switched and deleted; at work from the start of the process to its end."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from services.following.feed import Feed
from services.insights.actions.outbox import Outbox
from services.insights.rules.cycles import check_cycles
from services.insights.rules.definitions import Limits, Problem, Rule
from services.insights.rules.live import MEMORY_US, RuleProject
from services.insights.rules.store import RuleStore, StoredRule
from services.insights.rules.validation import check_rule
from services.runtime.blobs import BlobStore
from services.runtime.clocks import Clock
from services.runtime.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted, Unavailable, Violation

_LOGGER = logging.getLogger(__name__)
MAX_RULES = 2_000
_READY_SECONDS = 25.0
_TICK_SECONDS = 0.5
Progress = Callable[[int, int], None]


def _silent(done: int, total: int) -> None:
    """Nobody is told."""


class Rules:
    """The rules of all projects of this process."""

    def __init__(
        self,
        store: RuleStore,
        outbox: Outbox,
        feed: Feed,
        blobs: BlobStore,
        clock: Clock,
        memory_us: int = MEMORY_US,
    ) -> None:
        self.store = store
        self.outbox = outbox
        self._feed = feed
        self._blobs = blobs
        self._clock = clock
        self._memory_us = memory_us
        self._projects: dict[str, RuleProject] = {}
        self._known: dict[str, dict[str, StoredRule]] = {}
        self._opening = asyncio.Lock()
        self._changing: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Rules"]:
        """Starts the projects that have an active rule; on exit stops all."""
        for name in await self.store.projects():
            await self.project(name)
        ticking = asyncio.create_task(self._tick(), name="ticks of rules")
        try:
            yield self
        finally:
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking
            await asyncio.gather(*(project.stop() for project in self._projects.values()), return_exceptions=True)

    async def wait_ready(self) -> None:
        """Returns once every project with rules has caught up with the log as it stood."""
        await asyncio.gather(*(project.ready.wait() for project in self._projects.values()))

    async def project(self, name: str) -> RuleProject:
        """A project, following its log."""
        async with self._opening:
            project = self._projects.get(name)
            if project is None:
                self._known[name] = {stored.rule.rule_id: stored for stored in await self.store.rules(name)}
                project = RuleProject(name, self._feed, self._blobs, self.outbox, self._clock, self._memory_us)
                project.start([stored.rule for stored in self._known[name].values() if stored.is_active])
                self._projects[name] = project
                self._changing[name] = asyncio.Lock()
            return project

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            for project in list(self._projects.values()):
                try:
                    await project.tick()
                except Exception:
                    _LOGGER.exception("a tick of rules failed", extra={"fields": {"project": project.name}})

    def limits_of(self, project: str, rule_id: str) -> Limits | None:
        """The limits of a rule; None when it is gone."""
        stored = self._known.get(project, {}).get(rule_id)
        return None if stored is None else stored.rule.limits

    # Reading.

    def opened(self) -> list[RuleProject]:
        """The projects at work."""
        return list(self._projects.values())

    async def all(self, project: str) -> list[StoredRule]:
        """The rules of a project, by id."""
        await self.project(project)
        return sorted(self._known[project].values(), key=lambda stored: stored.rule.rule_id)

    async def get(self, project: str, rule_id: str) -> StoredRule:
        """The newest version of a rule. Raises NotFound."""
        await self.project(project)
        stored = self._known[project].get(rule_id)
        if stored is None:
            raise NotFound(f"there is no rules/{rule_id[:100]}", reason="NOT_FOUND")
        return stored

    # Changing.

    async def check(self, project: str, rules: Sequence[Rule], paths: Sequence[str]) -> None:
        """Raises InvalidArgument with every mistake of rules to be made or changed; `paths` is where each stands."""
        present = {stored.rule.rule_id: stored.rule for stored in await self.all(project)}
        violations: list[Violation] = []
        for rule, path in zip(rules, paths, strict=True):
            problems = check_rule(rule)
            present[rule.rule_id] = rule
            problems += [] if problems else check_cycles(rule, present.values())
            violations += [_violation(problem, path) for problem in problems]
        if violations:
            count = len(violations)
            text = "the rule has a mistake" if count == 1 else f"there are {count} mistakes"
            raise InvalidArgument(f"{text}: {violations[0].description}", reason="BAD_RULE", violations=violations)

    async def create(
        self,
        project_name: str,
        rules: Sequence[Rule],
        *,
        is_active: bool = True,
        validate_only: bool = False,
        paths: Sequence[str] = (),
        progress: Progress = _silent,
    ) -> list[StoredRule]:
        """Makes rules, all or none, filled from the log. Raises InvalidArgument, AlreadyExists, ResourceExhausted."""
        project = await self.project(project_name)
        async with self._changing[project_name]:
            await self.check(project_name, rules, paths or ["rule"] * len(rules))
            known = self._known[project_name]
            for rule in rules:
                if rule.rule_id in known:
                    raise AlreadyExists(f"rules/{rule.rule_id} exists already: update it", reason="ALREADY_EXISTS")
            if len(known) + len(rules) > MAX_RULES:
                raise ResourceExhausted(f"a project has at most {MAX_RULES} rules", reason="TOO_MANY")
            now_us = self._clock.now_us()
            if validate_only:
                return [StoredRule(rule, is_active, now_us, now_us) for rule in rules]
            await self._wait(project)
            live = [project.live_now(rule) for rule in rules]
            added = await self.store.add(project_name, live, now_us, is_active=is_active)
            await self._put(project, added, progress)
            return added

    async def update(
        self, project_name: str, rule: Rule, etag: str, *, validate_only: bool = False, progress: Progress = _silent
    ) -> StoredRule:
        """Makes the next version of a rule, filled from the log. Raises NotFound, InvalidArgument, Aborted."""
        project = await self.project(project_name)
        async with self._changing[project_name]:
            old = await self.get(project_name, rule.rule_id)
            await self.check(project_name, [rule], ["rule"])
            if validate_only:
                return StoredRule(rule, old.is_active, old.create_time_us, self._clock.now_us())
            await self._wait(project)
            stored = await self.store.update(project_name, project.live_now(rule), etag, self._clock.now_us())
            await self._put(project, [stored], progress)
            return stored

    async def switch(self, project_name: str, rule_id: str, *, is_active: bool) -> StoredRule:
        """Switches a rule on, filled from the log, or off: then its state goes, and what it had set is withdrawn."""
        project = await self.project(project_name)
        async with self._changing[project_name]:
            old = await self.get(project_name, rule_id)
            if old.is_active == is_active:
                return old
            await self._wait(project)
            rule = project.live_now(old.rule) if is_active else old.rule
            stored = await self.store.switch(project_name, rule, self._clock.now_us(), is_active=is_active)
            if is_active:
                await self._put(project, [stored], _silent)
            else:
                self._known[project_name][rule_id] = stored
                await project.remove(rule_id)
            return stored

    async def delete(self, project_name: str, rule_id: str, etag: str = "") -> None:
        """Deletes a rule and its state at once. Raises NotFound and Aborted."""
        project = await self.project(project_name)
        async with self._changing[project_name]:
            await self.get(project_name, rule_id)
            await self._wait(project)
            await self.store.delete(project_name, rule_id, etag, self._clock.now_us())
            await project.remove(rule_id)
            await self.outbox.cancel(project_name, rule_id, self._clock.now_us())
            self._known[project_name].pop(rule_id, None)

    async def forget(
        self, project_name: str, user_key: str, user: str, position: int, seconds: float
    ) -> tuple[int, int]:
        """Leaves nothing of an erased user, once a position is applied; returns how many actions and snapshots went.

        Raises Unavailable when the position was not applied in time.
        """
        actions = await self.outbox.forget(project_name, user_key, user)
        if project_name not in self._projects and not await self.store.rules(project_name):
            self.outbox.release(project_name, user_key, user)
            return actions, await RuleProject.clear(project_name, self._blobs)
        project = await self.project(project_name)
        actions += await project.forget(user_key, user, position, seconds)
        self.outbox.release(project_name, user_key, user)
        return actions, await project.renew_snapshots()

    async def _put(self, project: RuleProject, stored: Sequence[StoredRule], progress: Progress) -> None:
        self._known[project.name] |= {each.rule.rule_id: each for each in stored}
        active = [each.rule for each in stored if each.is_active]
        if active:
            await project.put(active, progress)

    async def _wait(self, project: RuleProject) -> None:
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await project.ready.wait()
        except TimeoutError:
            raise Unavailable("the project's rules are being recovered: try again", reason="NOT_READY") from None


def _violation(problem: Problem, path: str) -> Violation:
    text = f"{problem.description}: {problem.hint}" if problem.hint else problem.description
    return Violation(f"{path}.{problem.field}", text, "BAD_RULE")
