"""Ingest over gRPC, durable.

CPU is the server process's, user and system, in microseconds an event (8 properties and 2 keys, 320 bytes, batches
of 500); the callers are another process on the same machine. Floors, from the same run: a bare server that answers the
same bytes (echo), and one that appends them unread to the same log with the same fsync (append). `memory` puts the log
where an fsync costs nothing. Medians of interleaved rounds.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc.aio
import uvloop

from benchmarks.ingest_requests import request
from benchmarks.tables import Table, median_of

METHOD = "/inkling.ingest.v1.IngestService/Ingest"
EVENTS, ROUNDS, SECONDS = 500, 3, 1.0
_TICKS = os.sysconf("SC_CLK_TCK")
_MEMORY = Path("/dev/shm")


class Target:
    """A running server."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self.process = process
        self.port = port

    def cpu_seconds(self) -> float:
        """What the server used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


@contextlib.contextmanager
def floor(mode: str, folder: Path) -> Iterator[Target]:
    """A bare server."""
    command = (sys.executable, "-m", "benchmarks.echo_server", mode, str(folder))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Target(process, int(process.stdout.readline()))
        finally:
            process.kill()


@contextlib.contextmanager
def ingest(folder: Path) -> Iterator[Target]:
    """The real one."""
    environ = {
        **os.environ,
        "INKLING_INGEST_DATA_DIR": str(folder),
        "INKLING_INGEST_PORT": "0",
        "INKLING_INGEST_INSECURE": "true",
        "INKLING_INGEST_ARCHIVE": "false",
        "INKLING_INGEST_LOG_FORMAT": "text",
        "INKLING_INGEST_DRAIN_SECONDS": "0",
    }
    command = (sys.executable, "-m", "services.ingest")
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        port = 0
        for line in process.stdout:
            if "port=" in line:
                port = int(line.rpartition("port=")[2].split()[0])
            if "serving" in line:
                break
        try:
            yield Target(process, port)
        finally:
            process.terminate()


async def load(target: Target, callers: int, payloads: list[bytes], seconds: float) -> tuple[float, float]:
    """(CPU µs an event, events a second) of so many callers, each with its next batch as soon as one is answered."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{target.port}") as channel:
        send = channel.unary_unary(METHOD)
        sent = 0

        async def call(until: float) -> None:
            nonlocal sent
            while time.perf_counter() < until:
                await send(payloads[sent % len(payloads)])
                sent += 1

        await asyncio.gather(*(call(time.perf_counter() + 0.1) for _ in range(callers)))
        sent, started, cpu = 0, time.perf_counter(), target.cpu_seconds()
        await asyncio.gather(*(call(started + seconds) for _ in range(callers)))
        events = sent * EVENTS
        return (target.cpu_seconds() - cpu) / events * 1e6, events / (time.perf_counter() - started)


def run() -> list[Table]:
    """Measures and tabulates."""
    payloads = [request(EVENTS, seed).SerializeToString() for seed in range(20)]
    callers = (1, 4, 16)
    columns = [f"{text}, {count} callers" for text in ("CPU µs", "events/s") for count in callers]
    note = (
        "Durable; CPU of the server process in µs an event of 8 properties and 2 keys; medians of rounds that take "
        "turns. Floors: a bare gRPC server that answers the same bytes (echo), and one that appends them unread to the "
        "same log with the same fsync (append). In memory, an fsync costs nothing. Budget: 4 µs, in sight of 3."
    )
    table = Table(f"Ingest over gRPC, batches of {EVENTS}", columns, note)
    with contextlib.ExitStack() as stack:

        def folder(root: Path | None = None) -> Path:
            return Path(stack.enter_context(tempfile.TemporaryDirectory(dir=root)))

        targets = {"ingest": stack.enter_context(ingest(folder()))}
        if _MEMORY.is_dir():
            targets["ingest, memory"] = stack.enter_context(ingest(folder(_MEMORY)))
        targets["floor: append"] = stack.enter_context(floor("append", folder()))
        targets["floor: echo"] = stack.enter_context(floor("echo", folder()))
        measured = {name: {count: list[tuple[float, float]]() for count in callers} for name in targets}
        for _ in range(ROUNDS):
            for name, target in targets.items():
                for count in callers:
                    measured[name][count].append(uvloop.run(load(target, count, payloads, SECONDS)))
    for name, by_callers in measured.items():
        cells = [median_of(one[place] for one in by_callers[count]) for place in (0, 1) for count in callers]
        table.add(name, *cells)
    return [table]


if __name__ == "__main__":
    for each in run():
        each.print()
