"""Segments: who of a million profiles meets a condition, and what it costs to stay current."""

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.tables import Table, median_of
from benchmarks.web_events import DAY_US, START_US, coded
from services.features.compile import compile_attribute
from services.features.definitions import AtomicProperty, Attribute, EventSelector, ValueType
from services.features.projection import Slot
from services.features.segments.binding import Bound
from services.features.segments.checking import check
from services.features.segments.definitions import SegmentDefinition
from services.features.segments.evaluate_many import ManyProfiles
from services.features.segments.fields import elapsed_of
from services.features.segments.language import ConditionParser
from services.features.segments.live import LiveSegment
from services.features.segments.readers import AttributeReader
from services.features.segments.schema import KINDS, Field, Schema
from services.features.segments.universe import Universe
from services.kernel.aggregations import Function
from services.kernel.columns import EventBatch, sorted_columns
from services.kernel.engine import Engine
from services.kernel.fold import Fold
from services.runtime.clocks import SystemClock
from services.runtime.database import Database
from services.runtime.journal import MIGRATIONS, Change, ChangeJournal, JournalStore

PROFILES = 1_000_000
EVENTS_A_PROFILE = 2
BATCH = 100_000
ROUNDS = 5
NOW_US = START_US + 7 * DAY_US
_EVENTS = (EventSelector(vendor="shop"),)
ATTRIBUTES = (
    Attribute("views", ValueType.INT64, _EVENTS, Function.COUNTER, period_us=30 * DAY_US),
    Attribute("spent", ValueType.DOUBLE, _EVENTS, Function.SUM, AtomicProperty("price")),
    Attribute("plan", ValueType.STRING, _EVENTS, Function.LAST, AtomicProperty("plan")),
    Attribute("email", ValueType.STRING, _EVENTS, Function.LAST, AtomicProperty("email")),
    Attribute("idle", ValueType.INT64, _EVENTS, Function.TIME_SINCE_LAST),
)
CONDITIONS: dict[str, tuple[str, int]] = {
    "an integer": ("views >= 2", 1),
    "a range of doubles": ("spent between 10 and 100", 2),
    "a text of three": ("plan = 'pro'", 1),
    "a pattern, all texts distinct": ("email like '%@x.com'", 1),
    "time since, with timers": ("idle < 259200", 1),
    "all of these": (
        "views >= 2 and spent between 10 and 100 and plan = 'pro' and email like '%@x.com' and idle < 259200",
        6,
    ),
}


def run() -> list[Table]:
    """Measures and tabulates."""
    engine, fold = _filled()
    universe = Universe("user_id")
    universe.follow([engine])
    schema = Schema("user_id", [Field("web", a.name, KINDS[_type(a)], elapsed_of(a)) for a in ATTRIBUTES])
    return [
        _everybody(engine, fold, universe, schema),
        _touched(engine, fold, universe, schema),
        asyncio.run(_journal()),
    ]


def _everybody(engine: Engine, fold: Fold, universe: Universe, schema: Schema) -> Table:
    table = Table(
        f"A segment of {PROFILES // 1_000_000}M profiles, milliseconds",
        ["total", "reading columns", "comparing", "floor", "comparing × floor", "profiles a second"],
        "Reading gathers the values of all profiles from the engine's states as Arrow columns; comparing evaluates the "
        "condition on them (and finds when time turns it). Floor: a NumPy comparison of a ready array of doubles for "
        "each comparison of the condition. One thread.",
    )
    numbers = universe.everybody()
    ready = np.random.default_rng(3).random(PROFILES)
    for name, (text, comparisons) in CONDITIONS.items():
        bound = _bound(text, engine, universe, schema)
        many = ManyProfiles(bound.condition)
        now_us = fold.as_of_us - 1

        def read(bound: Bound = bound, now_us: int = now_us) -> list[pa.Array]:
            return [reader.many(numbers, now_us) for reader in bound.readers]

        columns = read()

        def compare(many: ManyProfiles = many, columns: list[pa.Array] = columns, now_us: int = now_us) -> None:
            many.holds(columns, PROFILES, now_us)
            many.next_change_us(columns, PROFILES, now_us)

        def floor(comparisons: int = comparisons) -> None:
            for _ in range(comparisons):
                np.greater(ready, 0.5)

        reading, comparing, least = _median(read), _median(compare), _median(floor)
        total = reading + comparing
        cells = (total * 1e3, reading * 1e3, comparing * 1e3, least * 1e3, comparing / least, PROFILES / total)
        table.add(name, *cells)
    return table


