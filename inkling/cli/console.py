"""What the commands print: messages for people on stderr, results on stdout."""

import json
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from inkling.errors import InklingError, PermissionDenied, Unauthenticated, Unavailable

PIPE_WIDTH = 400
HINTS: dict[type[InklingError], str] = {
    Unavailable: "Is it running? `inkling up` starts the services here; INKLING_ADDRESS_INGEST and "
    "INKLING_ADDRESS_FEATURES say where they are elsewhere.",
    Unauthenticated: "Give a key with --api-key or INKLING_API_KEY; `inkling keys create` makes one.",
    PermissionDenied: "The key lacks the role: `inkling keys list` shows its roles.",
}


def out() -> Console:
    """For results; in a pipe no table is folded to the width of a screen."""
    return Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def err() -> Console:
    """For messages."""
    return Console(stderr=True, soft_wrap=True, highlight=False)


def say(message: str) -> None:
    """A message for people; it is no markup."""
    err().print(escape(message))


def fail(message: str, *, code: int = 2) -> NoReturn:
    """Says what is wrong and ends with a code."""
    err().print(f"[bold red]error:[/] {escape(message)}")
    sys.exit(code)


def explain(error: InklingError) -> str:
    """What an error says to a person at a terminal."""
    lines = [str(error)]
    if error.reason:
        lines[0] += f" [{error.reason}]"
    hint = next((text for kind, text in HINTS.items() if isinstance(error, kind)), "")
    if hint:
        lines.append(hint)
    if error.request_id:
        lines.append(f"request id {error.request_id}")
    return "\n".join(lines)


def print_json(value: Any) -> None:
    """One JSON value on one line; instants as ISO 8601."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=as_json, allow_nan=False) + "\n")


def as_json(value: Any) -> Any:
    """What JSON has no form for."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def cell(value: Any) -> str:
    """A value in a table."""
    if value is None:
        return "[dim]null[/]"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
    if isinstance(value, str):
        return escape(value)
    return escape(json.dumps(value, ensure_ascii=False, default=as_json))


def print_table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """A table of values."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    out().print(table)


def existing(path: Path) -> Path:
    """The path of a file that is there; else a message and the end."""
    if path.is_file():
        return path
    if path.is_dir():
        fail(f"{path} is a folder, not a file")
    siblings = [each.name for each in path.parent.glob(f"*{path.suffix}")] if path.parent.is_dir() else []
    near = f": there are {', '.join(sorted(siblings)[:5])}" if siblings else ""
    fail(f"there is no file {path}{near}")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; else a message with line and column, and the end."""
    text = existing(path).read_text("utf-8-sig", errors="replace")
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        line = text.splitlines()[error.lineno - 1] if text.splitlines() else ""
        fail(f"{path} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}\n  {line.strip()[:100]}")
    if not isinstance(document, dict):
        fail(f"{path} holds a JSON {type(document).__name__}, not an object: a definition is one object")
    return document
