"""One project's log as it was applied so far: the position, the instant, which ids were seen, and the evaluators."""

from typing import Any

from services.insights.evaluators import Arrays, Evaluator
from services.kernel.columns import EventBatch
from services.kernel.dedup import ADDED, REPLACED, Deduplicator
from services.kernel.erasing import Mark, pieces, subject_hash
from services.kernel.fold import ClockKind
from services.kernel.windows import MIN_US


class Course:
    """A project at one position of its log and at one instant. Not thread-safe."""

    def __init__(self, project: str, clock: ClockKind, horizon_us: int) -> None:
        self.project = project
        self.clock: ClockKind = clock
        self.deduplicator = Deduplicator(horizon_us)
        self.position = 0
        """The position of the last record applied."""
        self.now_us = MIN_US
        """The instant that everything holds at: the clock's, or the newest event's where the log is the clock."""
        self.evaluators: list[Evaluator] = []

    def apply(self, first_position: int, last_position: int, batch: EventBatch | None) -> None:
        """Applies the records of these positions; those at or before its own are passed over."""
        for first, last, piece, mark in pieces(first_position, last_position, batch):
            if last > self.position:
                self._apply(first, last, piece)
                if mark is not None:
                    self._forget(mark)

    def _apply(self, first_position: int, last_position: int, batch: EventBatch | None) -> None:
        if batch is not None and first_position <= self.position:
            batch = batch.slice(self.position - first_position + 1)
        self.position = last_position
        if batch is None or not batch.num_rows:
            return
        resolution = self.deduplicator.resolve(batch)
        times = batch.received_at
        if self.clock == "log":
            times = batch.occurred_at[(resolution.actions == ADDED) | (resolution.actions == REPLACED)]
        if len(times):
            self.now_us = max(self.now_us, int(times.max()))
        for evaluator in self.evaluators:
            evaluator.apply(batch, resolution, self.now_us, last_position)

    def _forget(self, mark: Mark) -> None:
        def is_subject(value: str) -> bool:
            return subject_hash(self.project, mark.attribute_key, value) == mark.subject

        for evaluator in self.evaluators:
            evaluator.forget(mark.attribute_key, is_subject)

    def advance(self, now_us: int) -> None:
        """Time has passed; with the log as the clock that says nothing."""
        if self.clock == "wall" and now_us > self.now_us:
            self.now_us = now_us
            for evaluator in self.evaluators:
                evaluator.advance(now_us)

    def freeze(self, told: int) -> tuple[dict[str, Any], Arrays]:
        """Its state with that of all evaluators; `told` is the sequence of the last change that was told."""
        arrays: Arrays = {f"ids.{name}": array.copy() for name, array in self.deduplicator.dump().items()}
        manifest: dict[str, Any] = {
            "clock": self.clock,
            "position": self.position,
            "now_us": self.now_us,
            "told": told,
            "evaluators": {},
        }
        for evaluator in self.evaluators:
            manifest["evaluators"][evaluator.name], parts = evaluator.freeze()
            arrays |= {f"{evaluator.name}.{name}": array for name, array in parts.items()}
        return manifest, arrays

    @classmethod
    def thaw(cls, project: str, manifest: dict[str, Any], arrays: Arrays) -> "Course":
        """Back from a snapshot, without evaluators: those are made of their own parts."""
        course = cls(project, manifest["clock"], 0)
        course.deduplicator = Deduplicator.load(named(arrays, "ids"))
        course.position, course.now_us = int(manifest["position"]), int(manifest["now_us"])
        return course


def named(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays under a prefix, without it."""
    return {name[len(prefix) + 1 :]: array for name, array in arrays.items() if name.startswith(f"{prefix}.")}
