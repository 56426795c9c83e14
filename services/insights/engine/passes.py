"""Passes: rows of one source added to, or taken from, all totals at once.

Each distinct condition and term is evaluated once for the rows of the pass, whatever the number of queries that share
it; then one compiled loop goes over the parts of totals with a bit for each row, so a part that concerns no row of the
pass (a category that does not occur) costs a few instructions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.insights.engine.cells import (
    COUNT,
    COUNT_WIDTH,
    SUM,
    SUM_WIDTH,
    Cells,
    Parts,
    Queue,
    accumulate,
    bit_places,
    longer,
    new_cells,
    with_room,
)
from services.insights.engine.plan import Part, Total
from services.insights.engine.pools import Bools
from services.insights.engine.ranges import Range
from services.insights.engine.rows import View
from services.insights.engine.vectors import Condition, Number, Vectors
from services.insights.language.tree import Node

CHUNK = 8192
"""The most rows of one pass."""


@dataclass
class Tables:
    """What passes write to."""

    counts: Cells
    sums: Cells
    queue: Queue
    places: NDArray[np.int64]

    @classmethod
    def empty(cls, queue: Queue) -> "Tables":
        """Nothing counted yet."""
        return cls(new_cells(COUNT_WIDTH), new_cells(SUM_WIDTH), queue, bit_places())


class Pass:
    """The parts of some totals that read one source."""

    def __init__(
        self, vectors: Vectors, totals: Mapping[int, Total], source: str, readers: Mapping[int, Sequence[int]]
    ):
        """`totals` by number; `readers`: for each the queries that are to be decided again when it changes."""
        self.ranges: dict[Range, int] = {}
        self._conditions: list[Condition] = []
        self._terms: list[Number] = []
        parts = [
            (number, total.sums, part)
            for number, total in totals.items()
            for part in total.parts
            if part.block.source == source
        ]
        self.parts = self._arrays(vectors, parts, readers)
        of = self.parts.range
        self.by_range = (
            np.searchsorted(np.sort(of), np.arange(len(self.ranges) + 1)).astype(np.int32),
            np.argsort(of, kind="stable").astype(np.int32),
        )
        """Where the parts of each range begin among all parts by range, and these."""

    def _arrays(
        self, vectors: Vectors, parts: list[tuple[int, bool, Part]], readers: Mapping[int, Sequence[int]]
    ) -> Parts:
        conditions: dict[Node, int] = {}
        terms: dict[Node, int] = {}
        flat: list[int] = []
        starts, places, ranges, query_starts = [0], [], [], [0]
        queries: list[int] = []
        for number, _, part in parts:
            for node in part.block.conditions:
                place = conditions.get(node)
                if place is None:
                    place = conditions[node] = len(self._conditions)
                    self._conditions.append(vectors.condition(node))
                flat.append(place)
            starts.append(len(flat))
            if part.term is None:
                places.append(-1)
            else:
                term = terms.get(part.term)
                if term is None:
                    term = terms[part.term] = len(self._terms)
                    self._terms.append(vectors.number(part.term))
                places.append(term)
            ranges.append(self.ranges.setdefault(part.block.range, len(self.ranges)))
            queries += readers[number]
            query_starts.append(len(queries))
        return Parts(
            np.array([number for number, _, _ in parts], np.int32),
            np.array([SUM if sums else COUNT for _, sums, _ in parts], np.int8),
            np.array(ranges, np.int32),
            np.array(places, np.int32),
            np.array(starts, np.int32),
            np.array(flat, np.int32),
            np.array(query_starts, np.int32),
            np.array(queries, np.int32),
        )

    def __len__(self) -> int:
        return len(self.parts.total)

    def inside(self, times: NDArray[np.int64], now_us: int) -> Bools:
        """For each range which of these times are inside at an instant."""
        found = np.ones((len(self.ranges), len(times)), np.bool_)
        for each, place in self.ranges.items():
            if not each.everything:
                lower, upper = each.bounds_us(now_us)
                found[place] = (times > lower) & (times <= upper)
        return found

    def evaluated(self, view: View) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
        """The conditions on rows as bits, and the terms."""
        rows = len(view)
        conditions = np.ones((max(1, len(self._conditions)), rows), np.bool_)
        for place, condition in enumerate(self._conditions):
            conditions[place] = condition(view)
        terms = np.zeros((max(1, len(self._terms)), rows), np.float64)
        for place, term in enumerate(self._terms):
            terms[place] = term(view)
        return _packed(conditions), terms

    def run(
        self, tables: Tables, states: NDArray[np.uint8], view: View, inside: Bools, signs: NDArray[np.int8]
    ) -> None:
        """Adds rows (sign 1) or takes them away (-1), where they are inside of a range."""
        rows = len(view)
        if not rows or not len(self):
            return
        packed, terms = self.evaluated(view)
        inside_bits, term_bits = _packed(inside), terms.view(np.int64)
        done, parts = 0, self.parts
        while True:
            done = accumulate(
                tables.counts,
                tables.sums,
                parts,
                done,
                packed,
                inside_bits,
                terms,
                term_bits,
                view.customers,
                signs,
                states,
                tables.queue,
                tables.places,
            )
            if done == len(self):
                return
            tables.counts, tables.sums = with_room(tables.counts, rows), with_room(tables.sums, rows)
            concerned = int(parts.query_starts[done + 1] - parts.query_starts[done])
            tables.queue = longer(tables.queue, rows * concerned)


def _packed(rows: Bools) -> NDArray[np.uint64]:
    """Booleans as bits, 64 to a word, the first the lowest."""
    count = rows.shape[1]
    packed = np.packbits(rows, axis=1, bitorder="little")
    padding = -packed.shape[1] % 8
    if padding:
        packed = np.pad(packed, ((0, 0), (0, padding)))
    assert packed.shape[1] * 8 >= count
    return np.ascontiguousarray(packed).view(np.uint64)
