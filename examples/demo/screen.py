"""What the demo prints."""

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from examples.demo.attributes import MEASURES, PERIODS
from examples.demo.figures import Figures, Latencies
from inkling.client import Profile, Reading


class Screen:
    """Numbered steps with the time since the start."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._started = time.monotonic()
        self._steps = 0

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    def step(self, text: str) -> None:
        """Begins a step."""
        self._steps += 1
        self.console.print(
            f"\n[dim]{self.seconds:3.0f} s[/]  [bold cyan]{self._steps}.[/] [bold]{text}[/]", soft_wrap=True
        )

    def note(self, text: str) -> None:
        """Says something within a step."""
        self.console.print(f"   {text}", soft_wrap=True)

    def good(self, text: str) -> None:
        """Says that something holds."""
        self.console.print(f"   [bold green]✓[/] {text}", soft_wrap=True)

    def progress(self) -> Progress:
        """Bars that stay when they are full."""
        return Progress(
            *(TextColumn("   {task.description:<22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()),
            TextColumn("{task.fields[note]}"),
            console=self.console,
        )

    def profile(self, profile: Profile, remark: str) -> None:
        """One customer, a row for each measure, a column for each window."""
        table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2))
        table.add_column(f"   customer {profile.key_value}")
        for suffix in PERIODS:
            table.add_column(suffix, justify="right")
        for measure in MEASURES:
            cells = [show(profile.readings[f"{measure}_{suffix}"]) for suffix in PERIODS]
            table.add_row(f"   {measure}", *cells)
        self.console.print(table)
        self.console.print(f"   [dim]{remark}[/]\n")

    def figures(self, figures: Figures) -> None:
        """The figures beside their floors."""
        table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2))
        for name, justify in (("", "left"), ("measured", "right"), ("echo", "right")):
            table.add_column(f"   {name}" if justify == "left" else name, justify="right" if name else "left")
        rows: Sequence[tuple[str, Any, Any]] = (
            ("durable events a second", f"{figures.events_per_second:,.0f}", f"{figures.events_floor:,.0f}"),
            ("one profile of 18 values, p50 / p99", timing(figures.read), timing(figures.read_floor)),
        )
        for name, measured, floor in rows:
            table.add_row(f"   {name}", measured, floor)
        self.console.print(table)


def show(reading: Reading) -> str:
    """A value with its status, unless it is simply there."""
    if reading.value is None:
        return f"[dim]{reading.status.lower()}[/]"
    text = f"{reading.value:.2f}" if isinstance(reading.value, float) else str(reading.value)
    return text if reading.status == "PRESENT" else f"{text} [yellow]{reading.status.lower()}[/]"


def timing(latencies: Latencies) -> str:
    """Two latencies."""
    return f"{latencies.p50:.2f} / {latencies.p99:.2f} ms"
