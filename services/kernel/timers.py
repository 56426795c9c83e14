"""When time alone changes values, and whose it has changed."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from services.kernel.aggregates.base import Bounds, Memory
from services.kernel.timeorder import TimeOrder
from services.kernel.windows import Lifetime


def next_change_us(memory: Memory, all_bounds: Iterable[Bounds], order: TimeOrder) -> int | None:
    """The next instant t at which time alone changes a value of any key, or None. Not counted: the time since."""
    found: list[int] = []
    pending = order.next_time(memory.now_us)
    if pending is not None:
        found.append(pending + 1)
    for bounds in all_bounds:
        if bounds.ttl_us is not None:
            last = order.next_time(memory.now_us - bounds.ttl_us)
            found += [] if last is None else [last + bounds.ttl_us + 1]
        elif not isinstance(bounds.window, Lifetime):
            oldest = order.next_time(bounds.lower_us)
            leaves = None if oldest is None else bounds.window.leaves_at_us(oldest)
            found += [] if leaves is None else [leaves]
    return min(found, default=None)


def keys_moved_since(
    memory: Memory, all_bounds: Iterable[Bounds], order: TimeOrder, t_us: int
) -> list[NDArray[np.int32]]:
    """The keys of rows that came inside or went out of a window because time passed since an instant."""
    keys = memory.store.columns.keys
    found = [keys[order.between(t_us, memory.now_us)]]
    for bounds in all_bounds:
        if bounds.ttl_us is not None:
            first, last = t_us - bounds.ttl_us, memory.now_us - bounds.ttl_us
        else:
            first, last = bounds.window.lower_bound_us(t_us), bounds.lower_us
        found.append(keys[order.between(first, last)])
    return found
