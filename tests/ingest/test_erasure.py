"""After an erasure nothing holds the subject, whatever was interrupted, and the receipt says what was erased."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.ingest.archive import read_file
from services.ingest.archive.index import ArchiveIndex
from services.ingest.compiled.faults import Refusal
from services.ingest.dead_letters import DeadLetter, DeadLetters
from services.ingest.erasure import Subject
from services.ingest.erasure.eraser import Shared
from services.ingest.erasure.letters import carries
from services.ingest.log.sqlite import SqliteEventLog
from services.ingest.projects import ProjectClock, ProjectSettings
from services.kernel.columns import EventBatch
from services.kernel.erasing import subject_hash
from services.kernel.fold import Fold
from services.runtime.blobs import FolderBlobStore
from services.runtime.erasures import ErasureStore
from services.runtime.errors import InvalidArgument
from tests.ingest.archive_worker import DAY_US, PROJECT, append
from tests.ingest.erasing import (
    HORIZON_US,
    USER,
    VALUE,
    Follower,
    Place,
    batches,
    counts,
    erase,
    fill,
    holding,
    place,
    row,
    silent,
)


@pytest.fixture(params=["sqlite", "postgres"])
async def here(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """An empty place on each kind of database."""
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    async with place(tmp_path, url, url) as opened:
        yield opened


async def test_a_receipt_counts_what_was_erased_where(here: Place) -> None:
    await fill(here)
    receipt = await erase(here)
    assert counts(receipt) == {
        "events": 10,
        "log": 10,
        "archive": 5,
        "archive_files": 3,
        "dead_letters": 4,
    }
    assert receipt.subject == subject_hash(PROJECT, USER, VALUE)
    assert receipt.marker_position == receipt.position == await here.log.head(PROJECT)
    assert VALUE not in receipt.to_json()
    state = Follower().follow(await batches(here.log)).state
    assert sorted({text for key, text in state if key == USER}) == ["bob", "eve"]
    # bob had events 0, 2, 4 and 6: 2 became the subject's and went with it, 1 was the subject's and became his.
    assert state[USER, "bob"][:2] == [4, 2.0**0 + 2.0**1 + 2.0**4 + 2.0**6]
    kept = await here.dead_letters.page(PROJECT, 10, None, None)
    assert sorted(letter.event_id for letter in kept) == ["", "c"]


async def test_the_same_request_gives_the_same_receipt(here: Place) -> None:
    await fill(here)
    receipt = await erase(here, request_id="ticket 12")
    assert await erase(here, request_id="ticket 12") == receipt
    assert (await here.eraser.get(PROJECT, receipt.name.removeprefix("erasures/"))).receipt == receipt
    assert counts(await erase(here, request_id="ticket 13"))["events"] == 0
    with pytest.raises(InvalidArgument, match="another subject"):
        await erase(here, "bob", request_id="ticket 12")


async def test_what_comes_after_the_marker_is_a_new_life_and_a_deleted_id_stays_deleted(here: Place) -> None:
    await fill(here)
    await erase(here)
    await append(here.log, [row(3, VALUE, received_at_us=202 * DAY_US), row(50, VALUE, received_at_us=202 * DAY_US)])
    assert Follower().follow(await batches(here.log)).state[USER, VALUE] == [1, 2.0**50, [f"note of {VALUE}"]]
    await here.archive.flush(PROJECT)
    assert counts(await erase(here))["events"] == 2


async def test_what_the_log_trimmed_is_erased_in_the_archive(here: Place) -> None:
    await fill(here)
    follower = Follower().follow(await batches(here.log))
    await here.archive.settle(PROJECT)
    await here.log.trim(PROJECT, 200 * DAY_US)
    receipt = await erase(here)
    assert (counts(receipt)["events"], counts(receipt)["log"]) == (10, 0)
    state = follower.follow(await batches(here.log)).state
    assert sorted({text for key, text in state if key == USER}) == ["bob", "eve"]
    assert list(holding(here.folder)) == []


async def test_nobody_to_erase_is_a_receipt_too(here: Place) -> None:
    assert (await erase(here)).position == 0
    await fill(here)
    receipt = await erase(here, "nobody")
    assert set(counts(receipt).values()) == {0}


class Interrupted(BaseException):
    """As a crash: nothing catches it."""


@pytest.mark.parametrize("seed", range(4))
async def test_an_erasure_that_is_interrupted_anywhere_is_finished_later(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    async with place(tmp_path) as opened:
        await fill(opened)
        erasure = await opened.eraser.begin(Subject(PROJECT, USER, VALUE), "")
    steps = (
        (SqliteEventLog, "append"),
        (SqliteEventLog, "replace"),
        (SqliteEventLog, "scrub"),
        (FolderBlobStore, "put"),
        (FolderBlobStore, "delete"),
        (ArchiveIndex, "amend"),
        (ArchiveIndex, "forget"),
        (DeadLetters, "delete"),
        (ErasureStore, "note"),
        (ErasureStore, "finish"),
        (ErasureStore, "scrub"),
    )
    crashes = 0
    for owner, name in steps:
        for after in (False, True):
            with monkeypatch.context() as patch:
                real = getattr(owner, name)
                countdown = chance.choice((0, 0, 1))

                async def crash(self: object, *given: object, real=real, after=after, **named: object) -> object:  # type: ignore[no-untyped-def]
                    nonlocal countdown
                    countdown -= 1
                    if countdown < 0 and not after:
                        raise Interrupted
                    result = await real(self, *given, **named)
                    if countdown < 0:
                        raise Interrupted
                    return result

                patch.setattr(owner, name, crash)
                async with place(tmp_path) as opened:
                    try:
                        await opened.eraser.run(PROJECT, erasure.erasure_id, silent)
                    except Interrupted:
                        crashes += 1
    async with place(tmp_path) as opened:
        receipt = await opened.eraser.run(PROJECT, erasure.erasure_id, silent)
        state = Follower().follow(await batches(opened.log)).state
        assert sorted({text for key, text in state if key == USER}) == ["bob", "eve"]
        assert state[USER, "bob"][:2] == [4, 2.0**0 + 2.0**1 + 2.0**4 + 2.0**6]
        for file in await opened.archive.files(PROJECT):
            content = await FolderBlobStore(tmp_path / "blobs").get(file.key)
            assert (file.size_bytes, file.event_count) == (len(content), read_file(content).num_rows)
    assert crashes > 3
    assert counts(receipt)["events"] == 10
    assert list(holding(tmp_path)) == []


def test_in_what_cannot_be_read_a_value_counts_where_it_stands_by_itself() -> None:
    subject, refusal = Subject(PROJECT, USER, "42"), Refusal("BAD_LINE", "", "")
    lines = {b"1,42,x": True, b'"42";7': True, b"42": True, b"1,142,x": False, b"1,42a": False, b"": False}
    letters = {line: DeadLetter("id", refusal, 0, "", csv_line=line) for line in lines}
    assert {line: carries(letter, subject) for line, letter in letters.items()} == lines


async def test_erasures_at_the_same_time_share_what_rewrites_whole_files(here: Place) -> None:
    await append(here.log, [row(n, f"user-{n % 8}@example.org") for n in range(40)])
    scrubs = 0
    scrub = here.log.scrub

    async def counting() -> None:
        nonlocal scrubs
        scrubs += 1
        await scrub()

    here.eraser._scrub_log = Shared(counting)
    receipts = await asyncio.gather(*(erase(here, f"user-{n}@example.org") for n in range(6)))
    assert [counts(receipt)["events"] for receipt in receipts] == [5] * 6
    assert scrubs <= 6
    state = Follower().follow(await batches(here.log)).state
    assert sorted(text for key, text in state if key == USER) == ["user-6@example.org", "user-7@example.org"]


async def test_a_shared_run_begins_after_everybody_who_waits_for_it_asked() -> None:
    began, gate = [], asyncio.Event()

    async def work() -> None:
        began.append(len(began))
        await gate.wait()

    shared = Shared(work)
    first = asyncio.create_task(shared.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = [asyncio.create_task(shared.run()) for _ in range(3)]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, *others)
    assert began == [0, 1]


async def test_a_file_that_the_index_does_not_know_goes_once_its_range_is_archived(here: Place) -> None:
    await fill(here)
    await here.archive.flush(PROJECT)
    blobs = FolderBlobStore(here.folder / "blobs")
    folder = f"archive/{PROJECT}/date=1999-01-01/hour=00"
    lost, coming = f"{folder}/{1:019d}-{7:019d}.parquet", f"{folder}/{19:019d}-{10**6:019d}.parquet"
    for key in (lost, coming):
        await blobs.put(key, VALUE.encode())
    await erase(here)
    left = {blob.key for blob in await blobs.list("archive/") if blob.key.endswith(".parquet")}
    assert left == {coming, *(file.key for file in await here.archive.files(PROJECT))}


async def test_where_the_log_is_the_clock_now_does_not_go_back(here: Place) -> None:
    def log_clock(before: ProjectSettings) -> ProjectSettings:
        return replace(before, clock=ProjectClock.LOG)

    await here.projects.update(PROJECT, "", log_clock)
    await append(here.log, [row(1, "bob"), row(2, VALUE), row(3, "eve"), row(90, VALUE)])
    states = []
    live = Fold("log", HORIZON_US)
    for fold in (live, Fold("log", HORIZON_US)):
        for batch in await batches(here.log):
            events = EventBatch.from_ipc(batch.data)
            fold.apply(batch.first_position, batch.last_position, events)
        states.append(fold.as_of_us)
        if fold is live:
            await erase(here)
    for batch in await batches(here.log):
        live.apply(batch.first_position, batch.last_position, EventBatch.from_ipc(batch.data))
    assert states == [row(90, VALUE).occurred_at_us + 1] * 2
    assert live.as_of_us == states[0]
