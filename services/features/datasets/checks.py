"""Says everything that is wrong with a training set's specification at once."""

import math
import re
from collections.abc import Iterator, Sequence

from services.features.datasets.goals import check_achievement
from services.features.datasets.spec import (
    AllKeys,
    Converted,
    DatasetSpec,
    EventGoal,
    Goal,
    InsightGoal,
    Instants,
    ListedKeys,
    Moments,
    Percentiles,
    ReturnGoal,
    Sampling,
    SegmentKeys,
    SinceCreation,
    SumGoal,
    SuppliedRows,
)
from services.features.definitions import IDENTIFIER, Problem
from services.features.durations import MAX_DURATION_US
from services.features.validation import describe
from services.kernel.columns import SHARDS
from services.runtime.errors import InvalidArgument, Violation

MAX_KEYS, MAX_SPANS, MAX_INSTANTS, MAX_TIMES, MAX_ROWS = 100_000, 64, 1_000, 1_000_000, 10**12
INPUT_ID = re.compile(r"[0-9a-f]{64}")
_SUPPLIED = "supplied rows name their keys themselves"


def check_spec(spec: DatasetSpec) -> list[Problem]:
    """The mistakes of a specification by itself; empty when it may be pinned."""
    return [
        *_check_place(spec),
        *_check_keys(spec),
        *_check_moments(spec.moments, spec.goal),
        *(() if spec.goal is None else _check_goal(spec.goal)),
        *_check_sampling(spec.sampling, spec.goal),
    ]


def refuse(problems: Sequence[Problem]) -> None:
    """Raises InvalidArgument with all problems, if there are any."""
    if problems:
        first = f"{problems[0].field}: {describe(problems[0])}"
        raise InvalidArgument(
            f"the specification has mistakes; the first: {first}",
            reason="BAD_DATASET",
            violations=[Violation(problem.field, describe(problem), "BAD_DATASET") for problem in problems],
        )


def _check_place(spec: DatasetSpec) -> Iterator[Problem]:
    if spec.attribute_key and not IDENTIFIER.fullmatch(spec.attribute_key):
        yield Problem("attribute_key", "is not an attribute key", "such as user_id")
    if spec.up_to_position < 0:
        yield Problem("up_to_position", "must not be negative", "0 takes all that there is")
    if not 0 <= spec.partitions <= SHARDS:
        yield Problem("partition_count", f"must be from 1 to {SHARDS}", "0 lets the archive's size decide")


def _check_keys(spec: DatasetSpec) -> Iterator[Problem]:
    keys = spec.keys
    if isinstance(spec.moments, SuppliedRows) and not isinstance(keys, AllKeys):
        yield Problem("keys", f"cannot be given: {_SUPPLIED}", "leave them out")
    if isinstance(keys, ListedKeys) and not 1 <= len(keys.values) <= MAX_KEYS:
        yield Problem("keys.list.values", f"must be 1 to {MAX_KEYS:,}", "upload a table for more")
    if isinstance(keys, SegmentKeys):
        if not keys.segment:
            yield Problem("keys.segment.segment", "is missing", "name a segment")
        if keys.input_id and not INPUT_ID.fullmatch(keys.input_id):
            yield Problem("keys.segment.input", "is not an input", "leave it out to take the members of now")


def _check_moments(moments: Moments, goal: Goal | None) -> Iterator[Problem]:
    if isinstance(moments, SinceCreation):
        if not 1 <= len(moments.spans_us) <= MAX_SPANS:
            yield Problem("moments.since_creation.spans", f"must be 1 to {MAX_SPANS}")
        for i, span_us in enumerate(moments.spans_us):
            if not 0 <= span_us <= MAX_DURATION_US:
                yield Problem(f"moments.since_creation.spans[{i}]", "must be from 0 to 100 years")
    elif isinstance(moments, Percentiles):
        place = "moments.time_to_convert"
        if not 1 <= len(moments.percents) <= MAX_SPANS:
            yield Problem(f"{place}.percents", f"must be 1 to {MAX_SPANS}")
        for i, percent in enumerate(moments.percents):
            if not 0 < percent <= 100:
                yield Problem(f"{place}.percents[{i}]", "must be above 0 and at most 100", "50 is the median")
        if goal is None or isinstance(goal.achievement, InsightGoal):
            yield Problem(place, "needs a goal of events", "its times are those at which keys reach the goal")
    elif isinstance(moments, Instants):
        if not 1 <= len(moments.instants_us) <= MAX_INSTANTS:
            yield Problem("moments.instants.times", f"must be 1 to {MAX_INSTANTS:,}", "upload a table for more")
    elif isinstance(moments, SuppliedRows) and not INPUT_ID.fullmatch(moments.input_id):
        yield Problem("moments.rows.input", "is not an input", "give what UploadDatasetRows answered")


def _check_goal(goal: Goal) -> Iterator[Problem]:
    achievement, window = goal.achievement, goal.label_window_us
    if window is not None and not 0 < window <= MAX_DURATION_US:
        yield Problem("goal.label_window", "must be longer than nothing and at most 100 years")
    if window is None and goal.converted is Converted.KEEP:
        yield Problem("goal.label_window", "is missing", "KEEP counts what happens within it: say how long it is")
    if isinstance(achievement, InsightGoal):
        if not achievement.insight:
            yield Problem("goal.insight.insight", "is missing", "insights/{insight}")
        return
    kind = "event" if isinstance(achievement, EventGoal) else "sum" if isinstance(achievement, SumGoal) else "back"
    yield from check_achievement(achievement, f"goal.{kind}")
    if isinstance(achievement, EventGoal) and not 1 <= achievement.times <= MAX_TIMES:
        yield Problem("goal.event.times", f"must be from 1 to {MAX_TIMES:,}")
    if isinstance(achievement, SumGoal) and not math.isfinite(achievement.at_least):
        yield Problem("goal.sum.at_least", "must be a finite number")
    if isinstance(achievement, ReturnGoal):
        if not 0 < achievement.after_us <= MAX_DURATION_US:
            yield Problem("goal.back.after", "must be longer than nothing and at most 100 years")
        elif goal.converted is Converted.KEEP and window is not None and window < achievement.after_us:
            yield Problem("goal.label_window", "ends before anybody can be back", "make it longer than goal.back.after")


def _check_sampling(sampling: Sampling, goal: Goal | None) -> Iterator[Problem]:
    if not 0 < sampling.fraction <= 1:
        yield Problem("sampling.fraction", "must be above 0 and at most 1")
    if sampling.max_rows is not None and not 0 < sampling.max_rows <= MAX_ROWS:
        yield Problem("sampling.max_rows", "must not be negative", "0 sets no bound")
    for name in ("fraction_true", "fraction_false", "fraction_unknown"):
        if not 0 <= getattr(sampling, name) <= 1:
            yield Problem(f"sampling.{name}", "must be from 0 to 1")
    if sampling.by_class and goal is None:
        yield Problem("sampling", "takes rows by their goal, and there is none", "give a goal")
