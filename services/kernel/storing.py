"""Takes the events of a batch that concern any stream into a store of rows: for the engines that hold events."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.kernel.columns import EventBatch, key_column
from services.kernel.interning import Interner
from services.kernel.registry import Registry


class Stored(NamedTuple):
    """What was stored."""

    rows: NDArray[np.int32]
    """The numbers of the new rows in the store."""
    selected: NDArray[np.int64]
    """Which rows of the batch they are."""
    skipped_terms: int
    """Values skipped because of their type."""


def store_events(
    registry: Registry,
    key_codes: Interner,
    attribute_key: str,
    batch: EventBatch,
    adds: NDArray[np.bool_],
    id_hashes: NDArray[np.uint64],
) -> Stored:
    """Stores the events marked in `adds` that have the key and a stream that they belong to."""
    keys = batch.strings(key_column(attribute_key))
    nothing = Stored(np.empty(0, np.int32), np.empty(0, np.int64), 0)
    if keys is None:
        return nothing
    flags, terms = registry.sort_out(batch)
    wanted = adds & (keys.codes >= 0) & flags.any(axis=1)
    selected = np.flatnonzero(wanted)
    if not len(selected):
        return nothing
    codes = np.zeros(len(keys.values), np.int32)
    codes[keys.codes[selected]] = 1
    used = np.flatnonzero(codes)
    codes[used] = key_codes.codes(keys.values.take(used))
    rows = registry.memory.store.append(
        batch.occurred_at[selected],
        codes[keys.codes[selected]],
        flags[selected],
        id_hashes[selected],
        batch.event_ids,
        selected,
        [found.values[selected] for found in terms],
    )
    return Stored(rows, selected, int(sum((found.skipped & wanted).sum() for found in terms)))
