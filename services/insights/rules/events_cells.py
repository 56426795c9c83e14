"""The columns of a file of events: what the cells of each say, by the name in its header."""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.insights.rules.dates import DateError, parse_instant

TYPES = ("eventtype", "eventname", "event")
TIMES = ("eventtimestamp", "occurredat", "timestamp", "eventtime", "time", "date")
USERS = ("userid", "endpointuseruserid", "endpointuserid", "useruserid", "user")
IDS = ("eventid", "id")
ARRIVALS = ("receivedat", "arrivaltimestamp")
IGNORED = ("eventversion", "applicationid", "appid", "awsaccountid", "session", "client", "clientcontext", "device")
MAX_INSTANT_US = 9_214_646_400 * 1_000_000  # 2262: where log times end


class EventsError(ValueError):
    """The file holds no events; the text says why."""


class CellError(Exception):
    """A cell cannot be read."""

    def __init__(self, column: str, description: str) -> None:
        super().__init__(description)
        self.column, self.description = column, description


@dataclass
class Draft:
    """What the cells of a line said so far."""

    user: str = ""
    event_id: str = ""
    kind: list[str] = field(default_factory=lambda: ["", "", ""])
    at_us: int | None = None
    received_us: int | None = None
    texts: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, int | float] = field(default_factory=dict)


Take = Callable[[Draft, str], None]


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def takers_of(header: Sequence[str]) -> list[tuple[int, Take]]:
    """By place in the header what its cells say."""
    keys = [_key(name) for name in header]
    special: dict[int, Take] = {}

    for names, make in _SPECIAL:
        place = next((keys.index(name) for name in names if name in keys), None)
        if place is not None:
            special.setdefault(place, make(header[place]))
        elif names is TYPES or names is TIMES:
            what = "event_type" if names is TYPES else "event_timestamp or occurred_at"
            raise EventsError(f"has no column {what}: there are {', '.join(header)[:500]}")
    if "endpoint" in keys and not set(USERS) & set(keys):
        special[keys.index("endpoint")] = _take_endpoint(header[keys.index("endpoint")])
    has_metrics = any(key == "metrics" or _prefixed(name, "metrics") for key, name in zip(keys, header, strict=True))
    takers = []
    for place, (key, name) in enumerate(zip(keys, header, strict=True)):
        if place in special:
            takers.append((place, special[place]))
        elif key == "attributes":
            takers.append((place, _take_attributes(name)))
        elif key == "metrics":
            takers.append((place, _take_metrics(name)))
        elif attribute := _prefixed(name, "attributes"):
            takers.append((place, _take_text(attribute)))
        elif metric := _prefixed(name, "metrics"):
            takers.append((place, _take_number(metric, name)))
        elif name and key not in IGNORED and key not in (*TYPES, *TIMES, *USERS, *IDS, *ARRIVALS, "endpoint"):
            takers.append((place, _take_text(name) if has_metrics else _take_either(name)))
    return takers


def _prefixed(column: str, prefix: str) -> str:
    """`x` of `attributes.x`, `attributes/x` or `attributes[x]`; else nothing."""
    match = re.fullmatch(rf"{prefix}(?:[./:](.+)|\[['\"]?(.+?)['\"]?\])", column, re.IGNORECASE)
    return (match[1] or match[2]) if match else ""


def _take_type(column: str) -> Take:
    def take(draft: Draft, cell: str) -> None:
        if "/" in cell:
            raise CellError(column, "a slash cannot be in the name of an event type")
        draft.kind[1] = cell

    return take


def _take_vendor(_column: str) -> Take:
    return lambda draft, cell: draft.kind.__setitem__(0, cell.replace("/", "_"))


def _take_version(_column: str) -> Take:
    return lambda draft, cell: draft.kind.__setitem__(2, cell.replace("/", "_"))


def _take_time(column: str) -> Take:
    def take(draft: Draft, cell: str) -> None:
        draft.at_us = _instant(column, cell)

    return take


def _take_arrival(column: str) -> Take:
    def take(draft: Draft, cell: str) -> None:
        draft.received_us = _instant(column, cell)

    return take


def _take_user(_column: str) -> Take:
    def take(draft: Draft, cell: str) -> None:
        draft.user = cell

    return take


def _take_id(_column: str) -> Take:
    def take(draft: Draft, cell: str) -> None:
        draft.event_id = cell

    return take


def _take_endpoint(column: str) -> Take:
    def take(draft: Draft, cell: str) -> None:
        user = _object(column, cell).get("User") or {}
        if isinstance(user, dict) and isinstance(user.get("UserId"), str):
            draft.user = user["UserId"]

    return take


def _take_attributes(column: str) -> Take:
    def take(draft: Draft, cell: str) -> None:
        for name, value in _object(column, cell).items():
            if value is not None:
                draft.texts[name] = value if isinstance(value, str) else json.dumps(value)

    return take


def _take_metrics(column: str) -> Take:
    def take(draft: Draft, cell: str) -> None:
        for name, value in _object(column, cell).items():
            if value is not None:
                text = value if isinstance(value, str) else json.dumps(value)
                draft.numbers[name] = _number(f"{column}.{name}"[:80], text)

    return take


def _take_text(name: str) -> Take:
    def take(draft: Draft, cell: str) -> None:
        draft.texts[name] = cell

    return take


def _take_number(name: str, column: str) -> Take:
    def take(draft: Draft, cell: str) -> None:
        draft.numbers[name] = _number(column, cell)

    return take


def _take_either(name: str) -> Take:
    def take(draft: Draft, cell: str) -> None:
        draft.texts[name] = cell
        try:
            draft.numbers[name] = _number(name, cell)
        except CellError:
            return

    return take


_SPECIAL: tuple[tuple[tuple[str, ...], Callable[[str], Take]], ...] = (
    (TYPES, _take_type),
    (TIMES, _take_time),
    (USERS, _take_user),
    (IDS, _take_id),
    (ARRIVALS, _take_arrival),
    (("eventvendor",), _take_vendor),
    (("eventversion",), _take_version),
)


def _object(column: str, cell: str) -> dict[str, Any]:
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise CellError(column, 'is not a JSON object such as {"name": "value"}')
    return value


def _number(column: str, text: str) -> int | float:
    try:
        if re.fullmatch(r"[+-]?\d{1,18}", text):
            return int(text)
        number = float(text)
        if "_" not in text and math.isfinite(number):
            return number
    except ValueError:
        pass
    raise CellError(column, "is not a number")


def _instant(column: str, text: str) -> int:
    try:
        instant_us = int(text) * 1_000 if re.fullmatch(r"-?\d{1,16}", text) else parse_instant(text)
        if 0 <= instant_us <= MAX_INSTANT_US:
            return instant_us
    except DateError:
        pass
    raise CellError(column, "is not a time: milliseconds since 1970, or 2021-02-01T12:00:00Z")
