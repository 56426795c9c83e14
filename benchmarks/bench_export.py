"""Exports: nineteen attributes of every profile to Parquet and CSV, and how long the projection stands still for it."""

import asyncio
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv as arrow_csv

from benchmarks.tables import Table, median_of
from benchmarks.web_events import KEY, Traffic, nineteen_attributes
from services.features.dataset_files import flat
from services.features.definitions import Attribute, ValueType
from services.features.export import Columns, Exported, Gathered, gather, write_csv, write_parquet
from services.features.projection import Projection
from services.kernel.aggregations import Function
from services.kernel.columns import EventBatch
from services.kernel.engine import Engine
from services.kernel.fold import Fold
from services.runtime.clocks import ManualClock

EVENTS = 1_000_000
BATCH = 50_000
ROUNDS = 3
_TYPES = {Function.COUNTER: ValueType.INT64, Function.UNIQUE_LIST: ValueType.STRING_LIST}


def run() -> list[Table]:
    """Measures and tabulates."""
    table = Table(
        "Exporting all profiles × 19 attributes (5 of them lists), seconds",
        ["total", "× floor", "floor", "standing still", "profiles a second", "values a second"],
        f"{EVENTS:,} events of scattered visitors. Floor: writing the same Arrow table, which is there already, in the "
        "same form. Standing still: while its arrays are copied the projection is read, but not changed.",
    )
    projection = _projection()
    values = tuple(
        Exported(Attribute(f"a{i}", _TYPES.get(each.function, ValueType.STRING)), each, "web", None)
        for i, each in enumerate(nineteen_attributes())
    )
    columns = Columns(KEY, values, statuses=False)
    for name, form in (("Parquet", "parquet"), ("CSV", "csv")):
        rounds = [_measure(projection, columns, form) for _ in range(ROUNDS)]
        still, gathering, writing, floor = (median_of(figures) for figures in list(zip(*rounds, strict=True))[:4])
        rows = int(rounds[0][4])
        total = gathering + writing
        figures = (total, total / floor, floor, still, rows / total, rows * len(values) / total)
        table.add(f"{name}, {rows:,} profiles", *figures)
    return [table]


def _projection() -> Projection:
    fold = Fold("log")
    fold.attach(Engine(KEY, nineteen_attributes()))
    traffic = Traffic(visitors=100_000, scattered=True, events_a_day=100_000)
    for i in range(EVENTS // BATCH):
        fold.apply(i * BATCH + 1, (i + 1) * BATCH, EventBatch(traffic.batch(BATCH)))
    return Projection(fold, ManualClock(0))


def _measure(projection: Projection, columns: Columns, form: str) -> tuple[float, ...]:
    """Seconds of standing still, of gathering (with that), of writing, of the floor; and how many profiles."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        marks = [time.perf_counter()]
        gathered = asyncio.run(gather(projection, columns, None, folder, lambda done, total: None))
        marks.append(time.perf_counter())
        (write_csv if form == "csv" else write_parquet)(gathered, folder / "export")
        marks.append(time.perf_counter())
        floor = _floor(gathered, form, folder / "floor")
        return gathered.still_seconds, marks[1] - marks[0], marks[2] - marks[1], floor, gathered.rows


def _floor(gathered: Gathered, form: str, target: Path) -> float:
    with pa.OSFile(str(gathered.path)) as source:
        table = pa.ipc.open_file(source).read_all()
    begin = time.perf_counter()
    if form == "csv":
        arrow_csv.write_csv(pa.table([flat(each) for each in table.columns], table.column_names), str(target))
    else:
        pq.write_table(table, target, compression="zstd")
    return time.perf_counter() - begin


if __name__ == "__main__":
    for each in run():
        each.print()
