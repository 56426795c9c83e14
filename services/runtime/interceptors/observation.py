"""What is seen of a call from outside: its id, its span, its metrics, its line in the log."""

import itertools
import logging
import re
import secrets
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from services.runtime.calls import CALL, Call, Method
from services.runtime.errors import Code
from services.runtime.telemetry import ACCESS_LOGGER

if TYPE_CHECKING:
    from services.runtime.tracing import CallTracer

REQUEST_ID_KEY = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_SERVER_FAULTS = frozenset({Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS})
_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class RequestIds:
    """Takes the caller's `x-request-id`, when it is a sensible one, or makes one."""

    name = "request_id"
    active = True

    def __init__(self) -> None:
        # A random start and a counter: unique enough to find a call in the logs, and nearly free.
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count(1)

    def __call__(self, call: Call) -> AbstractAsyncContextManager[object]:
        given = call.metadata.get(REQUEST_ID_KEY)
        if isinstance(given, str) and _REQUEST_ID.fullmatch(given):
            call.request_id = given
        else:
            call.request_id = f"{self._prefix}-{next(self._numbers):x}"
        call.outgoing[REQUEST_ID_KEY] = call.request_id
        return _Named(call)


class _Named:
    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    async def __aenter__(self) -> None:
        # Each RPC is a task with a context of its own: nothing to reset.
        CALL.set(self._call)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._call.ended = True


class Tracing:
    """A server span for each call, as a child of the caller's. Off without a tracer."""

    name = "tracing"

    def __init__(self, tracer: "CallTracer | None" = None) -> None:
        self._tracer = tracer
        self.active = tracer is not None

    def __call__(self, call: Call) -> AbstractAsyncContextManager[object]:
        if self._tracer is None:
            raise RuntimeError("tracing is off")
        return self._tracer.span(call)


class CallMetrics(Collector):
    """Calls by method and code, and their durations, under the names that gRPC dashboards know.

    Plain numbers, written by the event loop and read by the scraper; a scrape may miss the call that is being counted.
    """

    name = "metrics"
    active = True

    def __init__(self, monotonic: Callable[[], float] = time.perf_counter) -> None:
        self.monotonic = monotonic
        self.started: dict[Method, int] = defaultdict(int)
        self.handled: dict[tuple[Method, Code], int] = defaultdict(int)
        self.buckets: dict[Method, list[int]] = defaultdict(lambda: [0] * (len(_BUCKETS) + 1))
        self.seconds: dict[Method, float] = defaultdict(float)

    def __call__(self, call: Call) -> AbstractAsyncContextManager[object]:
        return _Measured(self, call)

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        labels = ["grpc_type", "grpc_service", "grpc_method"]
        started = CounterMetricFamily("grpc_server_started", "Calls begun.", labels=labels)
        for method, count in list(self.started.items()):
            started.add_metric(_labels(method), count)
        yield started
        handled = CounterMetricFamily("grpc_server_handled", "Calls ended, by code.", labels=[*labels, "grpc_code"])
        for (method, code), count in list(self.handled.items()):
            handled.add_metric([*_labels(method), code.value], count)
        yield handled
        seconds = HistogramMetricFamily("grpc_server_handling_seconds", "Time to answer.", labels=labels)
        for method, counts in list(self.buckets.items()):
            cumulative = list(itertools.accumulate(counts))
            bounds = [*(str(bound) for bound in _BUCKETS), "+Inf"]
            seconds.add_metric(_labels(method), list(zip(bounds, cumulative, strict=True)), self.seconds[method])
        yield seconds


class _Measured:
    __slots__ = ("_call", "_metrics", "_started")

    def __init__(self, metrics: CallMetrics, call: Call) -> None:
        self._metrics = metrics
        self._call = call

    async def __aenter__(self) -> None:
        self._metrics.started[self._call.method] += 1
        self._started = self._metrics.monotonic()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        metrics, method = self._metrics, self._call.method
        elapsed = metrics.monotonic() - self._started
        metrics.handled[method, self._call.code] += 1
        metrics.buckets[method][bisect_left(_BUCKETS, elapsed)] += 1
        metrics.seconds[method] += elapsed


class AccessLog:
    """One line for each call that failed or was slow; at DEBUG one for every call.

    It names method, code, time, project and key id: no addresses, no content.
    """

    name = "access_log"
    active = True

    def __init__(self, slow_seconds: float = 1.0, monotonic: Callable[[], float] = time.perf_counter) -> None:
        self.slow_seconds = slow_seconds
        self.monotonic = monotonic

    def __call__(self, call: Call) -> AbstractAsyncContextManager[object]:
        return _Logged(self, call)


class _Logged:
    __slots__ = ("_call", "_log", "_started")

    def __init__(self, log: AccessLog, call: Call) -> None:
        self._log = log
        self._call = call

    async def __aenter__(self) -> None:
        self._started = self._log.monotonic()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        call = self._call
        elapsed = self._log.monotonic() - self._started
        if call.code in _SERVER_FAULTS:
            level = logging.ERROR
        elif call.code is not Code.OK or (elapsed >= self._log.slow_seconds and call.method.kind == "unary"):
            level = logging.INFO
        else:
            level = logging.DEBUG
        if ACCESS_LOGGER.isEnabledFor(level):
            caller = call.caller
            fields = {
                "method": call.method.full_name,
                "code": call.code.value,
                "milliseconds": round(elapsed * 1000, 3),
                "project": caller.project if caller else None,
                "key_id": caller.key_id if caller else None,
            }
            ACCESS_LOGGER.log(level, "%s %s", call.method.full_name, call.code.value, extra={"fields": fields})


def _labels(method: Method) -> list[str]:
    return [method.kind, method.service_name, method.name]
