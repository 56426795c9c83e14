"""The archive holds each event of the log once, in the file of its hour, whatever happens in between."""

import asyncio
import dataclasses
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingest.archive import MIGRATIONS, Archive, ArchivePolicy, read_file
from services.ingest.log import EventLog, open_log
from services.kernel.building import EventRow
from services.kernel.columns import DELETE, REPLACE, EventBatch
from services.runtime.blobs import BlobInfo, FolderBlobStore, MemoryBlobStore
from services.runtime.database import Database
from services.runtime.errors import Unavailable
from tests.ingest.archive_worker import DAY_US, HOUR_US, PROJECT, append, event, opened, week_us

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """An empty index in each kind of database."""
    embedded = request.param == "sqlite"
    url = f"sqlite:///{tmp_path / 'index.db'}" if embedded else request.getfixturevalue("postgres_url")
    async with Database.open(url, MIGRATIONS) as database:
        yield database


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EventLog]:
    """An empty log."""
    async with open_log(f"sqlite:///{tmp_path / 'log.db'}") as log:
        yield log


@pytest.fixture
def blobs() -> MemoryBlobStore:
    """An empty store."""
    return MemoryBlobStore()


@pytest.fixture
def archive(log: EventLog, blobs: MemoryBlobStore, database: Database) -> Archive:
    """An archive that flushes when told to."""
    return Archive(log, blobs, database, week_us, ArchivePolicy())


async def archived(archive: Archive, blobs: MemoryBlobStore | FolderBlobStore, project: str = PROJECT) -> pa.Table:
    """Everything in the archive, by the index."""
    tables = [read_file(await blobs.get(file.key)) for file in await archive.files(project)]
    return pa.concat_tables(tables, promote_options="default") if tables else pa.table({"event_id": []})


def ids(table: pa.Table) -> list[str]:
    """The event ids, sorted by number."""
    found: list[str] = table.column("event_id").to_pylist()
    return sorted(found, key=lambda text: int(text.removeprefix("event-")))


def named(*numbers: int) -> list[str]:
    """The ids of events."""
    return [f"event-{number}" for number in numbers]


async def test_events_go_to_the_file_of_their_hour_with_their_positions(
    log: EventLog, archive: Archive, blobs: MemoryBlobStore
) -> None:
    await append(log, [event(n) for n in range(10)])
    await append(log, [event(n) for n in range(10, 12)])
    assert await archive.flush(PROJECT) == 12
    files = await archive.files(PROJECT)
    assert [file.key for file in files] == [
        f"archive/shop/date=1970-04-11/hour={hour:02d}/{1:019d}-{12:019d}.parquet" for hour in range(5)
    ]
    table = read_file(await blobs.get(files[1].key))
    assert table.column("event_id").to_pylist() == named(1, 6, 11)
    assert table.column("position").to_pylist() == [2, 7, 12]
    assert files[1].event_count == 3
    assert files[1].min_occurred_us == 100 * DAY_US + HOUR_US + 1
    assert files[1].max_occurred_us == 100 * DAY_US + HOUR_US + 11


async def test_files_carry_their_range_and_statistics(log: EventLog, archive: Archive, blobs: MemoryBlobStore) -> None:
    await append(log, [event(n, at_hour=3) for n in range(100)])
    await archive.flush(PROJECT)
    (file,) = await archive.files(PROJECT)
    content = await blobs.get(file.key)
    assert file.size_bytes == len(content)
    with pq.ParquetFile(pa.BufferReader(content)) as parquet:
        facts = parquet.schema_arrow.metadata
        column = parquet.metadata.row_group(0).column(parquet.schema_arrow.get_field_index("occurred_at"))
    assert {k: v for k, v in facts.items() if k.startswith(b"inkling.")} == {
        b"inkling.project": b"shop",
        b"inkling.first_position": b"1",
        b"inkling.last_position": b"100",
        b"inkling.min_occurred_us": str(file.min_occurred_us).encode(),
        b"inkling.max_occurred_us": str(file.max_occurred_us).encode(),
    }
    assert (column.statistics.min, column.statistics.max) == (file.min_occurred_us, file.max_occurred_us)


