"""Compiled loops.

Per-event loops of the kernel are written in plain Python and compiled by Numba, because a batch of a few hundred events
is too small for NumPy's per-call cost times the number of aggregates, and because ordered structures (timelines,
hash tables) have no NumPy form. Compiled code is cached beside the source, or in `NUMBA_CACHE_DIR`, and releases the
interpreter lock while it runs.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def njit(function: F) -> F:
    """Compiles a function on first call, in no-Python mode, cached on disk; it keeps its Python type."""
    return cast("F", numba.njit(function, cache=True, nogil=True))
