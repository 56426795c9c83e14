"""Queries that need the rows themselves: evaluated again for customers with news, and when a window passes by a row.

Each holds one instant for each customer: when time alone may next change its answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from services.insights.engine.ranges import MAX_US, UNDEFINED_US, Back
from services.insights.engine.rows import SourceRows
from services.insights.language.tree import CheckedQuery, Column, Node, Select, Within, children
from services.kernel.rows import grown


@dataclass(frozen=True, slots=True)
class Watched:
    """A column of instants, and how far behind now a window's edge goes by them; None: nobody can tell."""

    source: str
    column: str
    back: Back | None


def watched(query: CheckedQuery) -> tuple[Watched, ...]:
    """Every window edge of a query."""
    found: dict[Watched, None] = {}
    for root in (query.where, query.having):
        if root is not None:
            _collect(root, query.source, found)
    return tuple(found)


def _collect(node: Node, source: str, found: dict[Watched, None]) -> None:
    if isinstance(node, Within):
        given = node.operand
        operand, of = (given.term, given.source) if isinstance(given, Select) else (given, source)
        known = node.period.constant is not None and isinstance(operand, Column)
        back = Back(*node.period.constant) if known and node.period.constant is not None else None
        found[Watched(of, operand.name if isinstance(operand, Column) else "", back)] = None
    inner = node.source if isinstance(node, Select) else source
    for child in children(node):
        _collect(child, inner, found)


@dataclass
class Timers:
    """When time alone may next change the answers of one recomputed query, by customer."""

    edges: tuple[Watched, ...]
    due_us: NDArray[np.int64] = field(default_factory=lambda: np.full(64, MAX_US, np.int64))
    next_us: int = MAX_US
    """Not after the least of them."""

    def set(self, customer: int, at_us: int | None) -> None:
        """The next instant for a customer."""
        if customer >= len(self.due_us):
            size = max(2 * len(self.due_us), customer + 1)
            filled = len(self.due_us)
            self.due_us = grown(self.due_us, size)
            self.due_us[filled:] = MAX_US
        at = MAX_US if at_us is None else at_us
        self.due_us[customer] = at
        self.next_us = min(self.next_us, at)

    def restore(self, due_us: NDArray[np.int64]) -> None:
        """Takes the instants of all customers back."""
        self.due_us, self.next_us = due_us, int(due_us.min())

    @property
    def steps(self) -> bool:
        """Whether it can be told at which instants time may change answers."""
        return all(edge.back is not None for edge in self.edges)

    def take_due(self, now_us: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The customers whose instant has come, and the instants; they have none until the next is set."""
        if now_us < self.next_us:
            return np.empty(0, np.int32), np.empty(0, np.int64)
        due = np.flatnonzero(self.due_us <= now_us).astype(np.int32)
        instants = self.due_us[due]
        self.due_us[due] = MAX_US
        self.next_us = int(self.due_us.min())
        return due, instants

    def next_change_us(self, sources: Mapping[str, SourceRows], customer: int, now_us: int) -> int | None:
        """The next now at which a row of a customer passes an edge, or None."""
        found: list[int] = []
        for edge in self.edges:
            if edge.back is None:
                found.append(now_us + 1)
                continue
            rows = sources[edge.source]
            times = rows.view(rows.of(customer)).ints(rows.place(edge.column))
            ahead = times[(times > edge.back.cutoff_us(now_us)) & (times != UNDEFINED_US)]
            if len(ahead):
                found.append(edge.back.passes_us(int(ahead.min())))
        return min(found, default=None)
