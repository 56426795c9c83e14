"""The as-of engine: the nineteen attributes at a million (key, instant) pairs."""

import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.tables import Table, median_of
from benchmarks.web_events import KEY, Traffic, nineteen_attributes
from services.kernel.asof import AsOf
from services.kernel.columns import EventBatch, key_column

EVENTS = 1_000_000
PAIRS = 1_000_000
BATCH = 50_000
ROUNDS = 3


def run() -> list[Table]:
    """Measures and tabulates."""
    table = Table(
        "Training rows: 1M (key, instant) pairs × 19 attributes, CPU seconds",
        ["total", "× floor", "floor", "adding events", "sorting", "answering", "elapsed", "pairs a second"],
        f"{EVENTS:,} events in memory as record batches, de-duplicated, sorted and asked for {PAIRS:,} pairs, by one "
        "thread. Floor: the same columns read from Parquet and sorted by key and time by Arrow. Elapsed is wall time, "
        "for which the budget is 10.",
    )
    for scattered in (False, True):
        batches = _batches(scattered)
        pairs = {"at events": _at_events(batches), "anywhere": _anywhere(batches)}
        floor = median_of(_floor(batches) for _ in range(ROUNDS))
        for name, (keys, instants) in pairs.items():
            rounds = [_measure(batches, keys, instants) for _ in range(ROUNDS + 1)][1:]
            adding, sorting, answering, elapsed = (median_of(figures) for figures in zip(*rounds, strict=True))
            total = adding + sorting + answering
            label = f"{'scattered visitors' if scattered else 'visitors in sessions'}, {name}"
            table.add(label, total, total / floor, floor, adding, sorting, answering, elapsed, PAIRS / total)
    return [table]


def _batches(scattered: bool) -> list[pa.RecordBatch]:
    traffic = Traffic(scattered=scattered, events_a_day=20_000)
    return [traffic.batch(BATCH) for _ in range(EVENTS // BATCH)]


def _at_events(batches: list[pa.RecordBatch]) -> tuple[pa.Array, np.ndarray]:
    """One pair at each event: its key and time."""
    table = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()
    return table[key_column(KEY)].chunk(0), table["occurred_at"].to_numpy()


def _anywhere(batches: list[pa.RecordBatch]) -> tuple[pa.Array, np.ndarray]:
    """Pairs of random keys and random instants, in no order."""
    random = np.random.default_rng(2)
    keys, times = _at_events(batches)
    chosen = pa.array(random.integers(0, len(keys.dictionary), PAIRS, np.int32))
    return pa.DictionaryArray.from_arrays(chosen, keys.dictionary), random.integers(times.min(), times.max(), PAIRS)


def _floor(batches: list[pa.RecordBatch]) -> float:
    """Reading the same columns from Parquet, and sorting them by key and time."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_batches(batches).unify_dictionaries(), sink)
    data = sink.getvalue()
    begin = time.process_time()
    table = pq.read_table(pa.BufferReader(data))
    codes = table[key_column(KEY)].combine_chunks().dictionary_encode().indices
    order = pc.sort_indices(
        pa.table({"key": codes, "time": table["occurred_at"]}), [("key", "ascending"), ("time", "ascending")]
    )
    table.take(order)
    return time.process_time() - begin


def _measure(batches: list[pa.RecordBatch], keys: pa.Array, instants: np.ndarray) -> tuple[float, float, float, float]:
    start = time.perf_counter()
    engine = AsOf(KEY, nineteen_attributes())
    marks = [time.process_time()]
    for batch in batches:
        engine.add(EventBatch(batch))
    marks.append(time.process_time())
    engine.sort()
    marks.append(time.process_time())
    engine.answer(keys, instants)
    marks.append(time.process_time())
    adding, sorting, answering = np.diff(marks).tolist()
    return adding, sorting, answering, time.perf_counter() - start


if __name__ == "__main__":
    for table in run():
        table.print()
