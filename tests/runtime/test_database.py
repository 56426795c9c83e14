"""Sessions, migrations and the translation of errors, on both databases."""

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.runtime.database import Database
from services.runtime.errors import AlreadyExists, FailedPrecondition, Unavailable
from services.runtime.schema import version_table

PACKAGES = ("services.runtime.migrations.keys", "services.runtime.migrations.operations")


@pytest.fixture
async def table(database: Database) -> str:
    async with database.session() as session:
        await session.execute(sa.text("CREATE TABLE parent (id INTEGER PRIMARY KEY)"))
        await session.execute(sa.text("CREATE TABLE child (id INTEGER PRIMARY KEY REFERENCES parent (id))"))
    return "parent"


async def count(database: Database, table: str) -> int:
    async with database.session(read_only=True) as session:
        found = await session.scalar(sa.text(f"SELECT count(*) FROM {table}"))
    return int(found)


async def test_a_session_commits_at_its_end_and_rolls_back_when_it_raises(database: Database, table: str) -> None:
    async with database.session() as session:
        await session.execute(sa.text("INSERT INTO parent VALUES (1)"))

    async def fail_after_writing() -> None:
        async with database.session() as session:
            await session.execute(sa.text("INSERT INTO parent VALUES (2)"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_after_writing()
    assert await count(database, table) == 1


async def test_broken_constraints_are_errors_of_the_domain(database: Database, table: str) -> None:
    async with database.session() as session:
        await session.execute(sa.text("INSERT INTO parent VALUES (1)"))
    with pytest.raises(AlreadyExists):
        async with database.session() as session:
            await session.execute(sa.text("INSERT INTO parent VALUES (1)"))
    with pytest.raises(FailedPrecondition):
        async with database.session() as session:
            await session.execute(sa.text("INSERT INTO child VALUES (7)"))


async def test_our_own_mistakes_are_not_disguised(database: Database) -> None:
    with pytest.raises(sa.exc.DBAPIError):
        async with database.session() as session:
            await session.execute(sa.text("SELECT * FROM nowhere"))


async def test_error_messages_hold_no_values(database: Database, table: str) -> None:
    with pytest.raises(sa.exc.DBAPIError) as caught:
        async with database.session() as session:
            await session.execute(sa.text("INSERT INTO nowhere VALUES (:email)"), {"email": "ada@example.org"})
    assert "ada" not in str(caught.value)


async def test_concurrent_writers_all_succeed(database: Database, table: str) -> None:
    async def write(number: int) -> None:
        async with database.session() as session:
            await session.scalar(sa.text("SELECT count(*) FROM parent"))
            await session.execute(sa.text("INSERT INTO parent VALUES (:n)"), {"n": number})

    await asyncio.gather(*(write(number) for number in range(30)))
    assert await count(database, table) == 30


async def test_a_reader_sees_a_snapshot_and_does_not_wait_for_a_writer(database: Database, table: str) -> None:
    async with database.session() as writer:
        await writer.execute(sa.text("INSERT INTO parent VALUES (1)"))
        async with asyncio.timeout(3):
            assert await count(database, table) == 0


async def test_opening_again_changes_nothing_and_many_may_open_at_once(database_url: str) -> None:
    async def open_once() -> int:
        async with Database.open(database_url, PACKAGES) as database:
            return await count(database, "operations")

    assert await asyncio.gather(*(open_once() for _ in range(4))) == [0, 0, 0, 0]


def test_processes_that_start_at_once_share_one_migration(database_url: str) -> None:
    code = (
        "import asyncio, sys\nfrom services.runtime.database import Database\n"
        "async def main():\n async with Database.open(sys.argv[1], sys.argv[2:]): pass\nasyncio.run(main())"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, database_url, *PACKAGES]) for _ in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]


async def test_a_schema_newer_than_the_program_is_refused(database: Database, database_url: str) -> None:
    async with database.session() as session:
        await session.execute(sa.text(f"UPDATE {version_table(PACKAGES[0])} SET version_num = '9999'"))
    with pytest.raises(FailedPrecondition, match="newer"):
        async with Database.open(database_url, PACKAGES):
            pass


def test_each_package_has_a_version_table_of_its_own() -> None:
    assert version_table("services.ingest.migrations") == "ingest_schema_version"
    assert version_table(PACKAGES[0]) == "runtime_keys_schema_version"


async def test_a_database_that_cannot_be_reached_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for url in (f"sqlite:///{tmp_path / 'file' / 'x.db'}", "postgresql://nobody@127.0.0.1:1/nothing"):
        with pytest.raises(Unavailable):
            async with Database.open(url, PACKAGES):
                pass


async def test_an_unknown_kind_of_database_is_refused() -> None:
    with pytest.raises(ValueError, match="not supported"):
        async with Database.open("mysql://localhost/x"):
            pass


async def test_a_locked_sqlite_database_is_unavailable_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.runtime.database._BUSY_SECONDS", 0.2)
    path = tmp_path / "a.db"
    async with Database.open(f"sqlite:///{path}") as database:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable):
            async with database.session() as session:
                await session.execute(sa.text("SELECT 1"))
        other.execute("ROLLBACK")
        other.close()
        async with database.session() as session:
            assert await session.scalar(sa.text("PRAGMA journal_mode")) == "wal"
            assert await session.scalar(sa.text("PRAGMA foreign_keys")) == 1
            assert await session.scalar(sa.text("PRAGMA synchronous")) == 2
