"""What every event log promises, held against each implementation with a real database."""

import asyncio
import os
import time

import pytest

from services.ingest.log import EventLog, LogBatch, LogStats, Trimmed, open_log
from services.ingest.log.base import MAX_BATCH_BYTES
from services.runtime.errors import Unavailable

EVERYTHING = 1 << 40


async def put(log: EventLog, project: str, data: bytes, count: int = 1, occurred: tuple[int, int] = (1, 2)) -> int:
    """Appends a batch; returns its last position."""
    placed = await log.append(
        project, data, count, min_occurred_us=occurred[0], max_occurred_us=occurred[1], received_us=7
    )
    assert placed.last - placed.first + 1 == count
    return placed.last


async def contents(log: EventLog, project: str, after_position: int = 0) -> list[bytes]:
    """The bytes of every batch after a position."""
    return [batch.data for batch in await log.read(project, after_position, EVERYTHING)]


async def test_a_batch_comes_back_with_its_bytes_positions_and_times(log: EventLog) -> None:
    placed = await log.append("shop", b"first", 3, min_occurred_us=-5, max_occurred_us=9, received_us=11)
    assert placed == (1, 3)
    assert await log.read("shop", 0, EVERYTHING) == [LogBatch(1, 3, b"first", -5, 9, 11)]


async def test_positions_count_events_without_gaps_from_one(log: EventLog) -> None:
    assert [await put(log, "shop", b"x", count) for count in (1, 500, 2, 1)] == [1, 501, 503, 504]
    batches = await log.read("shop", 0, EVERYTHING)
    assert [(b.first_position, b.last_position, b.count) for b in batches] == [
        (1, 1, 1),
        (2, 501, 500),
        (502, 503, 2),
        (504, 504, 1),
    ]


@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview])
async def test_any_buffer_is_taken_as_it_was_when_appended(log: EventLog, buffer: type) -> None:
    data = bytearray(b"as it was")
    handed = data if buffer is bytearray else buffer(data)
    await asyncio.gather(log.append("shop", handed, 1, min_occurred_us=0, max_occurred_us=0, received_us=0))
    data[:] = b"scribbled"
    assert await contents(log, "shop") == [b"as it was"]


async def test_what_was_acknowledged_is_read_at_once(log: EventLog) -> None:
    for number in range(50):
        last = await put(log, "shop", str(number).encode(), 2)
        assert await log.head("shop") == last
        assert await contents(log, "shop", last - 2) == [str(number).encode()]


async def test_a_batch_that_was_read_half_comes_whole(log: EventLog) -> None:
    await put(log, "shop", b"a", 10)
    await put(log, "shop", b"b", 10)
    assert [b.first_position for b in await log.read("shop", 4, EVERYTHING)] == [1, 11]
    assert [b.first_position for b in await log.read("shop", 10, EVERYTHING)] == [11]
    assert await log.read("shop", 20, EVERYTHING) == []
    assert await log.read("shop", 99, EVERYTHING) == []


@pytest.mark.parametrize("reopened", [False, True], ids=["from memory", "from disk"])
async def test_a_read_takes_what_fits_and_at_least_one_batch(log_url: str, reopened: bool) -> None:
    async with open_log(log_url) as log:
        for size in (100, 200, 300, 10):
            await put(log, "shop", bytes(size))
        if not reopened:
            assert [[len(d) for d in await sizes(log, m)] for m in (1, 100, 299, 300, 600, 610)] == EXPECTED
    async with open_log(log_url) as log:
        assert [[len(d) for d in await sizes(log, m)] for m in (1, 100, 299, 300, 600, 610)] == EXPECTED


EXPECTED = [[100], [100], [100], [100, 200], [100, 200, 300], [100, 200, 300, 10]]


async def sizes(log: EventLog, max_bytes: int) -> list[bytes]:
    """What a read of so many bytes takes."""
    return [batch.data for batch in await log.read("shop", 0, max_bytes)]


