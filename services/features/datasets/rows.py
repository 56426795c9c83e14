"""The rows of a part: which keys at which moments, what is left out and why, and their labels.

A row has an *anchor*, the moment itself, and an *instant* t: features look at `[t - period, t)`. For absolute instants
and supplied rows t is the anchor, so what happens at the moment is out. Spans since the creation include their end, so
t is a microsecond later; but at 0 nothing counts, not even the event that created the key. The label looks at what
comes after the anchor.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.features.datasets.events import PartEvents
from services.features.datasets.goals import NEVER, CompiledGoal, InsightQuestion, reached
from services.features.datasets.job import Job
from services.features.datasets.sampling import Hashes, key_hashes, row_hashes, taken
from services.features.datasets.spec import (
    Converted,
    InsightGoal,
    Instants,
    Latest,
    ListedKeys,
    Percentiles,
    ReturnGoal,
    SegmentKeys,
    SinceCreation,
    SuppliedRows,
)
from services.features.datasets.tables import Supplied, read_keys, read_rows
from services.kernel.columns import shard_of

FALSE, TRUE, UNKNOWN = 0, 1, 2
"""Labels."""

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass
class LeftOut:
    """How many rows were left out, by reason; `not_sampled_keys` and `without_creation` count keys."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, count: int) -> None:
        """Counts some more."""
        if count:
            self.counts[reason] = self.counts.get(reason, 0) + int(count)


@dataclass(frozen=True)
class Rows:
    """Some rows, as columns of one length."""

    keys: pa.Array
    """The keys, each once; rows refer to them."""
    who: Ints
    """The key of each row, by its place; -1 is null."""
    anchors_us: Ints
    instants_us: Ints
    spans_us: Ints | None
    """The span since creation, where that is what makes the moment."""
    numbers: Ints
    """With supplied rows their number in the table, else 0."""
    labels: NDArray[np.int8] | None
    hashes: Hashes

    def take(self, rows: Mask | Ints) -> "Rows":
        """Some of them."""
        return Rows(
            self.keys,
            self.who[rows],
            self.anchors_us[rows],
            self.instants_us[rows],
            None if self.spans_us is None else self.spans_us[rows],
            self.numbers[rows],
            None if self.labels is None else self.labels[rows],
            self.hashes[rows],
        )

    def ordered(self) -> "Rows":
        """By key, then moment, then number. The keys are in order already."""
        return self.take(np.lexsort((self.numbers, self.anchors_us, self.who)))

    def key_values(self) -> pa.Array:
        """The key of each row."""
        absent = self.who < 0
        return self.keys.take(pa.array(self.who, mask=absent if absent.any() else None))

    def __len__(self) -> int:
        return len(self.who)


def needs_creation(job: Job) -> bool:
    """Whether it matters when keys were created."""
    moments, goal = job.spec.moments, job.spec.goal
    if isinstance(moments, SuppliedRows):
        return goal is not None and (goal.converted is Converted.LEAVE_OUT)
    return True


def population(job: Job, events: PartEvents, shards: tuple[int, int] | None, left_out: LeftOut) -> pa.Array:
    """The keys of a part, in order, after sampling."""
    keys = job.spec.keys
    if isinstance(keys, ListedKeys | SegmentKeys):
        if isinstance(keys, ListedKeys):
            given = list(keys.values)
        else:
            assert job.input_path is not None, "pinned"
            given = read_keys(job.input_path)
        mine = sorted({key for key in given if shards is None or shards[0] <= shard_of(key) <= shards[1]})
    else:
        mine = events.keys()
    if job.spec.sampling.fraction < 1:
        keep = taken(key_hashes(mine, job.spec.sampling.seed), job.spec.sampling.fraction)
        left_out.add("not_sampled_keys", len(mine) - int(keep.sum()))
        mine = [key for key, kept in zip(mine, keep.tolist(), strict=True) if kept]
    return pa.array(mine, pa.string())


def choose(
    job: Job,
    events: PartEvents,
    goal: CompiledGoal | None,
    shards: tuple[int, int] | None,
    spans_us: tuple[int, ...],
    left_out: LeftOut,
) -> tuple[Rows, Supplied | None]:
    """The rows of a part in their order, but for the bound on how many there may be; with the table they are of.

    `spans_us` are those since creation, when the moments are such.
    """
    supplied = None
    if isinstance(job.spec.moments, SuppliedRows):
        assert job.input_path is not None, "pinned"
        supplied = read_rows(job.input_path, shards)
        rows, creation = _supplied(job, events, supplied, left_out)
    else:
        keys = population(job, events, shards, left_out)
        creation = events.creation_us(keys)
        rows = _crossed(job, keys, creation, spans_us, left_out)
    if job.spec.goal is not None:
        rows = _labelled(job, events, goal, rows, creation, left_out)
    return rows.ordered(), supplied


