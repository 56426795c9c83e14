"""Compiled loops.

Per-event loops are written in plain Python and compiled by Numba, because a batch of a few hundred events is too small
for NumPy's per-call cost times the number of aggregates, and because ordered structures (timelines, hash tables) have
no NumPy form. Compiled code releases the interpreter lock while it runs.

Numba counts references to every array that a function takes, with atomic operations, at every call: with tables of
seven or eight arrays that costs many times the work itself. Functions that only read and write arrays they are given
need no counting (`compiled`, `inlined`); one that would allocate after all does not compile. `njit` is for those that
do.

Compiled code is cached on disk, beside the source or in `NUMBA_CACHE_DIR`. Numba's own cache looks at the file of a
function only, not at those of the functions that it calls, and would run old code after a change of these; so the
folder is named after the content of the function's package and of the kernel.
"""

import hashlib
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def njit(function: F) -> F:
    """Compiles a function on its first call, cached on disk; it keeps its Python type."""
    return _compile(function)


def compiled(function: F) -> F:
    """The same for a function that allocates nothing."""
    return _compile(function, _nrt=False)


def inlined(function: F) -> F:
    """The same, and puts it into its callers: for small functions, and for those called for each property."""
    return _compile(function, _nrt=False, forceinline=True)


def _compile(function: F, **options: bool) -> F:
    config: Any = numba.config
    before = config.CACHE_DIR
    source = sys.modules[function.__module__].__file__
    config.CACHE_DIR = _cache_dir(before, Path(source or __file__).parent)
    try:
        decorate: Any = numba.njit
        return cast("F", decorate(function, cache=True, nogil=True, **options))
    finally:
        config.CACHE_DIR = before


@cache
def _cache_dir(configured: str, package: Path) -> str:
    """A folder for this content of a package, in `NUMBA_CACHE_DIR` or beside the source; else Numba's choice."""
    sources = {*package.glob("*.py"), *Path(__file__).parent.rglob("*.py")}
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources))).hexdigest()[:16]
    folder = (Path(configured) if configured else package / "__pycache__") / f"compiled-{digest}"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return str(folder)
    return configured
