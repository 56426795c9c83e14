"""Random histories of appends, trims, reads and restarts, against a list of batches."""

import asyncio
import uuid

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from services.ingest.log import EventLog, LogBatch, LogStats, open_log
from tests.ingest.log.test_conformance import EVERYTHING, put

PROJECTS = ("a", "b")
times = st.integers(-50, 50)
projects = st.sampled_from(PROJECTS)


class LogModel(RuleBasedStateMachine):
    """Does the same to a log and to a list. Projects get new names each time, so that one database serves all runs."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.runner = asyncio.Runner()
        self.names = {project: f"{project}-{uuid.uuid4()}" for project in PROJECTS}
        self.batches: dict[str, list[LogBatch]] = {project: [] for project in PROJECTS}
        self.appended: dict[str, list[LogBatch]] = {project: [] for project in PROJECTS}
        self.complete_since: dict[str, int | None] = dict.fromkeys(PROJECTS)
        self.start()

    def start(self) -> None:
        """Opens the log."""

        async def enter() -> EventLog:
            self.opened = open_log(self.url)
            return await self.opened.__aenter__()

        self.log = self.runner.run(enter())

    def stop(self) -> None:
        """Closes the log."""
        self.runner.run(self.opened.__aexit__(None, None, None))

    def teardown(self) -> None:
        self.stop()
        self.runner.close()

    def head(self, project: str) -> int:
        """Of the model."""
        return self.appended[project][-1].last_position if self.appended[project] else 0

    @rule(group=st.lists(st.tuples(projects, st.integers(1, 5), st.binary(min_size=1, max_size=30), times, times)))
    def append(self, group: list[tuple[str, int, bytes, int, int]]) -> None:
        """Several callers at once."""

        async def all_at_once() -> list[int]:
            return await asyncio.gather(
                *(put(self.log, self.names[p], data, count, (min(a, b), max(a, b))) for p, count, data, a, b in group)
            )

        for last, (project, count, data, a, b) in zip(self.runner.run(all_at_once()), group, strict=True):
            batch = LogBatch(self.head(project) + 1, self.head(project) + count, data, min(a, b), max(a, b), 7)
            assert last == batch.last_position
            self.batches[project].append(batch)
            self.appended[project].append(batch)

    @rule(project=projects, before=times)
    def trim(self, project: str, before: int) -> None:
        """By event time."""
        gone = [batch for batch in self.batches[project] if batch.max_occurred_us < before]
        trimmed = self.runner.run(self.log.trim(self.names[project], before))
        assert (trimmed.batches, trimmed.count) == (len(gone), sum(batch.count for batch in gone))
        self.batches[project] = [batch for batch in self.batches[project] if batch not in gone]
        if gone:
            newest = max(batch.max_occurred_us for batch in gone) + 1
            self.complete_since[project] = max(newest, self.complete_since[project] or newest)

    @rule(project=projects, after=st.integers(0, 60), max_bytes=st.integers(1, 200))
    def read_some(self, project: str, after: int, max_bytes: int) -> None:
        """From anywhere."""
        expected = [batch for batch in self.batches[project] if batch.last_position > after]
        found = self.runner.run(self.log.read(self.names[project], after, max_bytes))
        assert found == expected[: len(found)]
        assert bool(found) == bool(expected)
        assert len(found) <= 1 or sum(len(batch.data) for batch in found) <= max_bytes

    @rule()
    def restart(self) -> None:
        """Closes and opens."""
        self.stop()
        self.start()

    @invariant()
    def the_log_is_the_list(self) -> None:
        """All that can be asked has the model's answer."""
        self.runner.run(self.compare())

    async def compare(self) -> None:
        """Asks everything."""
        for project, name in self.names.items():
            kept = self.batches[project]
            assert await self.log.read(name, 0, EVERYTHING) == kept
            assert await self.log.head(name) == self.head(project)
            assert await self.log.oldest(name) == (kept[0].first_position if kept else self.head(project) + 1)
            assert await self.log.complete_since_us(name) == self.complete_since[project]
            assert await self.log.stats(name) == LogStats(
                sum(batch.count for batch in kept),
                sum(len(batch.data) for batch in kept),
                sum(len(batch.data) for batch in self.appended[project]),
                max((batch.max_occurred_us for batch in self.appended[project]), default=None),
            )


def test_any_history_leaves_the_log_equal_to_a_list(log_url: str) -> None:
    run_state_machine_as_test(
        lambda: LogModel(log_url), settings=settings(max_examples=15, stateful_step_count=15, deadline=None)
    )
