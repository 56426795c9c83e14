"""Logs and metrics of a process.

Logs are lines on standard error, JSON or text, each with the request id of the call it belongs to. Code gives
structured values as `extra={"fields": {...}}`. An exception is logged as its type and its frames: messages may quote
what callers sent, so they are left out unless `log_exception_text` is set.
"""

import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, start_http_server

from services.runtime.calls import current_call
from services.runtime.settings import Settings

ACCESS_LOGGER = logging.getLogger("inkling.access")


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, *, exception_text: bool = False) -> None:
        super().__init__()
        self._exception_text = exception_text

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        call = current_call()
        if call is not None:
            line["request_id"] = call.request_id
        line.update(getattr(record, "fields", {}))
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            line["exception"] = describe(error, with_text=self._exception_text)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """For people at a terminal."""

    def __init__(self, *, exception_text: bool = False) -> None:
        super().__init__()
        self._exception_text = exception_text

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        fields = {key: value for key, value in getattr(record, "fields", {}).items() if value is not None}
        call = current_call()
        if call is not None:
            fields["request_id"] = call.request_id
        pairs = "".join(f" {key}={value}" for key, value in fields.items())
        line = f"{time} {record.levelname:7} {record.getMessage()}{pairs}"
        error = record.exc_info[1] if record.exc_info else None
        return line if error is None else f"{line}\n{describe(error, with_text=self._exception_text)}"


def describe(error: BaseException, *, with_text: bool) -> str:
    """The error's type and frames, of its causes too; its message only `with_text`."""
    if with_text:
        return "".join(traceback.format_exception(error)).rstrip()
    parts = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        frames = "".join(traceback.format_tb(current.__traceback__)).rstrip()
        parts.append(f"{type(current).__module__}.{type(current).__qualname__}\n{frames}".rstrip())
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\ncaused by ".join(parts)


def configure_logging(settings: Settings) -> None:
    """Sends the process's logs to standard error, in the format and from the level of the settings."""
    formatter = JsonFormatter if settings.log_format == "json" else TextFormatter
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(exception_text=settings.log_exception_text))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.getLevelNamesMapping()[settings.log_level], logging.INFO))
    # Migrations that change nothing are no news.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # DEBUG is for our own lines: those of the libraries below would drown them.
    for name in ("inkling", "services"):
        logging.getLogger(name).setLevel(settings.log_level)


@contextmanager
def metrics_endpoint(settings: Settings, registry: CollectorRegistry) -> Iterator[int | None]:
    """Serves the registry on the metrics port (in a thread of its own) and yields the port; None when it is off."""
    if settings.metrics_port == 0:
        yield None
        return
    server, thread = start_http_server(settings.metrics_port, addr=settings.host, registry=registry)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
