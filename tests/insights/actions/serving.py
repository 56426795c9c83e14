"""Rules at work over a log in memory and a real database; the world outside is written down, not called."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from services.insights.actions.delivery import ExecutorSettings, LaterError, RefusedError
from services.insights.actions.executor import Executor
from services.insights.actions.outbox import Outbox, Outgoing
from services.insights.rules.service import Rules
from services.insights.rules.store import MIGRATIONS, RuleStore
from services.runtime.blobs import MemoryBlobStore
from services.runtime.clocks import ManualClock
from services.runtime.database import Database
from tests.features.memory_log import NOW_US, MemoryLog

PROJECT = "p"


@dataclass
class Notebook:
    """A delivery that writes down what is asked of it."""

    done: list[tuple[str, str, str]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    fails: list[Exception] = field(default_factory=list)
    refusers: set[str] = field(default_factory=set)

    async def _note(self, action: Outgoing) -> None:
        if self.fails:
            raise self.fails.pop(0)
        self.done.append((action.effect.value, action.user, action.name))
        self.ids.append(action.action_id)

    fire = set_property = call_webhook = _note

    async def has_consent(self, action: Outgoing, consent_property: str) -> bool:
        return action.user not in self.refusers


@dataclass
class Scene:
    """What a test needs."""

    rules: Rules
    outbox: Outbox
    executor: Executor
    notebook: Notebook
    clock: ManualClock
    log: MemoryLog

    async def append(self, *rows: object) -> None:
        position = await self.log.append(*rows)  # type: ignore[arg-type]
        project = await self.rules.project(PROJECT)
        assert await project.wait_for(position, 10)

    async def work(self) -> list[tuple[str, str, str]]:
        """Works the outbox off; returns what was done."""
        before = len(self.notebook.done)
        await self.executor.work()
        return self.notebook.done[before:]


@asynccontextmanager
async def scene(folder: Path, log: MemoryLog, blobs: MemoryBlobStore) -> AsyncIterator[Scene]:
    clock = ManualClock(NOW_US)
    async with Database.open(f"sqlite:///{folder / 'rules.db'}", MIGRATIONS) as database:
        outbox, notebook = Outbox(database), Notebook()
        rules = Rules(RuleStore(database), outbox, log, blobs, clock)
        executor = Executor(outbox, notebook, rules.limits_of, clock, ExecutorSettings())
        async with rules.open():
            yield Scene(rules, outbox, executor, notebook, clock, log)


__all__ = ["PROJECT", "LaterError", "Notebook", "RefusedError", "Scene", "scene"]
