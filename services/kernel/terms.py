"""Terms: the value that an event contributes to an aggregate, as one int64 whatever its type.

Codes of strings, integers, bits of doubles, 0 and 1, or microseconds. Values of another type are skipped and counted.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.kernel.aggregations import TermType
from services.kernel.columns import EventBatch
from services.kernel.expressions import ALL_KINDS, Property
from services.kernel.interning import Interner

_KINDS = {
    TermType.STRING: ("s",),
    TermType.INTEGER: ("i", "d"),
    TermType.NUMBER: ("d", "i"),
    TermType.BOOLEAN: ("b",),
    TermType.TIMESTAMP: ("t",),
}


class Terms(NamedTuple):
    """The terms of the rows of a batch."""

    values: NDArray[np.int64]
    present: NDArray[np.bool_]
    skipped: NDArray[np.bool_]
    """Rows with a value of another type."""


def extract(batch: EventBatch, place: Property, term_type: TermType, strings: Interner) -> Terms:
    """The terms at a place of each row, strings as codes of the interner."""
    values = np.zeros(batch.num_rows, np.int64)
    present = np.zeros(batch.num_rows, np.bool_)
    skipped = np.zeros(batch.num_rows, np.bool_)
    applies = place.applies(batch)
    for kind in ALL_KINDS:
        column = f"{place.column}:{kind}"
        if kind not in _KINDS[term_type]:
            other = batch.present(column)
            if other is not None:
                skipped |= other
        elif kind == "s":
            _take_strings(batch, column, strings, values, present)
        else:
            _take_numbers(batch, column, term_type, values, present, skipped)
    if applies is not None:
        present &= applies
        skipped &= applies
    return Terms(values, present, skipped)


def _take_strings(
    batch: EventBatch, column: str, strings: Interner, values: NDArray[np.int64], present: NDArray[np.bool_]
) -> None:
    found = batch.strings(column)
    if found is None:
        return
    codes = np.append(strings.codes(found.values), np.int32(0))
    has = found.codes >= 0
    np.copyto(values, codes[found.codes], where=has)
    present |= has


def _take_numbers(
    batch: EventBatch,
    column: str,
    term_type: TermType,
    values: NDArray[np.int64],
    present: NDArray[np.bool_],
    skipped: NDArray[np.bool_],
) -> None:
    found = batch.numbers(column)
    if found is None:
        return
    cells, has = found
    if term_type is TermType.NUMBER:
        # Adding zero makes -0.0 the same as 0.0.
        doubles = cells.astype(np.float64) + 0.0
        fits = has & np.isfinite(doubles)
        stored = doubles.view(np.int64)
    elif term_type is TermType.INTEGER and cells.dtype == np.float64:
        doubles = cells.astype(np.float64)
        fits = has & (np.abs(doubles) < 2.0**63) & (np.floor(doubles) == doubles)
        stored = np.where(fits, doubles, 0.0).astype(np.int64)
    else:
        fits, stored = has, cells.astype(np.int64)
    np.copyto(values, stored, where=fits)
    present |= fits
    skipped |= has & ~fits
