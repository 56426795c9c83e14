"""How figures are printed: a title, rows of names and numbers, ratios to the floor."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Row:
    """One line: what was measured, and its numbers as text."""

    name: str
    cells: Sequence[str]


@dataclass(slots=True)
class Table:
    """One figure with its floor and peers."""

    title: str
    columns: Sequence[str]
    note: str = ""
    rows: list[Row] = field(default_factory=list)

    def add(self, name: str, *cells: float | str) -> None:
        """Adds a line; numbers get three significant digits."""
        self.rows.append(Row(name, [cell if isinstance(cell, str) else short(cell) for cell in cells]))

    def print(self) -> None:
        """Prints the table as Markdown, which docs/benchmarks.md takes as it is."""
        print(f"\n### {self.title}\n", flush=True)
        if self.note:
            print(f"{self.note}\n")
        lines = [["", *self.columns], *([row.name, *row.cells] for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns) + 1)]
        for i, line in enumerate(lines):
            cells = (line[j].ljust(widths[j]) if j == 0 else line[j].rjust(widths[j]) for j in range(len(line)))
            print(f"| {' | '.join(cells)} |")
            if i == 0:
                print(f"|{'|'.join('-' * (w + 2) if j == 0 else '-' * (w + 1) + ':' for j, w in enumerate(widths))}|")
        print(flush=True)


def short(number: float) -> str:
    """Three significant digits, with separators."""
    if number == 0:
        return "0"
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.3g}"


def median_of(rounds: Iterable[float]) -> float:
    """The middle of several rounds."""
    return statistics.median(rounds)


def percentile(values: Sequence[float], fraction: float) -> float:
    """The value that a fraction of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]
