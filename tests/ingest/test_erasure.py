"""After an erasure nothing holds the subject, and whoever follows the log comes to the state without it."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.ingest.archive import MIGRATIONS as ARCHIVE_MIGRATIONS
from services.ingest.archive import Archive, ArchivePolicy, read_file
from services.ingest.archive.erasing import ArchiveEraser
from services.ingest.archive.index import ArchiveIndex
from services.ingest.compiled.faults import Refusal
from services.ingest.dead_letters import DeadLetter, DeadLetters, Refused
from services.ingest.erasure import Eraser, Subject
from services.ingest.erasure.eraser import Shared
from services.ingest.erasure.letters import carries
from services.ingest.log import EventLog, open_log
from services.ingest.log.base import LogBatch
from services.ingest.log.sqlite import SqliteEventLog
from services.ingest.projects import ProjectClock, Projects, ProjectSettings
from services.ingest.store import MIGRATIONS, DeadLetterStore, ProjectStore
from services.kernel.aggregations import Aggregation, Function, TermType
from services.kernel.building import EventRow
from services.kernel.columns import ADD, DELETE, REPLACE, EventBatch
from services.kernel.engine import Engine
from services.kernel.erasing import names_subject, pieces, subject_hash
from services.kernel.expressions import Everything, Property
from services.kernel.fold import Fold
from services.runtime import erasures
from services.runtime.blobs import FolderBlobStore
from services.runtime.clocks import ManualClock
from services.runtime.database import Database
from services.runtime.erasures import ErasureStore, Receipt
from services.runtime.errors import InvalidArgument
from tests.ingest.archive_worker import DAY_US, HOUR_US, PROJECT, append, week_us
from tests.ingest.events import event as message

USER, ACCOUNT = "user_id", "account_id"
VALUE = "ada.lovelace@example.org"
NOW_US = 300 * DAY_US
HORIZON_US = 7 * DAY_US
COUNT = Aggregation(Function.COUNTER, Everything())
TOTAL = Aggregation(Function.SUM, Everything(), Property("atomic", "amount"), TermType.NUMBER)
NOTES = Aggregation(Function.UNIQUE_LIST, Everything(), Property("atomic", "note"), TermType.STRING)


@dataclass
class Place:
    """Everything that an erasure touches, below one folder."""

    folder: Path
    log: EventLog
    archive: Archive
    dead_letters: DeadLetters
    store: ErasureStore
    projects: Projects
    eraser: Eraser


@asynccontextmanager
async def place(folder: Path, log_url: str = "", database_url: str = "") -> AsyncIterator[Place]:
    """Opens it."""
    packages = (MIGRATIONS, ARCHIVE_MIGRATIONS, erasures.MIGRATIONS)
    async with (
        open_log(log_url or f"sqlite:///{folder / 'log.db'}") as log,
        Database.open(database_url or f"sqlite:///{folder / 'ingest.db'}", packages) as database,
    ):
        clock = ManualClock(NOW_US)
        blobs = FolderBlobStore(folder / "blobs")
        archive = Archive(log, blobs, database, week_us, ArchivePolicy())
        dead_letters = DeadLetters(DeadLetterStore(database), clock)
        store = ErasureStore(database)
        projects = Projects(ProjectStore(database), log, clock)
        eraser = Eraser(
            log, ArchiveEraser(ArchiveIndex(database), blobs, archive), dead_letters, projects, store, clock
        )
        yield Place(folder, log, archive, dead_letters, store, projects, eraser)


@pytest.fixture(params=["sqlite", "postgres"])
async def here(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """An empty place on each kind of database."""
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    async with place(tmp_path, url, url) as opened:
        yield opened


async def silent(_stage: str) -> None:
    """Nobody wants to know the stage."""


async def erase(opened: Place, value: str = VALUE, key: str = USER, request_id: str = "") -> Receipt:
    """Erases a subject."""
    erasure = await opened.eraser.begin(Subject(PROJECT, key, value), request_id)
    return await opened.eraser.run(PROJECT, erasure.erasure_id, silent)


def counts(receipt: Receipt) -> dict[str, int]:
    """What was erased, by store."""
    return {each.store: each.count for each in receipt.stores}


def row(number: int, user: str, **changes: object) -> EventRow:
    """An event of a user and of an account."""
    made = EventRow(
        f"event-{number}",
        "purchase",
        100 * DAY_US + number * HOUR_US // 3,
        200 * DAY_US + number,
        {USER: user, ACCOUNT: f"account-{number % 2}"},
        properties={"amount": 2.0**number, "note": f"note of {user}"},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


async def batches(log: EventLog) -> list[LogBatch]:
    """The whole log."""
    return await log.read(PROJECT, 0, 1 << 40)


def engines() -> list[Engine]:
    """An engine for each key."""
    return [Engine(key, (COUNT, TOTAL, NOTES)) for key in (USER, ACCOUNT)]


class Follower:
    """A state folded from the log, as services keep it."""

    def __init__(self) -> None:
        self.fold = Fold("manual", HORIZON_US)
        for engine in engines():
            self.fold.attach(engine)
        self.fold.advance_exactly(NOW_US)

    def follow(self, read: list[LogBatch]) -> "Follower":
        """Applies what was not applied yet."""
        for batch in read:
            events = EventBatch.from_ipc(batch.data)
            for first, last, piece, mark in pieces(batch.first_position, batch.last_position, events):
                if last <= self.fold.position:
                    continue
                self.fold.apply(first, last, piece)
                for engine in self.fold.engines:
                    if mark is not None and engine.attribute_key == mark.attribute_key:
                        for text in list(engine.keys()):
                            if subject_hash(PROJECT, mark.attribute_key, text) == mark.subject:
                                engine.forget_key(text)
        return self

    @property
    def state(self) -> dict[tuple[str, str], list[object]]:
        """The values of all keys that have any."""
        found = {}
        for engine in self.fold.engines:
            for text in list(engine.keys()):
                values = [reading.value for reading in engine.read(text)]
                # A key all of whose events were taken back is one that nobody ever saw.
                if text and values[0]:
                    found[engine.attribute_key, text] = values
        return found


def without_subject(rows: list[EventRow]) -> list[EventRow]:
    """The log as it would be if the subject had never been: no record of it, nor of the events that are its own.

    Slowly: an event is whose its version in effect is.
    """
    owner: dict[str, bool] = {}
    revisions: dict[str, float] = {}
    for each in rows:
        revision = revisions.get(each.event_id)
        if each.operation == ADD and revision is not None:
            continue
        if each.operation == REPLACE and revision is not None and each.revision <= revision:
            continue
        revisions[each.event_id] = float("inf") if each.operation == DELETE else each.revision
        owner[each.event_id] = each.operation != DELETE and each.keys.get(USER) == VALUE
    kept = [each for each in rows if not owner[each.event_id]]
    # Records of others' events that name the subject lose what they say, and still stand in their order.
    return [replace(each, keys={}, properties={}) if each.keys.get(USER) == VALUE else each for each in kept]


USERS = st.sampled_from([VALUE, VALUE, "bob", "eve"])
OPERATIONS = st.sampled_from([(ADD, 0), (ADD, 0), (ADD, 0), (REPLACE, 1), (REPLACE, 2), (DELETE, 0)])


@st.composite
def logs(draw: st.DrawFn) -> list[list[EventRow]]:
    """Batches of events of several users, some of them sent again, moved to another user, or deleted."""
    drawn = draw(st.lists(st.tuples(st.integers(0, 6), USERS, OPERATIONS), min_size=1, max_size=24))
    rows = [
        row(number, user, received_at_us=200 * DAY_US + i, operation=operation, revision=revision)
        if operation != DELETE
        else row(number, user, received_at_us=200 * DAY_US + i, operation=DELETE, properties={})
        for i, (number, user, (operation, revision)) in enumerate(drawn)
    ]
    cuts = sorted(draw(st.sets(st.integers(1, len(rows)), max_size=4)) | {len(rows)})
    return [rows[start:end] for start, end in zip([0, *cuts], cuts, strict=False)]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=logs(), archived=st.integers(0, 4), ahead=st.integers(0, 4))
async def test_every_follower_comes_to_the_state_without_the_subject(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[list[EventRow]], archived: int, ahead: int
) -> None:
    async with place(tmp_path_factory.mktemp("place")) as opened:
        behind = Follower()
        for i, rows in enumerate(drawn):
            await append(opened.log, rows)
            if i == archived:
                await opened.archive.flush(PROJECT)
            if i == ahead:
                behind.follow(await batches(opened.log))
        current = Follower().follow(await batches(opened.log))
        receipt = await erase(opened)
        after = await batches(opened.log)
        assert after[-1].last_position == receipt.position
        rows = [each for rows in drawn for each in rows]
        expected = await reference(tmp_path_factory.mktemp("reference"), without_subject(rows))
        assert Follower().follow(after).state == expected
        assert behind.follow(after).state == expected
        assert current.follow(after).state == expected
        for batch in after:
            assert not names_subject(EventBatch.from_ipc(batch.data), USER, VALUE).any()
        await opened.archive.flush(PROJECT)
        for file in await opened.archive.files(PROJECT):
            table = read_file(opened.folder / "blobs" / file.key)
            assert table.num_rows == file.event_count
            assert f"k.{USER}" not in table.column_names or VALUE not in table[f"k.{USER}"].to_pylist()
        assert counts(await erase(opened))["events"] == 0
    assert list(holding(opened.folder)) == []


async def reference(folder: Path, rows: list[EventRow]) -> dict[tuple[str, str], list[object]]:
    """The state of a log that holds just these records."""
    async with open_log(f"sqlite:///{folder / 'log.db'}") as log:
        if rows:
            await append(log, rows)
        return Follower().follow(await batches(log)).state


def holding(folder: Path, value: str = VALUE) -> Iterator[Path]:
    """The files that hold a value, also in what is compressed."""
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += str(read_file(path).to_pylist()).encode()
        if value.encode() in content:
            yield path


async def fill(opened: Place) -> None:
    """Two users' events, archived and not, and dead letters of each kind."""
    await append(opened.log, [row(n, VALUE if n % 2 else "bob") for n in range(8)])
    await opened.archive.flush(PROJECT)
    moved = row(1, "bob", operation=REPLACE, revision=1, received_at_us=201 * DAY_US)
    taken = row(2, VALUE, operation=REPLACE, revision=1, received_at_us=201 * DAY_US)
    await append(opened.log, [*(row(n, VALUE if n % 3 else "eve") for n in range(8, 16)), moved, taken])
    refusal = Refusal("BAD_TIME", "events[0].occurred_at", "is required")
    letters = (
        Refused(0, refusal, "a", event=message("a", keys={USER: VALUE}).SerializeToString()),
        Refused(1, refusal, "b", event=message("b", keys={}, properties={"mail": VALUE}).SerializeToString()),
        Refused(2, refusal, "c", event=message("c", keys={USER: "bob"}).SerializeToString()),
        Refused(3, refusal, "d", event=b"\xff\xff" + VALUE.encode()),
        Refused(4, refusal, csv_line=f'4711,"{VALUE}",12.5'.encode()),
        Refused(5, refusal, csv_line=b"4711,bob,12.5"),
    )
    await opened.dead_letters.keep(PROJECT, letters)


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
