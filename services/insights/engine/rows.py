"""The rows of one source that are retained: columns of all customers' rows, each customer's rows in order of time.

Rows are numbered in the order of arrival; a row that was taken back keeps its number and is dead. A cell is one int64
whatever its type: the bits of a double, the code of a text or an array (`pools`), 0, 1 or -1 for a boolean that is
missing, microseconds. Missing numbers are NaN, missing instants `ranges.UNDEFINED_US`, missing texts and arrays empty.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.insights.engine.ranges import UNDEFINED_US
from services.insights.language.sources import SourceSchema
from services.insights.language.types import Kind, Type
from services.kernel.rows import RowStore
from services.kernel.timelines import Timelines
from services.kernel.timeorder import TimeOrder
from services.kernel.windows import MIN_US

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
RowNumbers = NDArray[np.int32]
_NAN_BITS = int(np.array([np.nan]).view(np.int64)[0])


class NewRows(NamedTuple):
    """Rows to retain, all arrays aligned."""

    customers: NDArray[np.int32]
    times: Ints
    id_hashes: NDArray[np.uint64]
    ids: tuple[NDArray[np.int32], NDArray[np.uint8]]
    """The event ids of a whole batch as UTF-8: offsets into bytes."""
    selected: Ints
    """Which of the batch's ids are those of the rows."""
    cells: list[Ints]
    """By column, in the order of `SourceRows.columns`."""


def missing_cell(kind: Type) -> int:
    """What a column of a type holds where there is no value."""
    if kind.array or kind.kind is Kind.STRING:
        return 0
    if kind.kind is Kind.NUMERIC:
        return _NAN_BITS
    return -1 if kind.kind is Kind.BOOLEAN else UNDEFINED_US


class View:
    """Some rows of a source as columns, each gathered once, when it is first asked for."""

    def __init__(self, times: Ints, customers: NDArray[np.int32], cells: list[Ints], rows: RowNumbers | slice) -> None:
        self._cells, self._rows = cells, rows
        self.times: Ints = times[rows]
        self.customers: NDArray[np.int32] = customers[rows]
        self._gathered: dict[int, Ints] = {}

    def __len__(self) -> int:
        return len(self.times)

    def ints(self, column: int) -> Ints:
        """A column's cells; -1 is the time."""
        if column < 0:
            return self.times
        found = self._gathered.get(column)
        if found is None:
            found = self._gathered[column] = self._cells[column][self._rows]
        return found

    def numbers(self, column: int) -> Floats:
        """A numeric column's cells, NaN where missing."""
        return self.ints(column).view(np.float64)