def _touched(engine: Engine, fold: Fold, universe: Universe, schema: Schema) -> Table:
    sizes = (1, 10, 100, 1_000, 10_000)
    table = Table(
        "Keeping a segment current, microseconds a touched profile",
        [f"{size:,} at once" for size in sizes],
        "Reading the values, evaluating, finding who entered or left, setting timers. Few are evaluated one by one, "
        f"more as columns. Of {PROFILES:,} profiles; the others cost nothing.",
    )
    random = np.random.default_rng(4)
    for name, (text, _) in CONDITIONS.items():
        live = LiveSegment(SegmentDefinition("s", "user_id", text), universe)
        live.begin(_bound(text, engine, universe, schema))
        now_us = fold.as_of_us - 1
        live.turn(universe.everybody(), now_us, 1).publish()
        cells = []
        for size in sizes:
            chosen = [np.unique(random.integers(0, PROFILES, size)).astype(np.int32) for _ in range(20)]

            def turns(chosen: list[np.ndarray] = chosen, live: LiveSegment = live, now_us: int = now_us) -> None:
                for numbers in chosen:
                    live.turn(numbers, now_us, 1)

            cells.append(_median(turns) / sum(map(len, chosen)) * 1e6)
        table.add(name, *cells)
    return table


async def _journal() -> Table:
    table = Table(
        "The journal of changes, entries a second",
        ["1 in a transaction", "100", "10,000", "reading, 1,000 a page"],
        "On SQLite with full syncs, on this machine's disk.",
    )
    with tempfile.TemporaryDirectory() as folder:
        async with Database.open(f"sqlite:///{Path(folder) / 'journal.db'}", MIGRATIONS) as database:
            journal = ChangeJournal(JournalStore(database), SystemClock())
            cells = []
            for size, count in ((1, 50), (100, 30), (10_000, 8)):
                changes = [Change("segments/s@0", f"user-{i}", "entered", NOW_US, i) for i in range(size)]
                begin = time.perf_counter()
                for _ in range(count):
                    await journal.append("shop", changes)
                cells.append(size * count / (time.perf_counter() - begin))
            begin, after, read = time.perf_counter(), 0, 0
            while read < 50_000:
                page = await journal.read("shop", ["segments/s@0"], after, 1_000)
                after, read = page.reached, read + len(page.entries)
            table.add("entries", *cells, read / (time.perf_counter() - begin))
    return table


def _filled() -> tuple[Engine, Fold]:
    """A million profiles with two events each."""
    random = np.random.default_rng(1)
    engine = Engine("user_id", [compile_attribute(each) for each in ATTRIBUTES])
    fold = Fold("manual")
    fold.attach(engine)
    who = random.permutation(np.repeat(np.arange(PROFILES), EVENTS_A_PROFILE))
    for start in range(0, len(who), BATCH):
        users = who[start : start + BATCH].tolist()
        times = np.sort(START_US + random.integers(0, 7 * DAY_US, BATCH))
        columns = {
            "event_id": pa.array([f"e{start + i:09}" for i in range(BATCH)]),
            "event_type": pa.DictionaryArray.from_arrays(pa.array(np.zeros(BATCH, np.int32)), ["shop/view/1-0-0"]),
            "occurred_at": pa.array(times),
            "received_at": pa.array(times),
            "operation": pa.array(np.zeros(BATCH, np.int8)),
            "revision": pa.array(np.zeros(BATCH, np.int32)),
            "fingerprint": pa.array(np.zeros(BATCH, np.uint64)),
            "k.user_id": coded([f"user-{user}" for user in users]),
            "a.price:d": pa.array(random.random(BATCH) * 100),
            "a.plan:s": coded(random.choice(["pro", "team", "free"], BATCH).tolist()),
            "a.email:s": coded([f"user-{user}@{'x' if user % 3 else 'y'}.com" for user in users]),
        }
        names = sorted_columns(columns)
        batch = EventBatch(pa.RecordBatch.from_arrays([columns[name] for name in names], names=names))
        fold.apply(start + 1, start + BATCH, batch)
    fold.advance_exactly(NOW_US)
    return engine, fold


def _bound(text: str, engine: Engine, universe: Universe, schema: Schema) -> Bound:
    condition = check(ConditionParser(), text, schema)
    named = {each.name: (each, place) for place, each in enumerate(ATTRIBUTES)}
    readers = []
    for field in condition.fields:
        attribute, place = named[field.name]
        readers.append(AttributeReader(attribute, Slot(engine, place), universe, elapsed=field.elapsed is not None))
    return Bound(condition, list(readers), universe)


def _type(attribute: Attribute) -> ValueType:
    assert attribute.type is not None, "given above"
    return attribute.type


def _median(work: Callable[[], object]) -> float:
    rounds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        work()
        rounds.append(time.perf_counter() - begin)
    return median_of(rounds)


if __name__ == "__main__":
    for table in run():
        table.print()
