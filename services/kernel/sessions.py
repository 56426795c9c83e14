"""Windows with a ttl: the last run of events of a key in which each is less than the ttl after the one before."""

import numpy as np
from numpy.typing import NDArray

from services.kernel.aggregates.base import Memory
from services.kernel.jit import compiled
from services.kernel.rows import Bit, Rows
from services.kernel.timelines import Lists, lower_bound
from services.kernel.windows import MIN_US

_LATEST = np.int64(2**63 - 1)


def settle_sessions(
    memory: Memory,
    starts: NDArray[np.int64],
    bit: Bit,
    ttl_us: int,
    rows: NDArray[np.int32],
    keys: NDArray[np.int32],
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Finds where the runs of keys start now, and which rows therefore leave and enter.

    `rows` came inside just now and were not counted before; `keys` lost rows, which are gone already. `starts` holds
    where each key's run started before, and is brought up to date.
    """
    columns, lists = memory.store.columns, memory.timelines.lists
    concerned = np.unique(np.concatenate([columns.keys[rows], keys])).astype(np.int32)
    lost = np.zeros(len(concerned), np.bool_)
    lost[np.searchsorted(concerned, keys)] = True
    oldest = np.full(len(concerned), _LATEST, np.int64)
    np.minimum.at(oldest, np.searchsorted(concerned, columns.keys[rows]), columns.times[rows])
    room = int(lists.length[concerned].sum())
    leaving, entering = np.empty(room, np.int32), np.empty(room, np.int32)
    left, entered = _settle(
        lists,
        columns,
        concerned,
        lost,
        oldest,
        starts,
        *bit,
        np.int64(ttl_us),
        np.int64(memory.now_us),
        np.sort(rows),
        leaving,
        entering,
    )
    return leaving[:left], entering[:entered]


@compiled
def _settle(
    lists: Lists,
    columns: Rows,
    keys: NDArray[np.int32],
    lost: NDArray[np.bool_],
    oldest: NDArray[np.int64],
    starts: NDArray[np.int64],
    word: int,
    mask: np.uint64,
    ttl: np.int64,
    now: np.int64,
    fresh: NDArray[np.int32],
    leaving: NDArray[np.int32],
    entering: NDArray[np.int32],
) -> tuple[int, int]:
    left = 0
    entered = 0
    for k in range(len(keys)):
        key = keys[k]
        before = starts[key]
        inside = lower_bound(lists, columns, key, now)
        start = _start_of_run(lists, columns, key, inside, word, mask, ttl, before, fresh, lost[k])
        starts[key] = start
        for i in range(inside - 1, -1, -1):
            row = lists.pool[lists.start[key] + i]
            time = columns.times[row]
            # Further back nothing was counted and nothing belongs, or the run goes on as it was.
            if (time < before and time < start) or (start == before and time < oldest[k]):
                break
            counted = time >= before and not _is_fresh(fresh, row)
            if counted and time < start:
                leaving[left] = row
                left += 1
            elif time >= start and not counted:
                entering[entered] = row
                entered += 1
    return left, entered


@compiled
def _is_fresh(fresh: NDArray[np.int32], row: int) -> bool:
    place = np.searchsorted(fresh, row)
    return bool(place < len(fresh) and fresh[place] == row)


@compiled
def _start_of_run(
    lists: Lists,
    columns: Rows,
    key: int,
    inside: int,
    word: int,
    mask: np.uint64,
    ttl: np.int64,
    before: np.int64,
    fresh: NDArray[np.int32],
    lost: bool,
) -> np.int64:
    """The time of the first event of the last run before the index `inside`; the least instant when there is none."""
    start = np.int64(MIN_US)
    i = inside - 1
    while i >= 0:
        row = lists.pool[lists.start[key] + i]
        time = columns.times[row]
        if columns.flags[row, word] & mask:
            if start != MIN_US and start - time >= ttl:
                break
            start = time
            if not lost and before != MIN_US and time >= before and not _is_fresh(fresh, row):
                # This row belongs to the run as it was: from here back to its start nothing is missing.
                start = before
                i = lower_bound(lists, columns, key, before)
        i -= 1
    return start
