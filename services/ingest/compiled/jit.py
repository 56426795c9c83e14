"""Compiled loops that allocate nothing.

Numba counts references to every array that a function takes, with atomic operations, at every call; with tables of
eight arrays and calls for each property that was twenty times the work itself. Functions that only read and write
arrays they are given need no counting. One that would allocate after all does not compile.
"""

from typing import Any, cast

import numba

from services.kernel.jit import F


def compiled(function: F) -> F:
    """Compiles a function that allocates nothing on its first call, cached on disk, releasing the interpreter lock."""
    return cast("F", numba.njit(function, **_options(forceinline=False)))


def inlined(function: F) -> F:
    """The same, and puts it into its callers: for small functions, and for those called once for each property."""
    return cast("F", numba.njit(function, **_options(forceinline=True)))


def _options(*, forceinline: bool) -> dict[str, Any]:
    return {"cache": True, "nogil": True, "_nrt": False, "forceinline": forceinline}
