"""What is particular to the log in SQLite: its files, a full disk, a torn last write."""

import asyncio
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from services.ingest.log.sqlite import SqliteEventLog
from services.runtime.errors import FailedPrecondition, Unavailable
from tests.ingest.log.test_conformance import EVERYTHING, contents, put
from tests.ingest.log.test_crashes import ROOT, check, run_and_kill


async def limit_pages(log: SqliteEventLog, pages: int) -> None:
    """Makes the disk look full, or not, to the writing connection."""
    await log._writer.change(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchall())


async def test_a_full_database_is_unavailable_with_nothing_half_written_and_works_again_later(tmp_path: Path) -> None:
    log = await SqliteEventLog.open(tmp_path / "log.db")
    await put(log, "shop", b"before", 3)
    await limit_pages(log, 12)
    group = await asyncio.gather(*(put(log, "shop", bytes(50_000), 10) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(error, Unavailable) and error.reason == "LOG_UNAVAILABLE" for error in group)
    assert await contents(log, "shop") == [b"before"]
    assert (await log.head("shop"), (await log.stats("shop")).count) == (3, 3)
    await limit_pages(log, 1_000_000)
    assert await put(log, "shop", b"after", 2) == 5
    await log.close()
    log = await SqliteEventLog.open(tmp_path / "log.db")
    assert await contents(log, "shop") == [b"before", b"after"]
    await log.close()


async def test_a_group_that_fails_in_its_middle_leaves_nothing(tmp_path: Path) -> None:
    log = await SqliteEventLog.open(tmp_path / "log.db")
    refuse = """
        CREATE TEMP TRIGGER refuse BEFORE INSERT ON log_batches WHEN new.data = x'62'
        BEGIN SELECT RAISE(FAIL, 'no'); END
    """
    await log._writer.change(lambda connection: connection.execute(refuse))
    group = await asyncio.gather(put(log, "bank", b"a"), put(log, "shop", b"b"), return_exceptions=True)
    assert all(isinstance(error, Unavailable) for error in group)
    assert await log.projects() == []
    assert await put(log, "shop", b"c") == 1
    await log.close()


FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from services.ingest.log.sqlite import SqliteEventLog
from services.runtime.errors import Unavailable

async def main():
    log = await SqliteEventLog.open(Path(sys.argv[1]), checkpoint_bytes=200_000)
    async def put(data):
        placed = await log.append("shop", data, 1, min_occurred_us=1, max_occurred_us=1, received_us=1)
        return placed.last
    await put(b"before")
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
    stored, refused = 1, 0
    for number in range(40):
        try:
            assert await put(bytes([number]) * 30_000) == stored + 1
            stored += 1
        except Unavailable as error:
            assert error.reason == "LOG_UNAVAILABLE", error.reason
            refused += 1
    assert stored > 1 and refused > 1, (stored, refused)
    assert await log.head("shop") == stored
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert await put(b"after") == stored + 1
    assert len(await log.read("shop", 0, 1 << 40)) == stored + 1
    await log.close()
    print(stored + 1)

asyncio.run(main())
"""


async def test_files_that_may_not_grow_are_unavailable_and_work_again_later(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    log = await SqliteEventLog.open(path)
    batches = await log.read("shop", 0, EVERYTHING)
    assert [batch.last_position for batch in batches] == list(range(1, int(done.stdout) + 1))
    assert (batches[0].data, batches[-1].data) == (b"before", b"after")
    await log.close()


async def test_garbage_after_the_last_commit_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    acknowledged = run_and_kill(f"sqlite:///{path}", "appender", 40, 0.0)
    with path.with_name("log.db-wal").open("ab") as wal:
        wal.write(random.Random(1).randbytes(30_000))
    await check(f"sqlite:///{path}", acknowledged)


@pytest.mark.parametrize("seed", range(6))
async def test_a_torn_write_ahead_log_recovers_to_a_prefix_of_whole_batches(tmp_path: Path, seed: int) -> None:
    # Worse than a crash can be, as what was synced is lost too: what is left must still be whole batches, in order.
    path = tmp_path / "log.db"
    acknowledged = run_and_kill(f"sqlite:///{path}", "appender", 25, 0.0)
    wal = path.with_name("log.db-wal")
    chance = random.Random(seed)
    cut = chance.randrange(wal.stat().st_size)
    with wal.open("r+b") as file:
        if seed % 2:
            file.truncate(cut)
        else:
            file.seek(cut)
            file.write(chance.randbytes(100))
    await check(f"sqlite:///{path}", [])
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    log = await SqliteEventLog.open(path)
    assert (
        sum([await log.head(project) for project in await log.projects()])
        <= sum(last - first + 1 for _, first, last, _ in acknowledged) + 4 * 256
    )
    await put(log, "shop", b"goes on")
    await log.close()


async def test_the_commit_is_synced_before_it_is_acknowledged(tmp_path: Path) -> None:
    log = await SqliteEventLog.open(tmp_path / "log.db")
    settings = await log._writer.change(
        lambda connection: [
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
        ]
    )
    assert settings == ["wal", 2]
    await log.close()


async def test_concurrent_appends_share_commits(tmp_path: Path) -> None:
    log = await SqliteEventLog.open(tmp_path / "log.db")
    statements: list[str] = []
    await log._writer.change(lambda connection: connection.set_trace_callback(statements.append))
    await asyncio.gather(*(put(log, f"project-{n % 5}", b"x") for n in range(200)))
    assert statements.count("COMMIT") < 20
    await log.close()


async def test_a_log_is_open_in_one_process_at_a_time(tmp_path: Path) -> None:
    log = await SqliteEventLog.open(tmp_path / "log.db")
    with pytest.raises(FailedPrecondition, match="another process"):
        await SqliteEventLog.open(tmp_path / "log.db")
    await log.close()
    await (await SqliteEventLog.open(tmp_path / "log.db")).close()


async def test_a_log_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await (await SqliteEventLog.open(path)).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(FailedPrecondition, match="newer"):
        await SqliteEventLog.open(path)


async def test_a_file_that_is_no_log_is_unavailable_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    path.write_bytes(b"this is not a database" * 500)
    with pytest.raises(Unavailable):
        await SqliteEventLog.open(path)
    assert path.read_bytes() == b"this is not a database" * 500


async def test_the_write_ahead_log_stays_small(tmp_path: Path) -> None:
    log = await SqliteEventLog.open(tmp_path / "log.db", checkpoint_bytes=1_000_000)
    for _ in range(100):
        await put(log, "shop", bytes(100_000))
    assert (tmp_path / "log.db-wal").stat().st_size < 3_000_000
    await log.close()


async def test_the_tail_holds_no_more_than_it_may(tmp_path: Path) -> None:
    log = await SqliteEventLog.open(tmp_path / "log.db", tail_bytes=1_000)
    for number in range(100):
        await put(log, f"project-{number % 3}", bytes([number]) * 90)
    assert log._tail._bytes <= 1_000
    for project in await log.projects():
        batches = await log.read(project, 0, EVERYTHING)
        assert [batch.first_position for batch in batches] == list(range(1, len(batches) + 1))
    await log.close()
