"""The echo service as a process: `python -m tests.runtime.echo_process`, with settings `ECHO_*`.

Prints its port when it listens, and `closed` when everything was closed in order.
"""

import asyncio
import os
import sys
from typing import ClassVar

from services.runtime.server import run, serve
from services.runtime.settings import Settings
from tests.runtime.echo import EchoServicer, echo_service


class EchoSettings(Settings):
    """Settings, and how long it takes to get warm."""

    name: ClassVar[str] = "echo"
    warm_seconds: float = 0.0
    fail_to_warm: bool = False


async def main(settings: EchoSettings) -> None:
    """Serves until it is told to stop."""

    async def warm() -> None:
        await asyncio.sleep(settings.warm_seconds)
        if settings.fail_to_warm:
            raise RuntimeError("cannot get warm")

    try:
        await serve(
            settings,
            [echo_service(EchoServicer())],
            ready=warm(),
            on_listening=lambda port: print(port, flush=True),
        )
    finally:
        print("closed", flush=True)


if __name__ == "__main__":
    settings = EchoSettings.load("ECHO", os.environ)
    try:
        run(main(settings), settings)
    except RuntimeError:
        sys.exit(3)