async def test_a_file_reads_as_the_batch_that_was_appended(
    log: EventLog, archive: Archive, blobs: MemoryBlobStore
) -> None:
    rows = [event(n, at_hour=1, tags=["a", "b"], note=None if n % 2 else f"n{n}") for n in range(6)]
    await append(log, rows)
    await archive.flush(PROJECT)
    (file,) = await archive.files(PROJECT)
    table = read_file(await blobs.get(file.key)).drop_columns(["position"])
    original = EventBatch.from_ipc((await log.read(PROJECT, 0, 1 << 30))[0].data).record_batch
    assert table.schema.names == original.schema.names
    assert table.schema.types == original.schema.types
    assert table.to_pylist() == original.to_pylist()


async def test_columns_that_vary_from_batch_to_batch_are_unified_and_empty_ones_left_out(
    log: EventLog, archive: Archive, blobs: MemoryBlobStore
) -> None:
    await append(log, [event(0, at_hour=0, shop="here"), event(1, at_hour=1, only_there=True)])
    await append(log, [event(2, at_hour=0, count=5)])
    await archive.flush(PROJECT)
    first, second = [read_file(await blobs.get(file.key)) for file in await archive.files(PROJECT)]
    assert first.column("a.shop:s").to_pylist() == ["here", None]
    assert first.column("a.count:i").to_pylist() == [None, 5]
    assert "a.only_there:b" not in first.column_names
    assert second.column("a.only_there:b").to_pylist() == [True]
    assert "a.shop:s" not in second.column_names


async def test_files_do_not_carry_the_texts_of_other_files(
    log: EventLog, archive: Archive, blobs: MemoryBlobStore
) -> None:
    await append(log, [event(0, at_hour=0, note="a secret of hour 0"), event(1, at_hour=1, note="of hour 1")])
    await archive.flush(PROJECT)
    second = (await archive.files(PROJECT))[1]
    assert b"secret" not in await blobs.get(second.key)


async def test_a_column_can_be_read_alone(log: EventLog, archive: Archive, blobs: MemoryBlobStore) -> None:
    await append(log, [event(n, at_hour=0) for n in range(3)])
    await archive.flush(PROJECT)
    (file,) = await archive.files(PROJECT)
    assert read_file(await blobs.get(file.key), ["position"]).to_pydict() == {"position": [1, 2, 3]}


async def test_files_are_found_by_position_and_by_time(log: EventLog, archive: Archive) -> None:
    for start in (0, 10, 20):
        await append(log, [event(n) for n in range(start, start + 10)])
        await archive.flush(PROJECT)

    async def ranges(*limits: int | None) -> set[tuple[int, int]]:
        return {(file.first_position, file.last_position) for file in await archive.files(PROJECT, *limits)}

    assert await ranges() == {(1, 10), (11, 20), (21, 30)}
    assert await ranges(10) == {(11, 20), (21, 30)}
    assert await ranges(9, 11) == {(1, 10), (11, 20)}
    assert await ranges(10, 20) == {(11, 20)}
    hours = {
        f.hour_us for f in await archive.files(PROJECT, 0, None, 100 * DAY_US + HOUR_US, 100 * DAY_US + 2 * HOUR_US)
    }
    assert hours == {100 * DAY_US + HOUR_US}


async def test_an_event_that_is_in_the_log_twice_is_archived_once(
    log: EventLog, archive: Archive, blobs: MemoryBlobStore
) -> None:
    await append(log, [event(1), event(2), event(1)])
    await append(log, [event(2), event(3)])
    await archive.flush(PROJECT)
    await append(log, [event(3), event(4)])
    await archive.flush(PROJECT)
    table = await archived(archive, blobs)
    assert ids(table) == named(1, 2, 3, 4)
    assert sorted(table.column("position").to_pylist()) == [1, 2, 5, 7]


async def test_corrections_are_archived_as_records(log: EventLog, archive: Archive, blobs: MemoryBlobStore) -> None:
    await append(log, [event(1)])
    for operation, revision in ((REPLACE, 1), (REPLACE, 1), (DELETE, 2)):
        await append(log, [dataclasses.replace(event(1), operation=operation, revision=revision)])
    await archive.flush(PROJECT)
    table = (await archived(archive, blobs)).sort_by("position")
    assert table.select(["position", "operation", "revision"]).to_pylist() == [
        {"position": 1, "operation": 0, "revision": 0},
        {"position": 2, "operation": REPLACE, "revision": 1},
        {"position": 4, "operation": DELETE, "revision": 2},
    ]


async def test_projects_are_archived_apart(log: EventLog, archive: Archive, blobs: MemoryBlobStore) -> None:
    await append(log, [event(1)], "shop")
    await append(log, [event(1), event(2)], "bank")
    await archive.flush("shop")
    assert await archive.position("bank") == 0
    await archive.flush("bank")
    assert ids(await archived(archive, blobs, "shop")) == named(1)
    assert ids(await archived(archive, blobs, "bank")) == named(1, 2)


