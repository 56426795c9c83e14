"""Segments that look at the same profiles read each column once, and find what they would find alone."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
from prometheus_client import CollectorRegistry

from services.features.metrics import SegmentMetrics
from services.features.segments.binding import SharedReadings
from services.features.segments.live import LiveSegment, alike
from services.features.segments.universe import Universe


@dataclass
class Reader:
    """Counts how often it is asked."""

    place: str
    asked: int = 0

    def many(self, numbers: Any, now_us: int) -> pa.Array:
        self.asked += 1
        return pa.array(numbers + now_us)


def test_readers_of_one_place_are_asked_once() -> None:
    readers: list[Any] = [Reader("a"), Reader("a"), Reader("b")]
    shared, numbers = SharedReadings(), np.arange(3, dtype=np.int32)
    found = [shared.read(reader, numbers, 5).to_pylist() for reader in readers]
    assert found == [[5, 6, 7]] * 3
    assert [reader.asked for reader in readers] == [1, 0, 1]


def test_segments_with_the_same_profiles_are_looked_at_together() -> None:
    users, accounts = Universe("user_id"), Universe("account_id")
    users.take_in(pa.array(["u1", "u2", "u3"]))
    accounts.take_in(pa.array(["a1", "a2", "a3"]))
    lives: list[Any] = [LiveSegment(definition, each) for definition, each in enumerate((users, users, accounts))]  # type: ignore[arg-type]
    found: list[Any] = [([live.definition for live in group], due.tolist()) for group, due in alike(lives, 0)]
    assert found == [([0, 1], [0, 1, 2]), ([2], [0, 1, 2])]
    for live in lives:
        live.settle()
    lives[1].look_at(np.array([2], np.int32))
    found = [([live.definition for live in group], due.tolist()) for group, due in alike(lives, 0)]
    assert found == [([0], []), ([1], [2]), ([2], [])]


def test_metrics_tell_of_each_segment() -> None:
    live: Any = LiveSegment(SimpleNamespace(segment_id="pros"), Universe("user_id"))  # type: ignore[arg-type]
    live.members.enter(np.arange(3, dtype=np.int32), 7)
    live.counts.changes, live.counts.evaluations, live.counts.seconds = 4, 50, 0.25
    project = SimpleNamespace(project=SimpleNamespace(name="shop"), all=lambda: [live])
    registry = CollectorRegistry()
    registry.register(SegmentMetrics(SimpleNamespace(opened=lambda: [project])))  # type: ignore[arg-type]
    names = ("members", "changes_total", "evaluations_total", "seconds_total")
    labels = {"project": "shop", "segment": "pros"}
    found = [registry.get_sample_value(f"inkling_features_segment_{name}", labels) for name in names]
    assert found == [3, 4, 50, 0.25]
