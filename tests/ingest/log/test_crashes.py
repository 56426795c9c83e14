"""A process that appends is killed at random moments: every acknowledged batch is there afterwards, whole."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.ingest.log import open_log
from tests.ingest.log.appender import payload
from tests.ingest.log.test_conformance import EVERYTHING

ROOT = Path(__file__).parents[3]


def run_and_kill(url: str, name: str, after_lines: int, delay: float) -> list[tuple[str, int, int, str]]:
    """Starts an appender, kills it some time after so many acknowledgements, returns those it gave."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.ingest.log.appender", url, name], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(after_lines)]
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    assert process.returncode == -signal.SIGKILL
    acknowledged = []
    for line in lines:
        project, first, last, seed = line.split()
        acknowledged.append((project, int(first), int(last), seed))
    return acknowledged


async def check(url: str, acknowledged: list[tuple[str, int, int, str]]) -> None:
    """Holds the log to what was acknowledged, and to its own invariants."""
    async with open_log(url) as log:
        found: dict[tuple[str, int], tuple[int, bytes]] = {}
        for project in await log.projects():
            batches = await log.read(project, 0, EVERYTHING)
            following = 1
            for batch in batches:
                assert batch.first_position == following
                following = batch.last_position + 1
                found[project, batch.first_position] = (batch.last_position, batch.data)
            assert await log.head(project) == following - 1
            stats = await log.stats(project)
            assert (stats.count, stats.bytes) == (following - 1, sum(len(batch.data) for batch in batches))
    for project, first, last, seed in acknowledged:
        assert found[project, first] == (last, payload(seed)[0]), f"{seed} was acknowledged"


@pytest.mark.parametrize("seed", range(3))
async def test_every_acknowledged_batch_survives_a_kill(log_url: str, seed: int) -> None:
    chance = random.Random(seed)
    acknowledged: list[tuple[str, int, int, str]] = []
    for life in range(2):
        acknowledged += run_and_kill(log_url, f"life-{life}", chance.randrange(1, 60), chance.random() * 0.1)
        await check(log_url, acknowledged)
