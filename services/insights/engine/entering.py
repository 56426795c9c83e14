"""Events and plain values as rows to retain."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.insights.direct.outcome import Cell
from services.insights.engine.pools import Bools, Pools
from services.insights.engine.ranges import UNDEFINED_US
from services.insights.engine.rows import Ints, NewRows, missing_cell
from services.insights.language.sources import SourceSchema
from services.insights.language.types import Kind, Type
from services.kernel.columns import EventBatch, key_column
from services.kernel.expressions import EventTypeIs
from services.kernel.interning import Interner


@dataclass(frozen=True)
class Binding:
    """Which events are the rows of a source, and where its columns are in them."""

    schema: SourceSchema
    attribute_key: str
    events: EventTypeIs
    places: Mapping[str, str]
    """By column but the time, which is the event's: where it is in a batch, without the kind, such as `a.amount`."""
    signed: tuple[str, str] | None = None
    """A numeric column and the text column that says its sign: `debit` is negative, `credit` is not."""


def hash_of(event_id: str) -> int:
    """What plain values' ids are told apart by."""
    return int.from_bytes(hashlib.blake2b(event_id.encode(), digest_size=8).digest(), "little")


def from_values(
    schema: SourceSchema,
    pools: Pools,
    customers: Interner,
    names: Sequence[str],
    ids: Sequence[str],
    columns: Mapping[str, Sequence[Cell]],
) -> NewRows:
    """Rows from lists of values; a column that is absent is missing in all, and so is None."""
    count = len(names)
    encoded = [event_id.encode() for event_id in ids]
    offsets = np.cumsum([0, *map(len, encoded)]).astype(np.int32)
    absent = [None] * count
    times = [UNDEFINED_US if each is None else each for each in columns.get(schema.time_column, absent)]
    return NewRows(
        customers.codes(pa.array(names, pa.string())),
        np.array(times, np.int64),
        np.array([hash_of(event_id) for event_id in ids], np.uint64),
        (offsets, np.frombuffer(b"".join(encoded), np.uint8)),
        np.arange(count),
        [
            np.array([_cell(value, kind, pools) for value in columns.get(name, absent)], np.int64)
            for name, kind in schema.columns.items()
            if name != schema.time_column
        ],
    )


def _cell(value: Cell, kind: Type, pools: Pools) -> int:
    if value is None:
        return missing_cell(kind)
    if isinstance(value, tuple):
        return pools.arrays.code(value)  # type: ignore[arg-type]
    if kind.kind is Kind.STRING:
        return pools.code(str(value))
    if kind.kind is Kind.NUMERIC:
        number = float(value)
        return int(np.float64(number).view(np.int64)) if np.isfinite(number) else missing_cell(kind)
    return int(value)


def from_events(
    binding: Binding, pools: Pools, customers: Interner, batch: EventBatch, adds: Bools, id_hashes: NDArray[np.uint64]
) -> NewRows | None:
    """The rows that the events marked in `adds` are, if any: those of the source's type, with its key."""
    keys = batch.strings(key_column(binding.attribute_key))
    if keys is None:
        return None
    selected = np.flatnonzero(adds & (keys.codes >= 0) & binding.events.evaluate(batch))
    if not len(selected):
        return None
    codes = np.zeros(len(keys.values), np.int32)
    used = np.unique(keys.codes[selected])
    codes[used] = customers.codes(keys.values.take(pa.array(used)))
    columns = {
        name: _column(batch, binding.places[name], kind, pools)[selected]
        for name, kind in binding.schema.columns.items()
        if name != binding.schema.time_column
    }
    if binding.signed is not None:
        _sign(columns, *binding.signed, pools)
    return NewRows(
        codes[keys.codes[selected]],
        batch.occurred_at[selected],
        id_hashes[selected],
        batch.event_ids,
        selected,
        list(columns.values()),
    )


def _column(batch: EventBatch, place: str, kind: Type, pools: Pools) -> Ints:
    """A column's cells; a value of another kind is missing."""
    cells = np.full(batch.num_rows, missing_cell(kind), np.int64)
    if kind.array:
        _take_lists(batch, f"{place}:l", pools, cells)
    elif kind.kind is Kind.STRING:
        found = batch.strings(f"{place}:s")
        if found is not None:
            by_code = np.append(pools.texts.codes(found.values), np.int32(0))
            np.copyto(cells, by_code[found.codes], where=found.codes >= 0)
    elif kind.kind is Kind.NUMERIC:
        _take_texts_as_numbers(batch, f"{place}:s", cells)
        for letter in "id":
            numbers = batch.numbers(f"{place}:{letter}")
            if numbers is not None:
                doubles = numbers[0].astype(np.float64)
                np.copyto(cells, doubles.view(np.int64), where=numbers[1] & np.isfinite(doubles))
    else:
        numbers = batch.numbers(f"{place}:{'b' if kind.kind is Kind.BOOLEAN else 't'}")
        if numbers is not None:
            np.copyto(cells, numbers[0].astype(np.int64), where=numbers[1])
    return cells


def _take_lists(batch: EventBatch, column: str, pools: Pools, cells: Ints) -> None:
    array = batch.column(column)
    if array is None:
        return
    for row, value in enumerate(array.to_pylist()):
        if value:
            cells[row] = pools.arrays.code(tuple(text for text in value if text is not None))


def _take_texts_as_numbers(batch: EventBatch, column: str, cells: Ints) -> None:
    """Amounts may come as decimal texts; what is none is missing."""
    found = batch.strings(column)
    if found is None:
        return
    numbers = np.full(len(found.values) + 1, np.nan)
    for code, text in enumerate(found.values.to_pylist()):
        try:
            number = float(text)
        except ValueError:
            continue
        numbers[code] = number if np.isfinite(number) else np.nan
    np.copyto(cells, numbers[found.codes].view(np.int64), where=found.codes >= 0)


def _sign(columns: dict[str, Ints], amount: str, indicator: str, pools: Pools) -> None:
    amounts, indicators = np.abs(columns[amount].view(np.float64)), columns[indicator]
    given = columns[amount].view(np.float64)
    debit, credit = pools.code("debit"), pools.code("credit")
    signed = np.where(indicators == debit, -amounts, np.where(indicators == credit, amounts, given))
    columns[amount] = signed.view(np.int64)
