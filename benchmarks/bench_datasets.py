"""Training sets: a million rows of nineteen attributes over the archive, in one process and as Ray tasks."""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.tables import Table, median_of
from benchmarks.web_events import KEY, VENDOR, Traffic, nineteen_attributes
from services.features.archive import ArchivedFile, ArchiveListing
from services.features.datasets.build import RayWorkers, ThreadWorkers, Workers, build
from services.features.datasets.job import ArchiveSource, FeatureColumn, Job
from services.features.datasets.spec import Converted, DatasetSpec, EventGoal, Goal, SuppliedRows
from services.features.datasets.tables import INSTANT, to_bytes
from services.features.datasets.tables import KEY as KEY_COLUMN
from services.features.definitions import Attribute, EventSelector, ValueType
from services.ingest.archive.files import write_files
from services.ingest.log.base import LogBatch
from services.kernel.aggregations import Function
from services.kernel.columns import to_ipc
from services.kernel.dedup import Deduplicator
from services.runtime.ray_session import RayOptions, RaySession

EVENTS = 1_000_000
BATCH = 50_000
RANGE = 5
"""Batches of the log in each range of the archive."""
ROUNDS = 3
HOUR_US = 3_600_000_000


def run() -> list[Table]:
    """Measures and tabulates."""
    table = Table(
        "Training sets over the archive: 1M rows × 19 attributes and a label, seconds",
        ["total", "× floor", "floor", "rows a second", "parts"],
        f"One row for each of {EVENTS:,} web events: what was known before it, and whether the visitor submits a form "
        "within the hour after it. From Parquet to Parquet, with the manifest. Floor: the same columns of the same "
        "Parquet read and sorted by key and time by Arrow. Ray's start is left out.",
    )
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(Path(folder), table))
    return [table]


async def _measure(root: Path, table: Table) -> None:
    listing, rows = _archive(root)
    path = root / "rows.parquet"
    path.write_bytes(to_bytes(rows)[1])
    floor = median_of(_floor(root, listing) for _ in range(ROUNDS))

    async def measured(name: str, workers: Workers, parts: int) -> None:
        job = _job(root, listing, path, parts)
        taken = [await _build(job, workers) for _ in range(ROUNDS + 1)][1:]
        total = median_of(taken)
        table.add(name, total, total / floor, floor, EVENTS / total, str(parts))

    await measured("in one process", ThreadWorkers(), 1)
    async with RaySession.open(RayOptions(cpus=2)) as ray:
        await ray.start()
        await measured("as Ray tasks on two cores", RayWorkers(ray, 2), 2)
        await measured("as Ray tasks on two cores", RayWorkers(ray, 2), 4)


async def _build(job: Job, workers: Workers) -> float:
    async def keep(name: str, content: bytes) -> None:
        assert content, name

    async def report(stage: Any) -> None:
        assert stage.total

    begin = time.perf_counter()
    manifest = await build(job, workers, keep, report, described={}, records=EVENTS)
    taken = time.perf_counter() - begin
    assert manifest["row_count"] == EVENTS
    return taken


def _archive(root: Path) -> tuple[ArchiveListing, pa.Table]:
    """The archive of some months of traffic, and the rows: one for each event."""
    traffic = Traffic(events_a_day=20_000)
    seen, files, keys, times, position = Deduplicator(7 * 24 * HOUR_US), [], [], [], 0
    for _ in range(EVENTS // BATCH // RANGE):
        batches = []
        first = position + 1
        for _ in range(RANGE):
            batch = traffic.batch(BATCH)
            keys.append(batch.column(f"k.{KEY}").cast(pa.string()))
            times.append(batch.column("occurred_at"))
            span = pc.min_max(batch.column("occurred_at")).as_py()
            data = to_ipc(batch)
            batches.append(LogBatch(position + 1, position + BATCH, data, span["min"], span["max"], span["max"]))
            position += BATCH
        for file, content in write_files("bench", first, position, batches, seen):
            target = root / file.key
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            spans = (file.min_occurred_us, file.max_occurred_us)
            files.append(ArchivedFile(file.key, first, position, *spans, file.event_count, file.size_bytes))
    rows = pa.table({KEY_COLUMN: pa.chunked_array(keys), INSTANT: pa.chunked_array(times)})
    return ArchiveListing("bench", tuple(files), position, None, 0), rows


def _job(root: Path, listing: ArchiveListing, rows: Path, parts: int) -> Job:
    types = {
        Function.COUNTER: ValueType.INT32,
        Function.UNIQUE_LIST: ValueType.STRING_LIST,
        Function.FIRST: ValueType.STRING,
        Function.LAST: ValueType.STRING,
    }
    features = tuple(
        FeatureColumn(f"web/1:a{i}", f"a{i}", Attribute(f"a{i}", types[each.function]), each)
        for i, each in enumerate(nineteen_attributes())
    )
    now = max(file.max_occurred_us for file in listing.files)
    spec = DatasetSpec(
        SuppliedRows(""),
        goal=Goal(EventGoal((EventSelector(VENDOR, "submit_form"),)), Converted.KEEP, HOUR_US),
        attribute_key=KEY,
        up_to_position=listing.position,
        as_of_us=now,
        partitions=parts,
    )
    source = ArchiveSource(root, listing, KEY, listing.position, now + 1)
    return Job("bench", spec, now, source, features, input_path=rows)


def _floor(root: Path, listing: ArchiveListing) -> float:
    """Reading the columns that the attributes look at, and sorting them by key and time."""
    names = ("event_id", "event_type", "occurred_at", f"k.{KEY}", "a.app_id:s", "a.page_url:s", "a.domain_sessionid:s")
    names += ("a.refr_medium:s", "a.mkt_medium:s", "a.mkt_campaign:s")
    names += ("e.nl.basjes/yauaa_context/1[0].deviceClass:s",)
    begin = time.perf_counter()
    tables = []
    for file in listing.files:
        with pq.ParquetFile(root / file.key) as opened:
            tables.append(opened.read(columns=[name for name in names if name in opened.schema_arrow.names]))
    table = pa.concat_tables(tables, promote_options="default")
    codes = table[f"k.{KEY}"].combine_chunks().dictionary_encode().indices
    order = pc.sort_indices(
        pa.table({"key": codes, "time": table["occurred_at"]}), [("key", "ascending"), ("time", "ascending")]
    )
    table.take(order)
    return time.perf_counter() - begin


if __name__ == "__main__":
    for table in run():
        table.print()