async def test_projects_do_not_see_each_other(log: EventLog) -> None:
    await put(log, "shop", b"of the shop", 3)
    await put(log, "bank", b"of the bank", 5, (10, 20))
    assert await contents(log, "shop") == [b"of the shop"]
    assert await contents(log, "bank") == [b"of the bank"]
    assert (await log.head("shop"), await log.head("bank")) == (3, 5)
    await log.trim("bank", 1_000)
    assert await contents(log, "shop") == [b"of the shop"]
    assert await log.complete_since_us("shop") is None
    assert await log.projects() == ["bank", "shop"]


async def test_a_project_that_was_never_written_reads_as_an_empty_log(log: EventLog) -> None:
    assert await log.read("nobody", 0, EVERYTHING) == []
    assert (await log.head("nobody"), await log.oldest("nobody")) == (0, 1)
    assert await log.complete_since_us("nobody") is None
    assert await log.stats("nobody") == LogStats(0, 0, 0, None)
    assert await log.trim("nobody", 1_000) == Trimmed(0, 0, 0)
    assert await log.projects() == []


async def test_concurrent_appends_get_disjoint_contiguous_positions(log: EventLog) -> None:
    async def caller(name: int) -> list[tuple[str, int, bytes]]:
        placed = []
        for number in range(20):
            project, data = f"project-{(name + number) % 3}", f"{name}/{number}".encode()
            placed.append((project, await put(log, project, data, 1 + number % 4), data))
        return placed

    placed = [item for items in await asyncio.gather(*(caller(name) for name in range(8))) for item in items]
    for project in await log.projects():
        batches = await log.read(project, 0, EVERYTHING)
        positions = [p for b in batches for p in range(b.first_position, b.last_position + 1)]
        assert positions == list(range(1, await log.head(project) + 1))
        assert {b.last_position: b.data for b in batches} == {last: data for p, last, data in placed if p == project}


async def test_one_callers_appends_keep_their_order(log: EventLog) -> None:
    await asyncio.gather(*(put(log, "shop", str(number).encode()) for number in range(100)))
    assert await contents(log, "shop") == [str(number).encode() for number in range(100)]


async def test_readers_follow_writers_without_missing_or_repeating_anything(log: EventLog) -> None:
    async def follow() -> list[bytes]:
        position, seen = 0, []
        while position < 300:
            await log.wait("shop", position)
            for batch in await log.read("shop", position, 500):
                assert batch.first_position == position + 1
                position = batch.last_position
                seen.append(batch.data)
        return seen

    async def write(name: int) -> None:
        for number in range(25):
            await put(log, "shop", f"{name}/{number}".encode() * 5, 3)

    readers = [asyncio.create_task(follow()) for _ in range(3)]
    await asyncio.gather(*(write(name) for name in range(4)))
    seen = await asyncio.gather(*readers)
    assert seen[0] == seen[1] == seen[2]
    assert len(set(seen[0])) == 100


async def test_waiting_ends_with_the_append_and_not_before(log: EventLog) -> None:
    last = await put(log, "shop", b"x", 5)
    assert await log.wait("shop", 4) == 5
    waiters = [asyncio.create_task(log.wait("shop", last)) for _ in range(3)]
    await put(log, "bank", b"x", 100)
    await asyncio.sleep(0.05)
    assert not any(waiter.done() for waiter in waiters)
    waiters[0].cancel()
    started = time.monotonic()
    await put(log, "shop", b"y", 2)
    assert await asyncio.wait_for(asyncio.gather(*waiters[1:]), 5) == [7, 7]
    assert time.monotonic() - started < 0.9, "woken by a poll, not by the append"


