"""The nineteen attributes: processor time for each event, exact at any instant, and memory."""

import time

from benchmarks.plain_python import PlainPython, as_dicts
from benchmarks.tables import Table, median_of
from benchmarks.web_events import KEY, Traffic, nineteen_attributes
from services.kernel.columns import EventBatch, to_ipc
from services.kernel.engine import Engine
from services.kernel.fold import Fold

EVENTS = 120_000


def one_pass(batch: EventBatch) -> None:
    """The floor: decode the batch and touch every column once."""
    for name in batch.names:
        strings = batch.strings(name) if ":s" in name or name.startswith("k.") or name == "event_type" else None
        if strings is not None:
            strings.codes.sum()
    batch.occurred_at.sum()
    batch.received_at.sum()
    batch.event_ids[1].sum()


def run() -> list[Table]:
    """Measures and tabulates."""
    cost = Table(
        "The 19 attributes, CPU µs an event",
        ["batch of", "median", "× floor", "floor", "dicts and deques"],
        "From the bytes of a batch to values that can be read, de-duplication included. Floor: decoding the same bytes "
        "and one pass over the columns. Dicts and deques: plain Python, given decoded rows for nothing. Budget: 2 at "
        "batches of 2,000 and more, 4 at 500.",
    )
    memory = Table(
        "Memory of the 19 attributes",
        ["events", "keys", "bytes an event", "bytes a key", "bytes an id"],
        "Arrays of the engine divided by the events held; the part that depends on keys alone by the keys; the "
        "de-duplicator's by the ids in its horizon.",
    )
    for scattered in (False, True):
        for size in (500, 2_000, 10_000):
            label = "scattered visitors" if scattered else "visitors in sessions"
            fold, engine, figures = _measure(size, scattered)
            cost.add(label, f"{size:,}", figures[0], figures[0] / figures[1], figures[1], figures[2])
            if size == 2_000:
                keys = sum(len(array) * array.itemsize for array in _per_key(engine))
                memory.add(
                    label,
                    f"{engine.rows:,}",
                    f"{len(engine.keys()):,}",
                    engine.nbytes / engine.rows,
                    keys / len(engine.keys()),
                    fold.deduplicator.nbytes / len(fold.deduplicator),
                )
    return [cost, memory]


def _measure(size: int, scattered: bool) -> tuple[Fold, Engine, tuple[float, float, float]]:
    traffic = Traffic(scattered=scattered)
    fold, engine = Fold("log"), Engine(KEY, nineteen_attributes())
    fold.attach(engine)
    plain = PlainPython()
    ours, floor, python = [], [], []
    # The first part fills the windows and compiles; it is not counted.
    for i in range(EVENTS // size):
        data = to_ipc(traffic.batch(size))
        rows = as_dicts(EventBatch.from_ipc(data))
        marks = [time.process_time()]
        fold.apply(fold.position + 1, fold.position + size, EventBatch.from_ipc(data))
        marks.append(time.process_time())
        one_pass(EventBatch.from_ipc(data))
        marks.append(time.process_time())
        plain.apply(rows)
        marks.append(time.process_time())
        if i >= EVENTS // size // 4:
            for figures, begin, end in zip((ours, floor, python), marks[:-1], marks[1:], strict=True):
                figures.append((end - begin) / size * 1e6)
    return fold, engine, (median_of(ours), median_of(floor), median_of(python))


def _per_key(engine: Engine) -> list[object]:
    """The arrays of which each key has an entry."""
    lists = engine.memory.timelines.lists
    arrays: list[object] = [lists.start, lists.length, lists.capacity]
    for state in engine.registry.states:
        arrays += [array for name, array in state.dump().items() if name in ("counts", "rows", "distinct", "heads")]
    return arrays


if __name__ == "__main__":
    for table in run():
        table.print()
