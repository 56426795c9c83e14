"""What is particular to the log in PostgreSQL: several replicas, and a database that goes away."""

import asyncio
import time
from dataclasses import replace

import psycopg
import pytest

from services.ingest.log import EventLog, open_log
from services.runtime.errors import Unavailable
from tests.ingest.log.test_conformance import EVERYTHING, contents, put


async def test_replicas_append_at_once_and_positions_stay_contiguous_in_commit_order(postgres_url: str) -> None:
    async with open_log(postgres_url) as one, open_log(postgres_url) as two, open_log(postgres_url) as three:

        async def caller(log: EventLog, name: str) -> None:
            last = 0
            for number in range(15):
                placed = await put(log, f"project-{number % 2}", f"{name}/{number}".encode(), 3)
                assert placed > last or number % 2
                last = placed if number % 2 == 0 else last

        replicas = {"one": one, "two": two, "three": three}
        await asyncio.gather(*(caller(log, f"{name}/{i}") for name, log in replicas.items() for i in range(3)))
        for project in ("project-0", "project-1"):
            batches = await one.read(project, 0, EVERYTHING)
            starts = [batch.first_position for batch in batches]
            assert starts == list(range(1, await three.head(project), 3))
            assert await two.read(project, 0, EVERYTHING) == batches


async def test_a_reader_on_another_replica_sees_no_gap_while_both_append(postgres_url: str) -> None:
    async with open_log(postgres_url) as one, open_log(postgres_url) as two:

        async def follow(log: EventLog) -> list[bytes]:
            position, seen = 0, []
            while position < 200:
                await log.wait("shop", position)
                for batch in await log.read("shop", position, 64):
                    assert batch.first_position == position + 1
                    position = batch.last_position
                    seen.append(batch.data)
            return seen

        readers = [asyncio.create_task(follow(log)) for log in (one, two)]
        await asyncio.gather(*(put(log, "shop", f"{n}".encode() * 4, 2) for n in range(50) for log in (one, two)))
        first, second = await asyncio.gather(*readers)
        assert first == second
        assert len(first) == 100


async def test_an_append_wakes_readers_on_other_replicas_at_once(postgres_url: str) -> None:
    async with open_log(postgres_url) as one, open_log(postgres_url) as two:
        await put(one, "shop", b"x")
        await asyncio.sleep(0.2)
        for number in range(3):
            waiter = asyncio.create_task(two.wait("shop", number + 1))
            await asyncio.sleep(0.02)
            started = time.monotonic()
            await put(one, "shop", b"y")
            assert await asyncio.wait_for(waiter, 5) == number + 2
            assert time.monotonic() - started < 0.5, "woken by the poll"


async def test_lost_connections_are_errors_once_and_replaced(postgres_url: str) -> None:
    async with open_log(postgres_url) as log:
        last = await put(log, "shop", b"before")
        cut(postgres_url)
        last = await persist(log, b"after", last)
        assert (await contents(log, "shop"))[:1] == [b"before"]
        # Notifications come back as well.
        async with open_log(postgres_url) as other:
            await asyncio.sleep(1.5)
            waiter = asyncio.create_task(log.wait("shop", last))
            await put(other, "shop", b"from elsewhere")
            assert await asyncio.wait_for(waiter, 5) == last + 1


async def test_a_connection_lost_while_appending_answers_unavailable_and_loses_nothing_acknowledged(
    postgres_url: str,
) -> None:
    acknowledged: dict[int, bytes] = {}
    reasons: set[str] = set()

    async def caller(log: EventLog, name: int) -> None:
        for number in range(40):
            data = f"{name}/{number}".encode()
            try:
                acknowledged[await put(log, "shop", data)] = data
            except Unavailable as error:
                reasons.add(error.reason)

    async def saboteur() -> None:
        for _ in range(8):
            await asyncio.sleep(0.03)
            await asyncio.to_thread(cut, postgres_url)

    async with open_log(postgres_url) as log:
        await asyncio.gather(saboteur(), *(caller(log, name) for name in range(4)))
        await persist(log, b"at last", 0)
        batches = await log.read("shop", 0, EVERYTHING)
    assert reasons <= {"LOG_UNAVAILABLE"}
    assert [batch.last_position for batch in batches] == list(range(1, len(batches) + 1))
    found = {batch.last_position: batch.data for batch in batches}
    assert {last: found[last] for last in acknowledged} == acknowledged


async def test_a_database_that_cannot_be_reached_is_unavailable() -> None:
    with pytest.raises(Unavailable) as caught:
        async with open_log("postgresql://127.0.0.1:1/nothing"):
            pass
    assert caught.value.reason == "LOG_UNAVAILABLE"
    assert "127.0.0.1" not in caught.value.message


def cut(url: str) -> None:
    """Ends every other connection to the database."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def persist(log: EventLog, data: bytes, after: int) -> int:
    """Appends as a client does, who tries again when told to."""
    for _ in range(5):
        try:
            last = await put(log, "shop", data)
        except Unavailable:
            await asyncio.sleep(0.05)
        else:
            assert last > after
            return last
    raise AssertionError("still unavailable")


async def test_what_one_replica_replaces_another_no_longer_reads_from_memory(postgres_url: str) -> None:
    async with open_log(postgres_url) as one, open_log(postgres_url) as two:
        await put(two, "shop", b"the secret")
        (batch,) = await two.read("shop", 0, EVERYTHING)
        assert await one.replace("shop", batch, replace(batch, data=b"nothing"))
        async with asyncio.timeout(10):
            while await contents(two, "shop") != [b"nothing"]:  # noqa: ASYNC110 (another replica says when)
                await asyncio.sleep(0.01)
