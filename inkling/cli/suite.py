"""The services of one machine as child processes: started in order, watched, stopped in reverse."""

import asyncio
import contextlib
import fcntl
import os
import secrets
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import grpc

from inkling.client.asynchronous import PORTS

HEALTH_METHOD = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"
"""A HealthCheckResponse that says SERVING."""

START_SECONDS = 180.0
"""How long a service may take until it is healthy: the first start on a machine compiles the kernel's loops."""


class SuiteError(Exception):
    """The services cannot be run; the text says why, for people."""


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One service: its port, what `python -m` runs, and the services whose addresses it is told."""

    name: str
    port: int
    module: str
    needs: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        """How its environment variables begin."""
        return f"INKLING_{self.name.upper()}_"


SERVICES = (
    ServiceSpec("ingest", PORTS["ingest"], "services.ingest", needs=("insights",)),
    ServiceSpec("features", PORTS["features"], "services.features", needs=("ingest", "insights")),
    ServiceSpec("insights", PORTS["insights"], "services.insights", needs=("ingest", "features")),
)
"""The services, each after those that it needs to start; ingest and features ask insights only later, if they run."""


@dataclass(frozen=True, slots=True)
class Pauses:
    """Before a service that ended is started again, in seconds: doubled with each end until it has run for a while."""

    first: float = 1.0
    longest: float = 60.0
    steady: float = 120.0


PAUSES = Pauses()

LineSink = Callable[[str, str], None]
"""Takes a service's name and one line of its output."""


class Suite:
    """The services of one data folder.

        async with Suite(Path(".data"), on_line=print) as suite:
            await suite.start()
            await suite.keep(print)

    `ports` overrides ports by service name (0 takes a free one). `environ` is what the processes inherit; addresses,
    the data folder and the key that services show each other are decided here.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        environ: Mapping[str, str],
        ports: Mapping[str, int] | None = None,
        services: Sequence[ServiceSpec] = SERVICES,
        on_line: LineSink = lambda name, line: None,
    ) -> None:
        self.data_dir = data_dir
        self._environ = dict(environ)
        self._specs = {spec.name: spec for spec in services}
        self._ports = {spec.name: (ports or {}).get(spec.name, spec.port) for spec in services}
        self._on_line = on_line
        self._service_key = secrets.token_urlsafe(32)
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._tails: dict[str, deque[str]] = {}
        self._lock: IO[str] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The services, in the order in which they start."""
        return tuple(self._specs)

    def address(self, name: str) -> str:
        """Where a service listens."""
        return f"127.0.0.1:{self._ports[name]}"

    def pid(self, name: str) -> int:
        """The process of a service."""
        return self._processes[name].pid

    def reserve(self) -> None:
        """Takes the folder and looks for the ports, before anything is started. SuiteError when somebody has them."""
        if self._lock is None:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            self._lock = take_lock(self.data_dir)
            for name, port in self._ports.items():
                self._ports[name] = free_port(name, port)

    async def start(self, *, timeout: float = START_SECONDS) -> None:
        """Starts all services and waits until each is healthy. SuiteError with its last words when one is not."""
        self.reserve()
        for name in self._specs:
            await self.start_one(name, timeout=timeout)

    async def start_one(self, name: str, *, timeout: float = START_SECONDS) -> None:
        """Starts one service, for the first time or again, and waits until it is healthy."""
        spec = self._specs[name]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", spec.module),
            env=self._environment(spec),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # A group of its own: an interrupt at the terminal reaches the supervisor only, which then stops in order.
            start_new_session=True,
            limit=1 << 20,
        )
        self._processes[name] = process
        self._tails[name] = deque(maxlen=15)
        self._readers[name] = asyncio.create_task(self._read(name, process))
        try:
            async with asyncio.timeout(timeout):
                await self._until_healthy(name, process)
        except TimeoutError:
            raise SuiteError(f"{name} is not healthy after {timeout:.0f} s{self._last_words(name)}") from None

    async def keep(self, tell: Callable[[str], None], pauses: Pauses = PAUSES) -> None:
        """Starts services again that end by themselves, at their addresses; without end. Cancel it before `stop`.

        `tell` is given what happens, for people.
        """
        async with asyncio.TaskGroup() as group:
            for name in self._processes:
                group.create_task(self._keep(name, tell, pauses))

    async def _keep(self, name: str, tell: Callable[[str], None], pauses: Pauses) -> None:
        pause = pauses.first
        while True:
            began = time.monotonic()
            process = self._processes[name]
            code = await process.wait()
            await self._readers[name]
            if time.monotonic() - began >= pauses.steady:
                pause = pauses.first
            tell(f"{name} ended with code {code}: it is started again in {pause:g} s{self._last_words(name)}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, pauses.longest)
            try:
                await self.start_one(name)
            except SuiteError:
                # Its end is told next; one that lives and is not healthy has to end first.
                if self._processes[name].returncode is None:
                    await self.kill(name)
            else:
                tell(f"{name} is ready again")

    async def kill(self, name: str) -> None:
        """Ends a service as a power cut would (SIGKILL)."""
        process = self._processes[name]
        process.kill()
        await process.wait()
        await self._readers[name]

    async def stop(self, *, timeout: float = 15.0) -> None:
        """Ends the services, each before those that it needs; one that does not end in time is killed."""
        for name in reversed(self._processes):
            process = self._processes[name]
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                try:
                    async with asyncio.timeout(timeout):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()
            await self._readers[name]
        self._processes.clear()
        # The file stays, empty of meaning: removing it would race with whoever opens it now.
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    def _environment(self, spec: ServiceSpec) -> dict[str, str]:
        # Nobody balances load to a laptop: no need to wait for somebody to notice that a service drains.
        defaults = {"LOG_FORMAT": "text", "DRAIN_SECONDS": "0"}
        decided = {
            "PORT": str(self._ports[spec.name]),
            "DATA_DIR": str(self.data_dir),
            "SERVICE_KEY": self._service_key,
            **{f"{need.upper()}_TARGET": self.address(need) for need in spec.needs if need in self._ports},
        }
        return {
            **{spec.prefix + name: value for name, value in defaults.items()},
            **self._environ,
            **{spec.prefix + name: value for name, value in decided.items()},
        }

    async def _read(self, name: str, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        with contextlib.suppress(ValueError):
            async for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip()
                self._tails[name].append(line)
                self._on_line(name, line)

    async def _until_healthy(self, name: str, process: asyncio.subprocess.Process) -> None:
        async with grpc.aio.insecure_channel(
            self.address(name),
            options=[("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)],
        ) as channel:
            check = channel.unary_unary(HEALTH_METHOD, request_serializer=bytes, response_deserializer=bytes)
            while True:
                with contextlib.suppress(grpc.RpcError):
                    if await check(b"", timeout=1.0) == SERVING and process.returncode is None:
                        return
                if process.returncode is not None:
                    await self._readers[name]
                    raise SuiteError(f"{name} ended with code {process.returncode}{self._last_words(name)}")
                await asyncio.sleep(0.05)

    def _last_words(self, name: str) -> str:
        return "".join(f"\n  {line}" for line in self._tails.get(name, ()))


def take_lock(data_dir: Path) -> IO[str]:
    """Marks a folder as in use until the file is closed. SuiteError when another process has it."""
    lock = (data_dir / "up.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise SuiteError(f"{data_dir} is in use: another `inkling up` runs on it") from None
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def free_port(name: str, port: int) -> int:
    """The port, or a free one for 0. SuiteError when somebody listens on it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise SuiteError(f"port {port} of {name} is in use: choose another with --port {name}=0") from None
        return int(probe.getsockname()[1])
