"""Everything that an erasure touches, for the tests: a place, a follower, and what is left in files."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from services.following.erasing import apply
from services.ingest.archive import MIGRATIONS as ARCHIVE_MIGRATIONS
from services.ingest.archive import Archive, ArchivePolicy, read_file
from services.ingest.archive.erasing import ArchiveEraser
from services.ingest.archive.index import ArchiveIndex
from services.ingest.compiled.faults import Refusal
from services.ingest.dead_letters import DeadLetters, Refused
from services.ingest.erasure import Eraser, Subject
from services.ingest.log import EventLog, open_log
from services.ingest.log.base import LogBatch
from services.ingest.projects import Projects
from services.ingest.store import MIGRATIONS, DeadLetterStore, ProjectStore
from services.kernel import snapshots
from services.kernel.aggregations import Aggregation, Function, TermType
from services.kernel.building import EventRow
from services.kernel.columns import REPLACE, EventBatch
from services.kernel.engine import Engine
from services.kernel.expressions import Everything, Property
from services.kernel.fold import Fold
from services.runtime import erasures
from services.runtime.blobs import FolderBlobStore
from services.runtime.clocks import ManualClock
from services.runtime.database import Database
from services.runtime.erasures import ErasureStore, Receipt
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
            apply(self.fold, PROJECT, batch.first_position, batch.last_position, events)
        return self

    @property
    def content(self) -> bytes:
        """All bytes of the state, as a snapshot would hold them."""
        _, arrays = snapshots.freeze(self.fold)
        return b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())

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
