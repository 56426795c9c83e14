"""Real processes of the suite: started with their own folder and keys, killed without mercy."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime.auth import MIGRATIONS, KeyStore, Role
from services.runtime.database import Database

ROOT = Path(__file__).parents[2]
SERVICE_KEY = "a-service-key-of-thirty-two-characters-or-more"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class ServiceProcess:
    """One service process that can be killed and started again."""

    module: str
    port: int
    environment: Mapping[str, str]
    log_file: Path
    process: asyncio.subprocess.Process | None = None

    @property
    def target(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Starts it, and waits until it serves."""
        with self.log_file.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", self.module),
                cwd=ROOT,
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(60), grpc.aio.insecure_channel(self.target) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while True:
                if self.process.returncode is not None:
                    raise AssertionError(f"{self.module} ended: {self.log_file.read_text()[-3000:]}")
                try:
                    answer = await stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=5)
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
                except grpc.aio.AioRpcError:
                    pass
                await asyncio.sleep(0.02)

    async def end(self, number: int = signal.SIGTERM) -> None:
        """Sends a signal, and waits for the end."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)
            await self.process.wait()


@dataclass
class Suite:
    """Ingest and features of one folder."""

    ingest: ServiceProcess
    features: ServiceProcess
    keys: dict[str, str] = field(default_factory=dict)


async def create_key(data_dir: Path, project: str, *roles: Role) -> str:
    """A key in the suite's key database."""
    async with Database.open(f"sqlite:///{data_dir / 'auth.db'}", MIGRATIONS) as database:
        _, secret = await KeyStore(database).create(project, roles)
        return secret


@asynccontextmanager
async def running_suite(data_dir: Path, **features: object) -> AsyncIterator[Suite]:
    """Both services, with a key `main` of the project `shop` that may do everything."""
    common = {"DATA_DIR": str(data_dir), "SERVICE_KEY": SERVICE_KEY, "DRAIN_SECONDS": "0", "GRACE_SECONDS": "0.5"}
    ports = free_port(), free_port()
    settings = {"INGEST_TARGET": f"127.0.0.1:{ports[0]}", **{k.upper(): str(v) for k, v in features.items()}}
    suite = Suite(
        ServiceProcess("services.ingest", ports[0], _prefixed("INGEST", common, ports[0]), data_dir / "ingest.log"),
        ServiceProcess(
            "services.features", ports[1], _prefixed("FEATURES", common | settings, ports[1]), data_dir / "features.log"
        ),
    )
    suite.keys["main"] = await create_key(data_dir, "shop", Role.INGEST, Role.READ, Role.DEFINE, Role.OPERATE)
    try:
        await suite.ingest.start()
        await suite.features.start()
        yield suite
    finally:
        await suite.features.end()
        await suite.ingest.end()


def _prefixed(service: str, values: Mapping[str, str], port: int) -> dict[str, str]:
    return {f"INKLING_{service}_{name}": value for name, value in {**values, "PORT": str(port)}.items()}
