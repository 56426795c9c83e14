"""The change journal on both databases."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.runtime.clocks import ManualClock
from services.runtime.database import Database
from services.runtime.errors import OutOfRange
from services.runtime.journal import MIGRATIONS, Change, ChangeJournal, JournalStore

ALL = ("vips", "sleepers")


def changes(*keys: str, stream: str = "vips", change: str = "entered") -> list[Change]:
    return [Change(stream, key, change, 10 + i, 100 + i, f"detail of {key}") for i, key in enumerate(keys)]


@pytest.fixture
async def journal(database_url: str, clock: ManualClock) -> AsyncIterator[ChangeJournal]:
    async with Database.open(database_url, MIGRATIONS) as opened:
        yield ChangeJournal(JournalStore(opened), clock)


async def test_what_is_appended_is_read_in_order_and_whole(journal: ChangeJournal) -> None:
    written = changes("a", "b") + changes("c", stream="sleepers")
    assert await journal.append("shop", written) == 3
    page = await journal.read("shop", ALL, 0, 10)
    assert [entry.change for entry in page.entries] == written
    assert [entry.sequence for entry in page.entries] == [1, 2, 3]
    assert (page.reached, page.complete) == (3, True)


async def test_sequences_rise_also_when_several_append_at_once(journal: ChangeJournal) -> None:
    await journal.append("shop", changes("first"))
    lasts = await asyncio.gather(*(journal.append("shop", changes(f"{i}", f"{i}")) for i in range(8)))
    assert sorted(lasts) == list(range(3, 18, 2))
    page = await journal.read("shop", ["vips"], 0, 100)
    assert [entry.sequence for entry in page.entries] == list(range(1, 18))
    assert all(
        x.change.key_value == y.change.key_value for x, y in zip(page.entries[1::2], page.entries[2::2], strict=True)
    )


async def test_streams_and_projects_are_read_apart_and_the_others_are_passed_over(journal: ChangeJournal) -> None:
    await journal.append("shop", changes("a") + changes("b", "c", stream="sleepers") + changes("d"))
    await journal.append("other", changes("z"))
    first = await journal.read("shop", ["vips"], 0, 1)
    assert [entry.change.key_value for entry in first.entries] == ["a"]
    second = await journal.read("shop", ["vips"], first.reached, 2)
    assert [entry.change.key_value for entry in second.entries] == ["d"]
    nothing = await journal.read("shop", ["nobody"], 0, 2)
    assert (nothing.entries, nothing.reached) == ((), 4)


async def test_an_empty_append_tells_the_newest(journal: ChangeJournal) -> None:
    assert await journal.append("shop", []) == 0
    assert await journal.append("shop", changes("a", "b")) == 2
    assert await journal.append("shop", []) == await journal.newest("shop") == 2


async def test_trimming_keeps_to_age_and_count_and_refuses_places_before(
    journal: ChangeJournal, clock: ManualClock
) -> None:
    await journal.append("shop", changes("a", "b", "c"))
    clock.advance(1_000)
    await journal.append("shop", changes("d", "e", "f"))
    assert await journal.trim("shop", max_age_us=2_000, keep=100) == 0
    assert await journal.trim("shop", max_age_us=500, keep=100) == 3
    assert await journal.oldest("shop") == 4
    assert await journal.trim("shop", max_age_us=500, keep=1) == 5
    page = await journal.read("shop", ["vips"], 5, 10)
    assert [entry.change.key_value for entry in page.entries] == ["f"]
    with pytest.raises(OutOfRange) as refused:
        await journal.read("shop", ["vips"], 4, 10)
    assert refused.value.reason == "TOKEN_EXPIRED"
    clock.advance(1_000)
    assert await journal.trim("shop", max_age_us=500, keep=100) == 6
    assert await journal.append("shop", changes("g")) == 7


async def test_a_place_beyond_the_newest_belongs_to_another_journal(journal: ChangeJournal) -> None:
    with pytest.raises(OutOfRange):
        await journal.read("shop", ["vips"], 1, 10)


async def test_the_entries_of_a_key_in_some_streams_can_be_forgotten(journal: ChangeJournal) -> None:
    await journal.append("shop", changes("a", "b", "a") + changes("a", stream="sleepers"))
    assert await journal.forget("shop", "a", ["vips"]) == 2
    page = await journal.read("shop", ALL, 0, 10)
    assert [(entry.sequence, entry.change.key_value) for entry in page.entries] == [(2, "b"), (4, "a")]


async def test_who_waits_is_woken_by_an_append_of_the_project(journal: ChangeJournal) -> None:
    waiting = asyncio.create_task(journal.wait("shop", 0, 60))
    other = asyncio.create_task(journal.wait("other", 0, 60))
    await asyncio.sleep(0)
    await journal.append("shop", changes("a"))
    await waiting
    assert not other.done()
    other.cancel()
    await journal.wait("shop", 0, 60)
    await journal.wait("shop", 1, 0.01)


async def test_it_survives_a_restart(database_url: str, clock: ManualClock) -> None:
    async with Database.open(database_url, MIGRATIONS) as opened:
        await ChangeJournal(JournalStore(opened), clock).append("shop", changes("a"))
    async with Database.open(database_url, MIGRATIONS) as opened:
        journal = ChangeJournal(JournalStore(opened), clock)
        assert await journal.append("shop", changes("b")) == 2
        assert len((await journal.read("shop", ["vips"], 0, 10)).entries) == 2
