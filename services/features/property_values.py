"""Arrays and records as canonical JSON text, the form in which they stand in the log.

Fields are sorted by name, nothing is escaped without need, and what JSON cannot tell apart keeps its kind: an integer
has no point, a double has one, and an instant is `{"@time": microseconds}`. So equal values have equal texts.
"""

import json
import math
from typing import Any

from services.kernel.expressions import Instant

MAX_BYTES = 32 * 1024
MAX_DEPTH = 16
_TIME = "@time"

Nested = None | str | bool | int | float | Instant | list["Nested"] | dict[str, "Nested"]


class BadValueError(ValueError):
    """A value that cannot be kept; the text says why, for people."""


def to_text(value: Nested) -> str:
    """The canonical JSON of an array or record; raises BadValueError when it is too large or too deep."""
    text = json.dumps(_plain(value, 1), ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
    if len(text.encode()) > MAX_BYTES:
        raise BadValueError("is larger than 32 KiB as JSON: keep less in it")
    return text


def from_text(text: str) -> Nested:
    """The array or record of a canonical text."""
    value: Nested = json.loads(text, object_hook=_revive)
    return value


def _plain(value: Nested, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise BadValueError(f"is nested more than {MAX_DEPTH} deep: flatten it")
    if isinstance(value, Instant):
        return {_TIME: value.us}
    if isinstance(value, float) and not math.isfinite(value):
        raise BadValueError("holds NaN or an infinity: leave it out")
    if isinstance(value, list):
        return [_plain(each, depth + 1) for each in value]
    if isinstance(value, dict):
        if any(name.startswith("@") for name in value):
            raise BadValueError("has a field whose name begins with @: name it otherwise")
        return {name: _plain(each, depth + 1) for name, each in value.items()}
    return value


def _revive(fields: dict[str, Any]) -> Any:
    return Instant(fields[_TIME]) if _TIME in fields else fields