async def test_everything_is_there_after_a_restart(log_url: str) -> None:
    async with open_log(log_url) as log:
        await put(log, "shop", b"a", 3, (5, 8))
        await put(log, "shop", b"b", 2, (1, 9))
        await log.trim("shop", 9)
        before = [await state(log, project) for project in ("shop", "bank")]
    async with open_log(log_url) as log:
        assert [await state(log, project) for project in ("shop", "bank")] == before
        assert await put(log, "shop", b"c", 1) == 6


async def state(log: EventLog, project: str) -> tuple[object, ...]:
    """All that a log says about a project."""
    return (
        await log.read(project, 0, EVERYTHING),
        await log.head(project),
        await log.oldest(project),
        await log.complete_since_us(project),
        await log.stats(project),
        await log.projects(),
    )


async def test_trimming_drops_whole_batches_by_event_time_wherever_they_are(log: EventLog) -> None:
    await put(log, "shop", b"new", 2, (100, 200))
    await put(log, "shop", b"old", 3, (10, 49))
    await put(log, "shop", b"half", 4, (10, 60))
    await put(log, "shop", b"edge", 1, (50, 50))
    assert await log.trim("shop", 50) == Trimmed(1, 3, 3)
    assert [(b.first_position, b.data) for b in await log.read("shop", 0, EVERYTHING)] == [
        (1, b"new"),
        (6, b"half"),
        (10, b"edge"),
    ]
    assert [b.data for b in await log.read("shop", 3, EVERYTHING)] == [b"half", b"edge"]
    assert (await log.oldest("shop"), await log.head("shop")) == (1, 10)
    assert await log.complete_since_us("shop") == 50
    assert await log.trim("shop", 50) == Trimmed(0, 0, 0)


async def test_a_log_that_was_trimmed_empty_goes_on_where_it_was(log: EventLog) -> None:
    await put(log, "shop", b"a", 4, (1, 7))
    await put(log, "shop", b"b", 4, (1, 5))
    assert await log.trim("shop", 1_000) == Trimmed(2, 8, 2)
    assert (await log.oldest("shop"), await log.head("shop")) == (9, 8)
    assert await log.complete_since_us("shop") == 8
    assert await log.stats("shop") == LogStats(0, 0, 2, 7)
    assert (await contents(log, "shop"), await log.wait("shop", 0)) == ([], 8)
    assert await put(log, "shop", b"c", 1) == 9
    assert await contents(log, "shop") == [b"c"]


async def test_trimming_many_batches_lets_appends_through(log: EventLog) -> None:
    await asyncio.gather(*(put(log, "shop", b"old", 1, (1, 1)) for _ in range(700)))
    trimmed, last = await asyncio.gather(log.trim("shop", 50), put(log, "shop", b"new", 1, (99, 99)))
    assert trimmed == Trimmed(700, 700, 2100)
    assert last == 701
    assert await contents(log, "shop") == [b"new"]


async def test_stats_count_what_is_kept(log: EventLog) -> None:
    await put(log, "shop", b"12345", 4, (1, 30))
    await put(log, "shop", b"123", 2, (1, 20))
    assert await log.stats("shop") == LogStats(count=6, bytes=8, appended_bytes=8, max_occurred_us=30)
    await log.trim("shop", 25)
    assert await log.stats("shop") == LogStats(count=4, bytes=5, appended_bytes=8, max_occurred_us=30)


async def test_batches_of_eight_mebibytes_come_back_whole(log_url: str) -> None:
    batches = [os.urandom(8 * 1024 * 1024) for _ in range(3)]
    async with open_log(log_url) as log:
        await asyncio.gather(*(put(log, "shop", data, 10_000) for data in batches))
    async with open_log(log_url) as log:
        assert await contents(log, "shop") == batches


async def test_what_is_not_a_batch_is_refused(log: EventLog) -> None:
    for project, data, count in (("", b"x", 1), ("shop", b"", 1), ("shop", b"x", 0)):
        with pytest.raises(ValueError, match=r"project|batch"):
            await put(log, project, data, count)
    with pytest.raises(ValueError, match="bytes"):
        await put(log, "shop", bytes(MAX_BATCH_BYTES + 1))
    assert await log.projects() == []