async def test_an_id_is_forgotten_after_the_horizon_also_over_a_restart(
    log: EventLog, blobs: MemoryBlobStore, database: Database
) -> None:
    async def hour_us(_project: str) -> int:
        return HOUR_US

    archive = Archive(log, blobs, database, hour_us, ArchivePolicy())
    late = dataclasses.replace(event(1), received_at_us=200 * DAY_US + 3 * HOUR_US)
    await append(log, [event(1), event(2)])
    await archive.settle(PROJECT)
    archive = Archive(log, blobs, database, hour_us, ArchivePolicy())
    await append(log, [event(2), late])
    await archive.flush(PROJECT)
    assert ids(await archived(archive, blobs)) == named(1, 1, 2)


async def test_a_changed_horizon_holds_from_then_on_also_over_a_restart(
    log: EventLog, blobs: MemoryBlobStore, database: Database
) -> None:
    horizon_us = 7 * DAY_US

    async def settings(_project: str) -> int:
        return horizon_us

    def received(hours: int) -> EventRow:
        return dataclasses.replace(event(1), received_at_us=200 * DAY_US + hours * HOUR_US)

    for hours, expected in ((0, 1), (3, 1), (6, 2), (7, 2)):
        horizon_us = 7 * DAY_US if hours < 6 else 2 * HOUR_US
        archive = Archive(log, blobs, database, settings, ArchivePolicy())
        await append(log, [received(hours)])
        await archive.flush(PROJECT)
        assert len(ids(await archived(archive, blobs))) == expected


@pytest.mark.parametrize("saved", [True, False], ids=["with saved ids", "from the log"])
async def test_a_restarted_archive_remembers_what_it_has_seen(
    log: EventLog, blobs: MemoryBlobStore, database: Database, saved: bool
) -> None:
    archive = Archive(log, blobs, database, week_us, ArchivePolicy())
    await append(log, [event(n) for n in range(50)])
    await archive.flush(PROJECT)
    if saved:
        await archive.close()
    await append(log, [event(n) for n in range(25, 75)])
    archive = Archive(log, blobs, database, week_us, ArchivePolicy())
    await archive.flush(PROJECT)
    assert ids(await archived(archive, blobs)) == named(*range(75))


