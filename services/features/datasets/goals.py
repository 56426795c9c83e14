"""The goal of a training set as the kernel's aggregations, and the instants at which keys reach it."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from services.features.compile import compile_attribute
from services.features.datasets.spec import Converted, EventGoal, Goal, InsightGoal, ReturnGoal, SumGoal
from services.features.definitions import Attribute, EventSelector, Problem, ValueType
from services.features.validation import check_attribute
from services.kernel.aggregations import Aggregation, Function
from services.kernel.asof import AsOf
from services.kernel.expressions import EventTypeIs, Expression
from services.kernel.windows import MIN_US, Rolling

ANY_EVENT = EventTypeIs()
"""Every event but the suite's own records."""
NEVER = MIN_US
"""In place of an instant that there is none."""


@dataclass(frozen=True, slots=True)
class InsightQuestion:
    """Which insight labels the rows of which keys."""

    project: str
    insight: str
    """insights/{insight}"""
    attribute_key: str
    position: int = 0
    """All records of the log up to here must be known to whoever answers."""


class InsightLabels(Protocol):
    """Whoever knows to whom an insight applied, and when. Picklable: it goes where the rows are computed.

    Asked in threads. Raises Unavailable when it cannot be asked now.
    """

    def check(self, question: InsightQuestion) -> None:
        """Raises NotFound or InvalidArgument when it could not be answered."""
        ...

    def applies(self, question: InsightQuestion, keys: pa.Array, instants_us: NDArray[np.int64]) -> NDArray[np.bool_]:
        """For each pair of a key and an instant t whether the insight applies to what happened before t."""
        ...


@dataclass(frozen=True, slots=True)
class CompiledGoal:
    """A goal that is met when an aggregate over its events is at least an amount."""

    goal: Goal
    lifetime: Aggregation
    """Over all that happened before an instant."""
    target: float
    window_us: int | None = None
    """With KEEP: how much of the label window's end counts."""

    @property
    def filter(self) -> Expression:
        """Which events can bring it about."""
        return self.lifetime.filter

    @property
    def after_creation_us(self) -> int:
        """How long after the creation the events begin to count."""
        achievement = self.goal.achievement
        return achievement.after_us if isinstance(achievement, ReturnGoal) else 0

    @property
    def aggregations(self) -> list[Aggregation]:
        """What to ask for: the lifetime's, then that of the window if there is one."""
        if self.window_us is None:
            return [self.lifetime]
        inside = Aggregation(
            self.lifetime.function, self.filter, self.lifetime.term, self.lifetime.term_type, Rolling(self.window_us)
        )
        return [self.lifetime, inside]


def goal_attribute(achievement: EventGoal | SumGoal | ReturnGoal) -> Attribute:
    """The attribute that a goal is about."""
    events = achievement.events or (EventSelector(),)
    if isinstance(achievement, SumGoal):
        return Attribute(
            name="goal",
            type=ValueType.DOUBLE,
            events=events,
            aggregation=Function.SUM,
            property=achievement.property,
            criteria=achievement.criteria,
        )
    return Attribute(
        name="goal",
        type=ValueType.INT64,
        events=events,
        aggregation=Function.COUNTER,
        criteria=achievement.criteria,
    )


def check_achievement(achievement: EventGoal | SumGoal | ReturnGoal, path: str) -> list[Problem]:
    """The mistakes of what a goal looks at."""
    attribute = goal_attribute(achievement)
    anything = not achievement.events
    problems = [
        problem
        for problem in check_attribute(attribute, path)
        if not (anything and problem.field.startswith(f"{path}.events"))
    ]
    if anything and isinstance(achievement, EventGoal) and achievement.criteria is None:
        problems.append(Problem(f"{path}.events", "are missing", "say which events, or give criteria"))
    return problems


def compile_goal(goal: Goal) -> CompiledGoal:
    """A valid goal, other than an insight, as aggregations."""
    achievement = goal.achievement
    assert not isinstance(achievement, InsightGoal), "asked of the insights"
    window_us = None
    if goal.converted is Converted.KEEP and goal.label_window_us is not None:
        window_us = goal.label_window_us
        if isinstance(achievement, ReturnGoal):
            window_us += 1 - achievement.after_us
    target = 1.0
    if isinstance(achievement, EventGoal):
        target = float(achievement.times)
    elif isinstance(achievement, SumGoal):
        target = achievement.at_least
    return CompiledGoal(goal, compile_attribute(goal_attribute(achievement)), target, window_us)


def reached(values: pa.Array, target: float) -> NDArray[np.bool_]:
    """Where an aggregate is at least an amount; nothing is not."""
    numbers = values.cast(pa.float64(), safe=False)
    return np.asarray(pc.fill_null(pc.greater_equal(numbers, target), False).to_numpy(zero_copy_only=False))


def conversions(
    goal: CompiledGoal,
    engine: AsOf,
    place: int,
    codes: NDArray[np.int32],
    creation_us: NDArray[np.int64],
    candidates: tuple[NDArray[np.int32], NDArray[np.int64]],
) -> NDArray[np.int64]:
    """When each key reached the goal for the first time; NEVER when it did not.

    `candidates` are (index of the key, event time) of every record that could bring it about, known by now; those that
    a correction took back may be among them. `place` is the lifetime's aggregation in the engine.
    """
    found = np.full(len(codes), NEVER, np.int64)
    who, when = candidates
    if goal.after_creation_us:
        late = when >= creation_us[who] + goal.after_creation_us
        who, when = who[late], when[late]
    if not len(who):
        return found
    values = engine.answer(codes[who], when + 1)[place].values
    if goal.after_creation_us:
        # Not the count since ever, but whether it grew since the day from which on it counts.
        before = engine.answer(codes[who], creation_us[who] + goal.after_creation_us)[place].values
        values = pc.subtract(pc.fill_null(values, 0), pc.fill_null(before, 0))
    met = reached(values, goal.target)
    who, when = who[met], when[met]
    order = np.lexsort((when, who))
    firsts, starts = np.unique(who[order], return_index=True)
    found[firsts] = when[order][starts]
    return found