def _supplied(job: Job, events: PartEvents, table: Supplied, left_out: LeftOut) -> tuple[Rows, Ints]:
    encoded = table.keys.dictionary_encode()
    distinct = encoded.dictionary
    order = (
        np.argsort(np.array(distinct.to_pylist(), dtype=object), kind="stable") if len(distinct) else np.empty(0, int)
    )
    keys = distinct.take(pa.array(order, pa.int64())).cast(pa.string())
    places = np.full(len(distinct) + 1, -1, np.int64)
    places[order] = np.arange(len(order))
    who = places[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
    hashes = np.append(key_hashes(keys.to_pylist(), job.spec.sampling.seed), np.uint64(0))
    rows = Rows(
        keys,
        who,
        table.instants_us,
        table.instants_us,
        None,
        np.arange(len(who)),
        None,
        row_hashes(hashes[who], table.instants_us, table.numbers),
    )
    if job.spec.sampling.fraction < 1:
        kept = taken(hashes, job.spec.sampling.fraction)[who]
        left_out.add("not_sampled", len(kept) - int(kept.sum()))
        rows = rows.take(kept)
    creation = events.creation_us(keys) if needs_creation(job) else np.full(len(keys), NEVER)
    return rows, creation


def _crossed(job: Job, keys: pa.Array, creation: Ints, spans_us: tuple[int, ...], left_out: LeftOut) -> Rows:
    """Every key at every moment, without those that were not created then, or whose moment has not come."""
    moments, count = job.spec.moments, len(keys)
    known = creation != NEVER
    left_out.add("without_creation", count - int(known.sum()))
    places = np.flatnonzero(known)
    spans = None
    if isinstance(moments, SinceCreation | Percentiles):
        each = np.array(spans_us, np.int64)
        who = np.repeat(places, len(each))
        spans = np.tile(each, len(places))
        anchors = creation[who] + spans
        instants = anchors + (spans > 0)
        in_time = anchors <= job.as_of_us
    elif isinstance(moments, Latest):
        who = places
        anchors = np.full(len(who), job.as_of_us)
        instants = anchors + 1
        in_time = creation[who] <= anchors
    else:
        assert isinstance(moments, Instants), "supplied rows have their own"
        each = np.array(sorted(set(moments.instants_us)), np.int64)
        who = np.repeat(places, len(each))
        anchors = np.tile(each, len(places))
        instants = anchors
        in_time = creation[who] <= anchors
    left_out.add("younger_than_the_moment", len(who) - int(in_time.sum()))
    hashes = key_hashes(keys.to_pylist(), job.spec.sampling.seed)
    rows = Rows(
        keys,
        who,
        anchors,
        instants,
        spans,
        np.zeros(len(who), np.int64),
        None,
        row_hashes(hashes[who], anchors, np.zeros(len(who), np.int64)),
    )
    return rows.take(in_time)


def _labelled(
    job: Job, events: PartEvents, goal: CompiledGoal | None, rows: Rows, creation: Ints, left_out: LeftOut
) -> Rows:
    """The rows with their labels, without those that converted before (if so wanted) or that sampling drops."""
    wanted = job.spec.goal
    assert wanted is not None, "asked for"
    window, now = wanted.label_window_us, job.as_of_us
    before = np.zeros(len(rows), np.bool_)
    if isinstance(wanted.achievement, InsightGoal):
        before, positive = _by_insight(job, wanted.achievement, rows, window)
    elif wanted.converted is Converted.KEEP:
        assert goal is not None, "an insight is another case"
        assert window is not None, "validated before"
        positive = _within(events, goal, rows, window)
    else:
        converted = np.append(events.converted_us(rows.keys, creation), NEVER)[rows.who]
        happened = converted != NEVER
        before = happened & (converted <= rows.anchors_us)
        positive = happened & (converted > rows.anchors_us)
        if window is not None:
            positive &= converted <= rows.anchors_us + window
    labels = positive.astype(np.int8)
    labels[rows.anchors_us + (window or 0) > now] = UNKNOWN
    rows = Rows(
        rows.keys, rows.who, rows.anchors_us, rows.instants_us, rows.spans_us, rows.numbers, labels, rows.hashes
    )
    if wanted.converted is Converted.LEAVE_OUT:
        left_out.add("converted_before", int(before.sum()))
        rows = rows.take(~before)
    return _by_class(job, rows, left_out)


def _within(events: PartEvents, goal: CompiledGoal, rows: Rows, window: int) -> Mask:
    """Whether the goal is met by what happens in the label window alone: a window that ends at its end."""
    assert events.history is not None, "there is a goal"
    codes = np.append(events.history.codes(rows.keys), np.int32(-1))[rows.who]
    after = goal.goal.achievement.after_us if isinstance(goal.goal.achievement, ReturnGoal) else 0
    assert window >= after, "validated before"
    column = events.history.answer(codes, rows.anchors_us + window + 1)[-1]
    return reached(column.values, goal.target)


def _by_insight(job: Job, achievement: InsightGoal, rows: Rows, window: int | None) -> tuple[Mask, Mask]:
    assert job.insights is not None, "refused before"
    keys = rows.key_values()
    ends = np.full(len(rows), job.as_of_us) if window is None else rows.anchors_us + window
    question = InsightQuestion(job.project, achievement.insight, job.spec.attribute_key, job.spec.up_to_position)
    before = job.insights.applies(question, keys, rows.anchors_us + 1)
    return before, job.insights.applies(question, keys, ends + 1)


def _by_class(job: Job, rows: Rows, left_out: LeftOut) -> Rows:
    sampling = job.spec.sampling
    if not sampling.by_class:
        return rows
    assert rows.labels is not None, "there is a goal"
    fractions = np.array([sampling.fraction_false, sampling.fraction_true, sampling.fraction_unknown])
    kept = taken(rows.hashes, fractions[rows.labels])
    left_out.add("down_sampled", len(kept) - int(kept.sum()))
    return rows.take(kept)


def label_counts(labels: NDArray[np.int8]) -> Mapping[str, int]:
    """How many rows of each label."""
    counts = np.bincount(labels, minlength=3).tolist()
    return {"true": counts[TRUE], "false": counts[FALSE], "unknown": counts[UNKNOWN]}
