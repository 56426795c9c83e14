"""Compiled loops that allocate nothing.

Numba counts references to every array that a function takes, with atomic operations, at every call; with tables of
eight arrays and calls for each property that was twenty times the work itself. Functions that only read and write
arrays they are given need no counting. One that would allocate after all does not compile.

Compiled code is cached on disk. Numba's own cache looks at the file of a function only, not at those of the functions
that it calls, and would run old code after a change of these; so the cache here is named after the content of the
whole package.
"""

import hashlib
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, cast

import numba

from services.kernel.jit import F


def compiled(function: F) -> F:
    """Compiles a function that allocates nothing on its first call, cached on disk, releasing the interpreter lock."""
    return _compile(function, forceinline=False)


def inlined(function: F) -> F:
    """The same, and puts it into its callers: for small functions, and for those called once for each property."""
    return _compile(function, forceinline=True)


def _compile(function: F, *, forceinline: bool) -> F:
    config: Any = numba.config
    options: dict[str, Any] = {"cache": True, "nogil": True, "_nrt": False, "forceinline": forceinline}
    before = config.CACHE_DIR
    config.CACHE_DIR = _cache_dir(before)
    try:
        return cast("F", numba.njit(function, **options))
    finally:
        config.CACHE_DIR = before


@cache
def _cache_dir(configured: str) -> str:
    """A folder for this content of the package, in `NUMBA_CACHE_DIR` or beside the source; else Numba's choice."""
    package = Path(__file__).parent
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(package.glob("*.py")))).hexdigest()[:16]
    folder = (Path(configured) if configured else package / "__pycache__") / f"compiled-{digest}"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return str(folder)
    return configured
