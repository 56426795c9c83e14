"""A real ingest process for the tests, with keys of any kind."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from services.runtime.auth import MIGRATIONS, KeyStore, Role
from services.runtime.database import Database

SERVICE_KEY = "the key that services show each other, for tests only"
_START_SECONDS = 120.0


@dataclass
class IngestProcess:
    """`python -m services.ingest` on a data folder; `start` again after `kill` finds what was durable."""

    data_dir: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    lines: list[str] = field(default_factory=list)
    _process: "subprocess.Popen[str] | None" = None
    _listener: threading.Thread | None = None

    @property
    def target(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> "IngestProcess":
        """Starts it and waits until it serves."""
        given = {
            "DATA_DIR": str(self.data_dir),
            "PORT": str(self.port),
            "SERVICE_KEY": SERVICE_KEY,
            "DRAIN_SECONDS": "0",
            "GRACE_SECONDS": "1",
            "IDLE_SECONDS": "0.2",
            **self.environ,
        }
        environ = {**os.environ, **{f"INKLING_INGEST_{name}": value for name, value in given.items()}}
        command = (sys.executable, "-m", "services.ingest")
        self._process = subprocess.Popen(
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        heard: queue.Queue[str] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, args=(self._process, heard), daemon=True)
        self._listener.start()
        give_up = time.monotonic() + _START_SECONDS
        while True:
            try:
                line = heard.get(timeout=max(0.0, give_up - time.monotonic()))
            except queue.Empty:
                self.kill()
                raise TimeoutError("\n".join(self.lines)) from None
            if line == "":
                self._process.wait()
                raise RuntimeError("\n".join(self.lines))
            if '"listening"' in line:
                self.port = int(json.loads(line)["port"])
            if '"serving"' in line:
                return self

    def _listen(self, process: "subprocess.Popen[str]", heard: "queue.Queue[str]") -> None:
        assert process.stdout is not None
        with process.stdout as output:
            for line in output:
                self.lines.append(line.rstrip())
                heard.put(line)
        heard.put("")

    def kill(self) -> None:
        """Ends it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._join()

    def stop(self) -> int:
        """Ends it in order; its exit code."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(timeout=20)
        self._join()
        return code

    def _join(self) -> None:
        assert self._listener is not None
        self._listener.join(timeout=10)

    async def key(self, project: str, roles: Iterable[Role], expires_at_us: int | None = None) -> str:
        """A new key's secret."""
        async with Database.open(f"sqlite:///{self.data_dir / 'auth.db'}", MIGRATIONS) as database:
            _, secret = await KeyStore(database).create(project, roles, expires_at_us)
        return secret

    def channel(self) -> grpc.aio.Channel:
        """A connection that takes large messages."""
        options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]
        return grpc.aio.insecure_channel(self.target, options=options)


def bearer(secret: str, project: str | None = None) -> tuple[tuple[str, str], ...]:
    """The metadata of a call with a key."""
    metadata = (("authorization", f"Bearer {secret}"),)
    return metadata if project is None else (*metadata, ("x-inkling-project", project))
