"""Snapshots: a whole one brings the fold back as it was; anything less is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel import snapshots
from services.kernel.aggregations import Aggregation
from services.kernel.building import EventRow
from services.kernel.fold import Fold

from .evaluator import Evaluator
from .strategies import START_US, aggregations, edges, logs


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """The file of a small fold."""
    evaluator = Evaluator([])
    evaluator.apply([EventRow("a", "e", START_US, START_US, {"user": "ada"})])
    snapshots.write(evaluator.fold, tmp_path / "fold")
    return tmp_path / "fold"


@given(definitions=st.lists(aggregations(), max_size=3), log=logs(), data=st.data())
def test_a_restored_fold_goes_on_like_one_that_never_stopped(
    definitions: list[Aggregation], log: list[EventRow], data: st.DataObject
) -> None:
    evaluator = Evaluator(definitions)
    stop = data.draw(st.integers(0, len(log)))
    evaluator.apply(log[:stop])
    position = evaluator.fold.position
    evaluator.restart()
    assert evaluator.fold.position == position
    evaluator.apply(log[stop:])
    for t_us in data.draw(st.lists(st.sampled_from(edges(definitions, log)), min_size=1, max_size=4).map(sorted)):
        evaluator.check(t_us)


def test_an_empty_fold_comes_back_empty(tmp_path: Path) -> None:
    snapshots.write(Fold("log", 5), tmp_path / "fold")
    back = snapshots.read(tmp_path / "fold")
    assert (back.clock, back.position, back.engines) == ("log", 0, [])


def test_a_snapshot_cut_short_anywhere_is_refused(snapshot: Path) -> None:
    whole = snapshot.read_bytes()
    for size in (*range(40), *range(40, len(whole), max(1, len(whole) // 50)), len(whole) - 1):
        snapshot.write_bytes(whole[:size])
        with pytest.raises(snapshots.SnapshotCorrupt):
            snapshots.read(snapshot)


def test_a_snapshot_with_any_bit_flipped_is_refused(snapshot: Path) -> None:
    whole = snapshot.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 200)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        snapshot.write_bytes(bytes(changed))
        with pytest.raises(snapshots.SnapshotCorrupt):
            snapshots.read(snapshot)


def test_writing_leaves_nothing_but_the_snapshot(snapshot: Path) -> None:
    assert [path.name for path in snapshot.parent.iterdir()] == [snapshot.name]


def test_a_missing_snapshot_is_not_a_corrupt_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        snapshots.read(tmp_path / "nothing")