async def test_damaged_saved_ids_are_told_from_the_log_again(
    log: EventLog, blobs: MemoryBlobStore, database: Database
) -> None:
    for start in (0, 10, 20):
        archive = Archive(log, blobs, database, week_us, ArchivePolicy())
        await append(log, [event(n) for n in range(start, start + 15)])
        await archive.settle(PROJECT)
        for state in await blobs.list("archive/shop/_state/"):
            content = bytearray(await blobs.get(state.key))
            content[len(content) // 2] ^= 1
            await blobs.put(state.key, bytes(content))
    assert ids(await archived(archive, blobs)) == named(*range(35))


async def test_what_was_settled_may_be_trimmed_from_the_log_and_is_still_known(
    log: EventLog, blobs: MemoryBlobStore, database: Database
) -> None:
    archive = Archive(log, blobs, database, week_us, ArchivePolicy())
    await append(log, [event(n) for n in range(20)])
    await archive.settle(PROJECT)
    await log.trim(PROJECT, 1_000 * DAY_US)
    await append(log, [event(n) for n in range(10, 30)])
    archive = Archive(log, blobs, database, week_us, ArchivePolicy())
    await archive.flush(PROJECT)
    assert ids(await archived(archive, blobs)) == named(*range(30))


async def test_what_was_trimmed_before_it_was_archived_is_passed_over(log: EventLog, archive: Archive) -> None:
    await append(log, [event(1)])
    await log.trim(PROJECT, 1_000 * DAY_US)
    assert await archive.flush(PROJECT) == 1
    assert await archive.files(PROJECT) == []
    assert await archive.flush("nobody") == 0


async def test_a_range_is_no_larger_than_told(log: EventLog, blobs: MemoryBlobStore, database: Database) -> None:
    archive = Archive(log, blobs, database, week_us, ArchivePolicy(flush_bytes=1))
    for n in range(4):
        await append(log, [event(n), event(n + 10)])
    assert await archive.flush(PROJECT) == 8
    ranges = {(file.first_position, file.last_position) for file in await archive.files(PROJECT)}
    assert ranges == {(1, 2), (3, 4), (5, 6), (7, 8)}


@pytest.mark.parametrize(
    "policy",
    [
        ArchivePolicy(flush_bytes=1 << 30, flush_seconds=0.1, poll_seconds=0.01),
        ArchivePolicy(flush_bytes=3_000, flush_seconds=1_000, poll_seconds=0.01),
    ],
    ids=["seconds", "bytes"],
)
async def test_events_are_archived_after_a_time_or_a_size(
    log: EventLog, blobs: MemoryBlobStore, database: Database, policy: ArchivePolicy
) -> None:
    archive = Archive(log, blobs, database, week_us, policy)
    running = asyncio.create_task(archive.run())
    position = 0
    async with asyncio.timeout(10):
        for n in range(5):
            position = await append(log, [event(n)])
            await asyncio.sleep(0.02)
        while await archive.position(PROJECT) == 0:  # noqa: ASYNC110 - it is another task's doing
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert ids(await archived(archive, blobs)) == named(*range(await archive.position(PROJECT)))
    assert position == 5


async def test_two_replicas_archive_the_same_without_harm(tmp_path: Path, log: EventLog, database: Database) -> None:
    blobs = FolderBlobStore(tmp_path / "blobs")
    replicas = [Archive(log, blobs, database, week_us, ArchivePolicy(flush_bytes=2_000)) for _ in range(3)]
    for start in range(0, 200, 10):
        await append(log, [event(n) for n in range(max(0, start - 3), start + 10)])
        if start % 40 == 0:
            await asyncio.gather(*(replica.flush(PROJECT) for replica in replicas))
    await asyncio.gather(*(replica.flush(PROJECT) for replica in replicas))
    assert ids(await archived(replicas[0], blobs)) == named(*range(200))
    assert await keys(blobs) == sorted(file.key for file in await replicas[0].files(PROJECT))


async def keys(blobs: MemoryBlobStore | FolderBlobStore) -> list[str]:
    """The Parquet files that are there."""
    return [blob.key for blob in await blobs.list("archive/") if blob.key.endswith(".parquet")]


async def test_trimming_deletes_the_files_whose_events_are_all_older(
    log: EventLog, archive: Archive, blobs: MemoryBlobStore
) -> None:
    await append(log, [event(n) for n in range(10)])
    await archive.flush(PROJECT)
    assert await archive.trim(PROJECT, 100 * DAY_US + 2 * HOUR_US + 7) == 2
    left = [file.key for file in await archive.files(PROJECT)]
    assert len(left) == 3
    assert await keys(blobs) == left
    assert await archive.trim(PROJECT, 100 * DAY_US + 2 * HOUR_US + 8) == 1


class Fragile(MemoryBlobStore):
    """Fails at the call that it is told to, before or after it did the work."""

    def __init__(self) -> None:
        super().__init__()
        self.calls_left = -1
        self.late = False

    async def put(self, key: str, data: bytes | Path) -> None:
        if self.calls_left == 0 and self.late:
            await super().put(key, data)
        self._count()
        await super().put(key, data)

    async def delete(self, key: str) -> None:
        self._count()
        await super().delete(key)

    async def list(self, prefix: str = "") -> list[BlobInfo]:
        self._count()
        return await super().list(prefix)

    def _count(self) -> None:
        self.calls_left -= 1
        if self.calls_left == -1:
            raise Unavailable("the blob store is gone")


async def test_a_deletion_that_failed_is_made_good(log: EventLog, database: Database) -> None:
    blobs = Fragile()
    archive = Archive(log, blobs, database, week_us, ArchivePolicy())
    await append(log, [event(n) for n in range(10)])
    await archive.flush(PROJECT)
    blobs.calls_left = 2
    with pytest.raises(Unavailable):
        await archive.trim(PROJECT, 1_000 * DAY_US)
    assert await archive.files(PROJECT) == []
    assert len(await keys(blobs)) == 3
    assert await archive.trim(PROJECT, 1_000 * DAY_US) == 3
    assert await keys(blobs) == []


async def test_doing_it_again_writes_the_same_bytes(log: EventLog, database: Database) -> None:
    blobs = Fragile()
    await append(log, [event(n) for n in range(40)])
    first_try = Archive(log, blobs, database, week_us, ArchivePolicy())
    blobs.calls_left = 5
    with pytest.raises(Unavailable):
        await first_try.flush(PROJECT)
    before = {key: await blobs.get(key) for key in await keys(blobs)}
    assert before
    # More arrives, and another process takes over with other limits: the range stays as it was begun.
    await append(log, [event(n) for n in range(40, 60)])
    second_try = Archive(log, blobs, database, week_us, ArchivePolicy(flush_bytes=1))
    await second_try.flush(PROJECT)
    assert {key: await blobs.get(key) for key in before} == before
    assert ids(await archived(second_try, blobs)) == named(*range(60))
    assert await keys(blobs) == sorted(file.key for file in await second_try.files(PROJECT))


async def test_a_flush_that_is_cancelled_at_any_moment_loses_nothing(
    log: EventLog, archive: Archive, blobs: MemoryBlobStore
) -> None:
    for start in range(0, 400, 20):
        await append(log, [event(n) for n in range(start, start + 20)])
        flush = asyncio.create_task(archive.flush(PROJECT))
        await asyncio.sleep(start / 20 * 0.001)
        flush.cancel()
        await asyncio.gather(flush, return_exceptions=True)
    await archive.flush(PROJECT)
    assert ids(await archived(archive, blobs)) == named(*range(400))


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.integers(0, 30), min_size=1, max_size=8)),
        st.tuples(st.just("flush"), st.just([])),
        st.tuples(st.just("settle"), st.just([])),
        st.tuples(st.just("fail"), st.tuples(st.integers(0, 8), st.booleans()).map(list)),
        st.tuples(st.just("restart"), st.just([])),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(steps)
