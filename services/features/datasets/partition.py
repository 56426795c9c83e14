"""What is computed of one part of a training set: pure functions of a job, in a thread, a process or a Ray task.

A part is read once for each question: how long keys took to convert (for percentiles), which rows come first (for a
bound on their number), and the rows themselves.
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from services.features.dataset import ARROW_TYPES, typed
from services.features.datasets.events import PartEvents, Watch
from services.features.datasets.goals import NEVER, CompiledGoal, compile_goal
from services.features.datasets.job import Job
from services.features.datasets.rolled import RolledUpRows
from services.features.datasets.rows import UNKNOWN, LeftOut, Rows, choose, label_counts, needs_creation, population
from services.features.datasets.sampling import Hashes
from services.features.datasets.spec import InsightGoal, Percentiles, SinceCreation
from services.features.datasets.tables import Supplied, carried_fields

MOMENT, SPAN, GOAL = "moment", "seconds_since_creation", "goal"
_ROWS_AT_ONCE = 1 << 19
_INSTANT = pa.timestamp("us", "UTC")


@dataclass(frozen=True)
class Part:
    """The computed rows of a part: a Parquet file, and what is told of it."""

    content: bytes
    rows: int
    labels: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    skipped_terms: int = 0
    """Values skipped because of their type."""


def conversion_spans(job: Job, partition: int, watch: Watch | None = None) -> NDArray[np.int64]:
    """How long after their creation the keys of a part reached the goal; those that did not are not in it."""
    goal = _goal(job)
    assert goal is not None, "validated before"
    events = PartEvents(job, goal, needs_creation=True, features=())
    _load(job, events, partition, watch)
    keys = population(job, events, job.shards(partition), LeftOut())
    creation = events.creation_us(keys)
    converted = events.converted_us(keys, creation)
    both = (converted != NEVER) & (creation != NEVER)
    return np.sort(converted[both] - creation[both])


def first_hashes(job: Job, partition: int, spans_us: tuple[int, ...], watch: Watch | None = None) -> Hashes:
    """The least hashes of a part's rows, as many as there may be rows at all."""
    events = PartEvents(job, _goal(job), needs_creation=needs_creation(job), features=())
    _load(job, events, partition, watch)
    rows, _ = choose(job, events, _goal(job), job.shards(partition), spans_us, LeftOut())
    return np.sort(rows.hashes)[: job.spec.sampling.max_rows]


def fill(
    job: Job, partition: int, spans_us: tuple[int, ...], last_hash: int | None = None, watch: Watch | None = None
) -> Part:
    """The rows of a part with their features; those with a hash above `last_hash` are left out."""
    goal, left_out = _goal(job), LeftOut()
    events = PartEvents(job, goal, needs_creation=needs_creation(job), features=job.features)
    _load(job, events, partition, watch)
    rows, supplied = choose(job, events, goal, job.shards(partition), spans_us, left_out)
    if last_hash is not None:
        kept = rows.hashes <= np.uint64(last_hash)
        left_out.add("over_the_bound", len(kept) - int(kept.sum()))
        rows = rows.take(kept)
    events.history = None
    sink = io.BytesIO()
    write(sink, schema(job), _watched(_tables(job, events, rows, supplied), watch))
    return Part(
        sink.getvalue(),
        len(rows),
        dict(label_counts(rows.labels)) if rows.labels is not None else {},
        left_out.counts,
        0 if events.features is None else events.features.skipped_terms,
    )


def write(sink: BinaryIO, columns: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Writes tables as Parquet, in the one form that makes the same bytes of the same rows."""
    with pq.ParquetWriter(sink, columns, compression="zstd", version="2.6", write_page_index=True) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=_ROWS_AT_ONCE)


def schema(job: Job) -> pa.Schema:
    """The columns of the files: key, moment, what was supplied, features, goal."""
    fields = [pa.field(job.spec.attribute_key, pa.string()), pa.field(MOMENT, _INSTANT, nullable=False)]
    if isinstance(job.spec.moments, SinceCreation | Percentiles):
        fields.append(pa.field(SPAN, pa.float64(), nullable=False))
    if job.input_path is not None:
        fields += carried_fields(job.input_path)
    for feature in job.features:
        assert feature.attribute.type is not None, "validated before"
        fields.append(pa.field(feature.column, ARROW_TYPES[feature.attribute.type]))
    fields += [pa.field(each.column, ARROW_TYPES[each.type]) for each in job.rollups]
    if job.spec.goal is not None:
        fields.append(pa.field(GOAL, pa.bool_()))
    return pa.schema(fields)


def _goal(job: Job) -> CompiledGoal | None:
    goal = job.spec.goal
    return None if goal is None or isinstance(goal.achievement, InsightGoal) else compile_goal(goal)


def _load(job: Job, events: PartEvents, partition: int, watch: Watch | None) -> None:
    watched = watch or Watch()
    events.load(job.source.batches(events.aggregations, job.shards(partition)), watched.tick)


def _watched(tables: Iterator[pa.Table], watch: Watch | None) -> Iterator[pa.Table]:
    for table in tables:
        if watch is not None:
            watch.tick(0)
        yield table


def _tables(job: Job, events: PartEvents, rows: Rows, supplied: Supplied | None) -> Iterator[pa.Table]:
    columns = schema(job)
    rolled = RolledUpRows(job, rows.keys.to_pylist()) if job.rollups else None
    codes = None if events.features is None else np.append(events.features.codes(rows.keys), np.int32(-1))
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows.take(np.arange(start, min(start + _ROWS_AT_ONCE, len(rows))))
        arrays: list[Any] = [some.key_values(), pa.array(some.anchors_us, pa.int64()).cast(_INSTANT)]
        if some.spans_us is not None:
            arrays.append(pa.array(some.spans_us / 1e6))
        if supplied is not None:
            arrays += supplied.carried.take(pa.array(some.numbers)).columns
        if events.features is not None and codes is not None:
            answers = events.features.answer(codes[some.who], some.instants_us)
            arrays += [typed(f.attribute, answer) for f, answer in zip(job.features, answers, strict=True)]
        if rolled is not None:
            arrays += rolled.columns(some.key_values().to_pylist(), some.instants_us)
        if some.labels is not None:
            arrays.append(pa.array(some.labels == 1, mask=some.labels == UNKNOWN))
        yield pa.table(arrays, schema=columns)
