"""Ray as a service uses it: started when a task first needs it, on this machine or at an address; closed in one place.

    async with RaySession.open(RayOptions(cpus=2)) as ray:
        total = await ray.run(add, 1, 2)

Functions must be importable by name: workers import them. A task that is no longer awaited is killed.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from services.runtime.errors import Unavailable

P = ParamSpec("P")
R = TypeVar("R")

_LOGGER = logging.getLogger(__name__)
_ENVIRONMENT: Mapping[str, str] = {
    # Workers are niced by 15 otherwise, so that anything else on the machine starves them.
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
}


@dataclass(frozen=True)
class RayOptions:
    """Where tasks run."""

    address: str = ""
    """A running cluster; empty starts one on this machine for the life of the session. The cluster's token is the
    environment's RAY_AUTH_TOKEN."""
    cpus: int = 2
    """How many CPUs a cluster of our own may use."""
    namespace: str = "inkling"
    object_store_bytes: int = 512 << 20
    """Shared memory of a cluster of our own."""


class RaySession:
    """A connection to Ray, opened by the first task."""

    def __init__(self, options: RayOptions) -> None:
        self._options = options
        # Children of a cluster of our own end with the thread that started them: it must live as long as they.
        self._thread = ThreadPoolExecutor(1, "ray")
        self._starting = asyncio.Lock()
        self._started = False

    @classmethod
    @asynccontextmanager
    async def open(cls, options: RayOptions) -> AsyncIterator["RaySession"]:
        """A session that has not started anything yet; on exit what it started ends."""
        session = cls(options)
        try:
            yield session
        finally:
            await session._close()

    async def start(self) -> None:
        """Connects now, and not when the first task comes: a cluster of our own takes seconds. Raises Unavailable."""
        async with self._starting:
            if not self._started:
                try:
                    await asyncio.get_running_loop().run_in_executor(self._thread, _connect, self._options)
                except (ConnectionError, RuntimeError, OSError, ValueError) as error:
                    _LOGGER.warning("cannot start Ray: %s", type(error).__name__)
                    raise Unavailable("the compute engine cannot be reached", reason="NO_RAY") from error
                self._started = True

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs a function as a task on one CPU. Raises what it raises, and Unavailable when its worker was lost."""
        await self.start()
        import ray

        task = ray.remote(num_cpus=1, max_retries=1)(function)
        reference: Any = await asyncio.to_thread(lambda: task.remote(*args, **kwargs))
        try:
            result: R = await asyncio.wrap_future(reference.future())
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, Exception):
                raise error.cause from None
            raise
        except ray.exceptions.RayError as error:
            raise Unavailable("a worker of the compute engine was lost", reason="NO_RAY") from error
        except asyncio.CancelledError:
            # Without force a task that computes does not notice.
            await asyncio.to_thread(ray.cancel, reference, force=True)
            raise
        return result

    async def _close(self) -> None:
        if self._started:
            await asyncio.get_running_loop().run_in_executor(self._thread, _disconnect)
        await asyncio.to_thread(self._thread.shutdown)


def _connect(options: RayOptions) -> None:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not options.address:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    # It warns that its handler of SIGTERM is not set, which is as it should be: the service has its own.
    logging.getLogger("ray").setLevel(logging.ERROR)
    common: dict[str, Any] = {
        "namespace": options.namespace,
        "log_to_driver": False,
        "configure_logging": False,
    }
    if options.address:
        ray.init(address=options.address, **common)
        return
    ray.init(
        num_cpus=options.cpus,
        include_dashboard=False,
        # Ray replaces 127.0.0.1 by an address that others can reach.
        _node_ip_address="127.0.0.2",
        object_store_memory=options.object_store_bytes,
        **common,
    )


def _disconnect() -> None:
    import ray

    ray.shutdown()