def test_every_event_is_archived_once_whatever_fails_in_between(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, list[int]]]
) -> None:
    async def history(folder: Path) -> None:
        blobs = Fragile()
        async with (
            open_log(f"sqlite:///{folder / 'log.db'}") as log,
            Database.open(f"sqlite:///{folder / 'index.db'}", MIGRATIONS) as database,
        ):
            archive = Archive(log, blobs, database, week_us, ArchivePolicy(flush_bytes=4_000))
            appended: set[int] = set()
            for step, numbers in steps:
                if step == "append":
                    await append(log, [event(n) for n in numbers])
                    appended |= set(numbers)
                elif step == "fail":
                    blobs.calls_left, blobs.late = int(numbers[0]), bool(numbers[1])
                elif step == "restart":
                    archive = Archive(log, blobs, database, week_us, ArchivePolicy(flush_bytes=3_000))
                else:
                    try:
                        await (archive.flush(PROJECT) if step == "flush" else archive.settle(PROJECT))
                    except Unavailable:
                        continue
            blobs.calls_left = -1
            await archive.flush(PROJECT)
            assert ids(await archived(archive, blobs)) == named(*sorted(appended))
            assert await keys(blobs) == sorted(file.key for file in await archive.files(PROJECT))

    asyncio.run(history(tmp_path_factory.mktemp("history")))


@pytest.mark.parametrize("seed", range(2))
async def test_every_acknowledged_event_is_archived_once_after_kills_at_any_moment(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    first, acknowledged = 0, 0
    for _ in range(3):
        lines = await asyncio.to_thread(live_and_die, tmp_path, first, chance.randrange(1, 40), chance.random() / 4)
        acknowledged = max([acknowledged, *(int(line.split()[1]) + 1 for line in lines)])
        # What the last call held may be in the log too: the client sends again from what was not acknowledged.
        first = acknowledged
    async with opened(tmp_path) as (log, archive):
        await archive.flush(PROJECT)
        await archive.compact(PROJECT)
        blobs = FolderBlobStore(tmp_path / "blobs")
        table = await archived(archive, blobs)
        counts = Counter(table.column("event_id").to_pylist())
        assert set(counts.values()) == {1}
        assert set(named(*range(acknowledged))) <= set(counts)
        assert await keys(blobs) == sorted(file.key for file in await archive.files(PROJECT))
        logged = [EventBatch.from_ipc(batch.data) for batch in await log.read(PROJECT, 0, 1 << 40)]
        assert set(counts) == {name for batch in logged for name in batch.column("event_id").to_pylist()}
        positions = table.column("position").to_numpy()
        assert len(np.unique(positions)) == len(positions)


def live_and_die(folder: Path, first: int, after_lines: int, delay: float) -> list[str]:
    """Runs a worker, kills it, returns what it acknowledged."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.ingest.archive_worker", str(folder), str(first)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(after_lines)]
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    assert process.returncode == -signal.SIGKILL
    return lines