class SourceRows:
    """The retained rows of one source. Customers are the codes of one interner for all sources."""

    def __init__(self, schema: SourceSchema) -> None:
        self.schema = schema
        self.columns = {name: i for i, name in enumerate(name for name in schema.columns if name != schema.time_column)}
        """The place of each column but the time, which is the row's own."""
        self.store = RowStore(1, len(self.columns))
        self.timelines = Timelines()
        self.order = TimeOrder()
        self.dead = 0
        self.trimmed_us = MIN_US
        """Rows of this time or earlier were let go, some of them at least."""
        self._by_hash: dict[int, int] | None = None

    def __len__(self) -> int:
        return self.store.count - self.dead

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return self.store.nbytes + self.timelines.nbytes + self.order.nbytes

    def place(self, column: str) -> int:
        """The place of a column for `View`; -1 is the time."""
        return -1 if column == self.schema.time_column else self.columns[column]

    def append(self, new: NewRows) -> RowNumbers:
        """Adds rows; returns their numbers."""
        count = len(new.times)
        if not count:
            return np.empty(0, np.int32)
        rows = self.store.append(
            new.times,
            new.customers,
            np.ones((count, 1), np.uint64),
            new.id_hashes,
            new.ids,
            new.selected,
            new.cells,
        )
        self.timelines.reserve_keys(int(new.customers.max()) + 1)
        self.timelines.insert(self.store.columns, rows)
        timed = new.times != UNDEFINED_US
        self.order.add(new.times[timed], rows[timed])
        if self._by_hash is not None:
            self._by_hash.update(zip(new.id_hashes.tolist(), rows.tolist(), strict=True))
        return rows

    def find(self, id_hashes: Iterable[int]) -> RowNumbers:
        """The living rows of some event ids, in order of their numbers; ids without a row are passed over."""
        if self._by_hash is None:
            # Built when the first correction comes, and kept from then on.
            alive = self.alive(0, self.store.count)
            self._by_hash = dict(zip(self.store.columns.id_hashes[alive].tolist(), alive.tolist(), strict=True))
        found = (self._by_hash.get(each) for each in id_hashes)
        return np.array(sorted(row for row in found if row is not None), np.int32)

    def remove(self, rows: RowNumbers) -> None:
        """Takes rows back: they are dead."""
        columns = self.store.columns
        self.timelines.remove(columns, rows)
        columns.flags[rows] = 0
        self.dead += len(rows)
        if self._by_hash is not None:
            for id_hash in columns.id_hashes[rows].tolist():
                self._by_hash.pop(id_hash, None)

    def alive(self, first: int, stop: int) -> RowNumbers:
        """The living rows of a run of numbers."""
        return (first + np.flatnonzero(self.store.columns.flags[first:stop, 0])).astype(np.int32)

    def between(self, first_us: int, last_us: int) -> RowNumbers:
        """The living rows with first < time <= last."""
        rows = self.order.between(first_us + 1, last_us + 1)
        living: RowNumbers = rows[self.store.columns.flags[rows, 0] != 0]
        return living

    def of(self, customer: int) -> RowNumbers:
        """A customer's rows in order of (time, event id)."""
        if customer >= len(self.timelines.lists.length):
            return np.empty(0, np.int32)
        return self.timelines.rows_of(customer)

    def view(self, rows: RowNumbers) -> View:
        """Rows as columns."""
        columns = self.store.columns
        contiguous = (
            len(rows) > 0 and int(rows[-1]) - int(rows[0]) == len(rows) - 1 and bool((np.diff(rows) == 1).all())
        )
        chosen = slice(int(rows[0]), int(rows[-1]) + 1) if contiguous else rows
        return View(columns.times, columns.keys, self.store.terms, chosen)

    # Snapshots.

    def dump(self) -> dict[str, NDArray[np.generic]]:
        """The living rows as arrays."""
        if self.dead:
            self._drop_dead()
        return self.store.dump()

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Takes the rows back from their arrays, in place of those held."""
        self.store.load(dict(arrays))
        self._restore_order()

    def compact(self, *, at_once: bool = False) -> None:
        """Lets go of dead rows, unless told otherwise once they are more than the living."""
        if self.dead > len(self) or (at_once and self.dead):
            self._drop_dead()

    def trim(self, until_us: int) -> int:
        """Lets go of the rows of this time or earlier, and of those without a time; returns how many.

        It takes as long as a restart's sorting does, so nothing is done for less than a quarter of the rows.
        """
        columns, count = self.store.columns, self.store.count
        kept = (columns.flags[:count, 0] != 0) & (columns.times[:count] > until_us)
        dropped = len(self) - int(kept.sum())
        if until_us == MIN_US or not dropped or dropped * 4 < count:
            return 0
        self.trimmed_us = max(self.trimmed_us, until_us)
        self._keep(kept)
        return dropped

    def _drop_dead(self) -> None:
        self._keep(self.store.columns.flags[: self.store.count, 0] != 0)

    def _keep(self, kept: NDArray[np.bool_]) -> None:
        self.store.keep(kept)
        self._restore_order()

    def _restore_order(self) -> None:
        columns, count = self.store.columns, self.store.count
        rows = np.arange(count, dtype=np.int32)
        keys = int(columns.keys[:count].max()) + 1 if count else 0
        self.timelines.rebuild(columns, rows, keys)
        self.order = TimeOrder()
        timed = rows[columns.times[:count] != UNDEFINED_US]
        self.order.add(columns.times[timed], timed)
        self.dead = 0
        self._by_hash = None
