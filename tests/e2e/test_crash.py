"""Whatever is killed whenever: what was acknowledged counts exactly once, in attributes and in the archive.

Two projects send the same event ids with other amounts at the same time, while ingest and features are killed (SIGKILL)
at random points, also before they have come up again.
"""

import asyncio
from datetime import timedelta
from pathlib import Path
from random import Random

import duckdb
import pytest

from inkling.cli.suite import Suite
from inkling.client import RetryPolicy
from tests.running import client_of, running_suite

from .load import GROUP, SELECTION, Load

PATIENT = RetryPolicy(attempts=1_000, max_delay=0.5)
SETTINGS = {
    "inkling_features_snapshot_events": "3000",
    "inkling_features_snapshot_seconds": "0.5",
    "inkling_ingest_archive_flush_seconds": "0.7",
    "inkling_ingest_archive_flush_bytes": "300000",
}


async def kill_at_random(suite: Suite, random: Random, loads: tuple[Load, ...], at_least: int) -> int:
    """Kills and restarts services while the loads last, and at least so many times; gives how many."""
    kills = 0
    while kills < at_least or not all(load.done for load in loads):
        await asyncio.sleep(random.uniform(0.1, 1.5))
        for name in random.choice((["ingest"], ["features"], ["ingest"], ["features"], ["ingest", "features"])):
            await suite.kill(name)
            kills += 1
            if random.random() < 0.4:
                await kill_while_starting(suite, name, random.uniform(0.0, 2.5))
                kills += 1
            await suite.start_one(name)
    return kills


async def kill_while_starting(suite: Suite, name: str, seconds: float) -> None:
    """Starts a service and kills it after so long, whether it is up or not."""
    starting = asyncio.create_task(suite.start_one(name))
    await asyncio.sleep(seconds)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await suite.kill(name)


def archived(data_dir: Path, project: str) -> tuple[int, int, float]:
    """What the archive's files hold of a project: events, distinct ids, and the greatest amount."""
    files = [str(path) for path in data_dir.rglob(f"archive/{project}/date=*/hour=*/*.parquet")]
    if not files:
        return 0, 0, 0.0
    query = 'select count(*), count(distinct event_id), max("a.amount:d") from read_parquet(?, union_by_name = true)'
    (row,) = duckdb.execute(query, [files]).fetchall()
    return int(row[0]), int(row[1]), float(row[2])


async def until_archived(data_dir: Path, project: str, total: int) -> tuple[int, int, float]:
    """Waits until the archive has so many events, or a minute."""
    found = (0, 0, 0.0)
    for _ in range(120):
        found = await asyncio.to_thread(archived, data_dir, project)
        if found[0] >= total:
            break
        await asyncio.sleep(0.5)
    return found


@pytest.mark.parametrize(
    ("events", "kills"),
    [
        pytest.param(6_000, 3, id="6,000 events"),
        pytest.param(200_000, 30, id="200,000 events", marks=[pytest.mark.slow, pytest.mark.timeout(1_800)]),
    ],
)
async def test_every_acknowledged_event_counts_exactly_once(tmp_path: Path, events: int, kills: int) -> None:
    random = Random(events)
    async with (
        running_suite(tmp_path, **SETTINGS) as suite,
        client_of(suite, "one", retry=PATIENT) as one,
        client_of(suite, "two", retry=PATIENT) as two,
    ):
        # Batches so small and so far between that the load outlasts the killing.
        batch, pause = (100, 0.1) if events < 100_000 else (500, 0.3)
        loads = (
            Load(one, events * 7 // 10, 1.0, Random(1), batch, pause),
            Load(two, events * 3 // 10, 3.0, Random(2), batch, pause),
        )
        for load in loads:
            await load.client.definitions.apply(GROUP, publish=True)
        killing = asyncio.create_task(kill_at_random(suite, random, loads, kills))
        async with asyncio.TaskGroup() as group:
            for load in loads:
                group.create_task(load.send_all())
                group.create_task(load.keep_reading())
        assert await killing >= kills
        for load in loads:
            assert load.reads > 0
            await load.check_all()
        for project, load in zip(("one", "two"), loads, strict=True):
            total, distinct, greatest = await until_archived(tmp_path, project, load.total)
            assert (total, distinct) == (load.total, load.total)
            assert greatest == 1e15 * load.scale
        await suite.kill("features")
        await suite.kill("ingest")
        await suite.start(timeout=120)
        for load in loads:
            await load.check_all()


async def test_a_position_that_the_log_has_not_reached_is_waited_for_and_never_answered_early(tmp_path: Path) -> None:
    async with running_suite(tmp_path) as suite, client_of(suite, "one") as client:
        await client.definitions.apply(GROUP, publish=True)
        load = Load(client, 1_000, 1.0, Random(3))
        await load.send_all()
        head = (await client.events.ingest([load.event(1_001)])).position
        reading = asyncio.create_task(
            client.profiles.get("user-51", groups=SELECTION, min_position=head + 1, wait=timedelta(seconds=30))
        )
        await asyncio.sleep(1.0)
        assert not reading.done()
        await client.events.ingest([load.event(1_051)])
        profile = await reading
        assert profile.position > head
        assert profile["bought"] == 11
