"""Applies a part of a log to a fold, and forgets the keys of the subjects that were erased in it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.kernel.columns import EventBatch
from services.kernel.engine import Engine
from services.kernel.erasing import Mark, pieces, subject_hash
from services.kernel.fold import Fold


class Forgotten(NamedTuple):
    """A key that an engine forgot."""

    engine: Engine
    value: str
    touched: NDArray[np.int32]
    """The codes that forgetting touched: the key's. Nobody is told of it, as it has no text any more."""


def apply(
    fold: Fold,
    project: str,
    first_position: int,
    last_position: int,
    batch: EventBatch | None,
    values: Mapping[str, str] | None = None,
    tell: Callable[[], None] | None = None,
) -> list[Forgotten]:
    """As `Fold.apply`; at each marker of an erasure the engines of its attribute key forget the key value it means.

    `values` has those of subjects (by hash) that the caller knows; others are found by hashing the engines' keys, which
    takes a second for a million of them. `tell` is called before a key is forgotten: whoever is to hear of keys that
    changed must hear of them while they have their texts.
    """
    forgotten: list[Forgotten] = []
    for first, last, piece, mark in pieces(first_position, last_position, batch):
        if last <= fold.position and mark is None:
            continue
        applied = fold.position
        fold.apply(first, last, piece)
        if mark is not None and last > applied:
            if tell is not None:
                tell()
            forgotten += forget(fold, project, mark, values or {})
    return forgotten


def forget(fold: Fold, project: str, mark: Mark, values: Mapping[str, str]) -> list[Forgotten]:
    """Has the engines of a fold forget the key value that a marker means."""
    forgotten: list[Forgotten] = []
    value = values.get(mark.subject)
    for engine in fold.engines:
        if engine.attribute_key == mark.attribute_key:
            found = value if value is not None else _find(engine, project, mark)
            if found is not None and engine.forget_key(found):
                forgotten.append(Forgotten(engine, found, engine.touched()))
                continue
        # Events of the subject that were taken back left texts here too: also those that never counted.
        engine.forget_retracted()
    return forgotten


def _find(engine: Engine, project: str, mark: Mark) -> str | None:
    for value in list(engine.keys()):
        if subject_hash(project, mark.attribute_key, value) == mark.subject:
            return value
    return None