async def test_a_cancelled_append_harms_nobody(log: EventLog) -> None:
    tasks = [asyncio.create_task(put(log, "shop", str(n).encode())) for n in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    kept = await asyncio.gather(*tasks[1::2])
    found = {b.last_position: b.data for b in await log.read("shop", 0, EVERYTHING)}
    assert [found[last] for last in kept] == [str(n).encode() for n in range(1, 20, 2)]
    assert sorted(found) == list(range(1, await log.head("shop") + 1))


async def test_closing_finishes_what_was_handed_in_and_wakes_those_who_wait(log_url: str) -> None:
    async with open_log(log_url) as log:
        appends = [asyncio.create_task(put(log, "shop", b"x")) for _ in range(10)]
        waiter = asyncio.create_task(log.wait("shop", 1_000))
        await asyncio.sleep(0.01)
    assert sorted(await asyncio.gather(*appends)) == list(range(1, 11))
    with pytest.raises(Unavailable):
        await waiter
    for call in (lambda: put(log, "shop", b"x"), lambda: log.read("shop", 0, 1), lambda: log.head("shop")):
        with pytest.raises(Unavailable) as caught:
            await call()
        assert caught.value.reason == "LOG_UNAVAILABLE"


def rewritten(batch: LogBatch, data: bytes, occurred: tuple[int, int] = (0, 2)) -> LogBatch:
    """A batch with other content and times."""
    return LogBatch(batch.first_position, batch.last_position, data, *occurred, batch.received_us)


@pytest.mark.parametrize("reopened", [False, True], ids=["from memory", "from disk"])
async def test_a_replaced_batch_reads_as_its_replacement_ever_after(log_url: str, reopened: bool) -> None:
    async with open_log(log_url) as log:
        for data in (b"a", b"the secret " * 5_000, b"c"):
            await put(log, "shop", data, 2)
        second = (await log.read("shop", 0, EVERYTHING))[1]
        assert await log.replace("shop", second, rewritten(second, b"none"))
        if not reopened:
            assert await contents(log, "shop") == [b"a", b"none", b"c"]
    async with open_log(log_url) as log:
        assert await log.read("shop", 2, 1) == [LogBatch(3, 4, b"none", 0, 2, 7)]
        assert await log.head("shop") == 6
        assert (await log.stats("shop")).bytes == 6


async def test_of_two_that_replace_a_batch_the_second_is_told(log: EventLog) -> None:
    await put(log, "shop", b"a", 2)
    (batch,) = await log.read("shop", 0, EVERYTHING)
    assert await log.replace("shop", batch, rewritten(batch, b"first"))
    assert not await log.replace("shop", batch, rewritten(batch, b"second"))
    assert await contents(log, "shop") == [b"first"]
    await log.trim("shop", 1_000)
    assert not await log.replace("shop", rewritten(batch, b"first"), rewritten(batch, b"third"))
    assert await contents(log, "shop") == []


async def test_a_replacement_keeps_its_positions(log: EventLog) -> None:
    await put(log, "shop", b"a", 2)
    (batch,) = await log.read("shop", 0, EVERYTHING)
    with pytest.raises(ValueError, match="positions"):
        await log.replace("shop", batch, LogBatch(1, 3, b"a", 1, 2, 7))
    with pytest.raises(ValueError, match="bytes"):
        await log.replace("shop", batch, rewritten(batch, b""))


async def test_scrubbing_changes_nothing_that_can_be_read(log: EventLog) -> None:
    for data in (b"a", b"b" * 100_000, b"c"):
        await put(log, "shop", data, 2, (5, 9) if data == b"c" else (1, 2))
    await log.trim("shop", 3)
    await log.scrub()
    await put(log, "shop", b"d")
    assert await contents(log, "shop") == [b"c", b"d"]
