"""What the SQLite log costs on top of the disk.

Each row appends the same batches from so many concurrent callers. The floor, from the same run, appends the same bytes
to a plain file with one fdatasync for each group of as many batches as there are callers: what an ideal group commit
would do. Medians of interleaved rounds. `cpu` is this process's user and system time.
"""

import asyncio
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable
from pathlib import Path
from random import Random
from typing import NamedTuple

from benchmarks.tables import Table
from services.ingest.log.sqlite import SqliteEventLog
from services.kernel.building import EventRow, build_batch
from services.kernel.columns import to_ipc


class Cost(NamedTuple):
    """Microseconds an event."""

    wall: float
    cpu: float


async def measure(work: Awaitable[None], events: int) -> Cost:
    """Times one piece of work."""
    wall, cpu = time.perf_counter(), time.process_time()
    await work
    return Cost((time.perf_counter() - wall) * 1e6 / events, (time.process_time() - cpu) * 1e6 / events)


def median(costs: list[Cost]) -> Cost:
    """The middle of several rounds."""
    return Cost(statistics.median(cost.wall for cost in costs), statistics.median(cost.cpu for cost in costs))


def sample(rows: int) -> bytes:
    """A batch of events with 8 properties, as ingest stores it."""
    random = Random(1)
    return to_ipc(
        build_batch(
            EventRow(
                str(uuid.UUID(int=random.getrandbits(128))),
                "purchase",
                1_700_000_000_000_000 + i * 1_000,
                1_700_000_000_000_000 + i,
                {"user_id": f"user-{i * 31 % 1000}"},
                properties={f"p{j}": f"value {(i * j) % 97}" if j < 4 else i * j / 8 for j in range(8)},
            )
            for i in range(rows)
        )
    )


async def floor(path: Path, data: bytes, batches: int, callers: int) -> None:
    """The same bytes to a plain file."""
    descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    try:
        for _ in range(batches // callers):
            for _ in range(callers):
                os.write(descriptor, data)
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


async def through_log(path: Path, data: bytes, rows: int, batches: int, callers: int) -> None:
    """The same bytes through the log, until the last is acknowledged."""
    log = await SqliteEventLog.open(path)

    async def caller() -> None:
        for _ in range(batches // callers):
            await log.append("bench", data, rows, min_occurred_us=1, max_occurred_us=2, received_us=3)

    await asyncio.gather(*(caller() for _ in range(callers)))
    await log.close()


async def tabulate(events: int, rounds: int) -> Table:
    """Rounds of floor and log take turns."""
    table = Table(
        "The SQLite log, µs an event",
        ["batch", "bytes", "callers", "floor", "floor CPU", "log", "log CPU", "log less floor"],
        "Floor: the same bytes written to a plain file, with one fdatasync for each group of callers. Medians.",
    )
    for rows, callers in ((500, 1), (500, 4), (500, 16), (2000, 4), (50, 16)):
        data = sample(rows)
        batches = events // rows // callers * callers
        count = batches * rows
        costs: dict[str, list[Cost]] = {"floor": [], "log": [], "top": []}
        for number in range(rounds):
            with tempfile.TemporaryDirectory() as place:
                lowest = await measure(floor(Path(place) / f"{number}.bin", data, batches, callers), count)
                log = await measure(through_log(Path(place) / f"{number}.db", data, rows, batches, callers), count)
                costs["floor"].append(lowest)
                costs["log"].append(log)
                costs["top"].append(Cost(log.wall - lowest.wall, log.cpu - lowest.cpu))
        lowest, log, top = (median(costs[name]) for name in ("floor", "log", "top"))
        cells = (lowest.wall, lowest.cpu, log.wall, log.cpu, top.wall)
        table.add("append", f"{rows:,}", f"{len(data):,}", str(callers), *cells)
    return table


def run() -> list[Table]:
    """Measures and tabulates."""
    return [asyncio.run(tabulate(100_000, 5))]


if __name__ == "__main__":
    for each in run():
        each.print()
