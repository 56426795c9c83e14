"""Events from CSV, under the names of Pinpoint's event stream or ours, as batches of the log's schema.

Columns are found by their names, in either case and whatever stands between the words (`event_type`, `EventType`,
`endpoint.User.UserId`):

    event_type, event_name, event           the type; required. `event_vendor` and `event_version` may be beside it
    event_timestamp, occurred_at, timestamp, event_time, time, date
                                            the time; required. A whole number is milliseconds, else ISO 8601 (UTC)
    user_id, endpoint.User.UserId, user     the user; an event without one is legal, and counts for nobody
    event_id, id                            the id; each counts once, the first in the file. Without one a line counts
    received_at, arrival_timestamp          when it came; only looked at when the order of arrival matters
    attributes, metrics                     JSON objects: texts to compare with, numbers to sum
    attributes.NAME, metrics.NAME           one of them as a column
    endpoint                                a JSON object with User.UserId
    (any other)                             an attribute, and a metric too where it is a number and nothing above
                                            named metrics

A cell that is empty is absent. A line with a cell that cannot be read is left out and reported, the others go on.
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from services.insights.rules.dates import DateError, parse_instant
from services.kernel.columns import ADD, DICTIONARY, FIXED_FIELDS, KIND_TYPES, EventBatch, key_column, sorted_columns

TYPES = ("eventtype", "eventname", "event")
TIMES = ("eventtimestamp", "occurredat", "timestamp", "eventtime", "time", "date")
USERS = ("userid", "endpointuseruserid", "endpointuserid", "useruserid", "user")
IDS = ("eventid", "id")
ARRIVALS = ("receivedat", "arrivaltimestamp")
IGNORED = ("eventversion", "applicationid", "appid", "awsaccountid", "session", "client", "clientcontext", "device")
MAX_CELL = 1 << 20
MAX_INSTANT_US = 9_214_646_400 * 1_000_000  # 2262: where log times end


class EventsError(ValueError):
    """The file holds no events; the text says why."""


class EventLine(NamedTuple):
    """One event of a file. Ordered by time, then id."""

    at_us: int
    event_id: str
    event_type: str
    received_us: int
    user: str
    """Empty: nobody's."""
    texts: dict[str, str]
    numbers: dict[str, int | float]


class LineProblem(NamedTuple):
    """A line that was left out. It quotes no cell: they are personal."""

    line: int
    column: str
    description: str

    def __str__(self) -> str:
        """As one text."""
        return f"line {self.line}" + (f", {self.column}" if self.column else "") + f": {self.description}"


class _CellError(Exception):
    def __init__(self, column: str, description: str) -> None:
        super().__init__(description)
        self.column, self.description = column, description


@dataclass
class _Draft:
    """What the cells of a line said so far."""

    user: str = ""
    event_id: str = ""
    kind: list[str] = field(default_factory=lambda: ["", "", ""])
    at_us: int | None = None
    received_us: int | None = None
    texts: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, int | float] = field(default_factory=dict)


_Take = Callable[[_Draft, str], None]


class EventsReader:
    """The events of one file. After reading, `problems` are the lines left out, `duplicates` the ids seen before."""

    def __init__(self, text: str, user_key: str) -> None:
        """Raises EventsError when the header lacks what every event must have."""
        csv.field_size_limit(MAX_CELL)
        self._reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
        self._user_key = user_key
        self.problems: list[LineProblem] = []
        self.lines = 0
        self.duplicates = 0
        self.anonymous = 0
        try:
            header = [cell.strip() for cell in next(self._reader, [])]
        except csv.Error as error:
            raise EventsError(f"is not CSV: line 1: {error}") from None
        self._width = len(header)
        self._takers = _takers(header)

    def events(self) -> Iterator[EventLine]:
        """The events in the order of the file, each id once."""
        seen: set[str] = set()
        line = self._reader.line_num + 1
        while True:
            try:
                cells = next(self._reader, None)
            except csv.Error as error:
                self.problems.append(LineProblem(self._reader.line_num, "", f"is not CSV: {error}"))
                line = self._reader.line_num + 1
                continue
            if cells is None:
                return
            if any(cells):
                self.lines += 1
                try:
                    row = self._row(cells, line)
                except _CellError as error:
                    self.problems.append(LineProblem(line, error.column, error.description))
                else:
                    if row.event_id in seen:
                        self.duplicates += 1
                    else:
                        seen.add(row.event_id)
                        yield row
            line = self._reader.line_num + 1

    def _row(self, cells: Sequence[str], line: int) -> EventLine:
        if len(cells) > self._width:
            raise _CellError("", f"has {len(cells)} cells, the header {self._width}")
        draft = _Draft()
        for place, take in self._takers:
            cell = cells[place].strip() if place < len(cells) else ""
            if cell:
                take(draft, cell)
        vendor, name, version = draft.kind
        if not name:
            raise _CellError("", "has no event type")
        if draft.at_us is None:
            raise _CellError("", "has no time")
        if not draft.user:
            self.anonymous += 1
        # The line as an id is padded, so that lines of the same time count in the order of the file.
        event_id = draft.event_id or f"line {line:012d}"
        received_us = draft.at_us if draft.received_us is None else draft.received_us
        kind = f"{vendor}/{name}/{version}"
        return EventLine(draft.at_us, event_id, kind, received_us, draft.user, draft.texts, draft.numbers)


def batch_of(events: Sequence[EventLine], user_key: str) -> EventBatch:
    """Events as a batch of the log's schema."""
    count = len(events)
    columns: dict[str, list[object]] = {key_column(user_key): [event.user or None for event in events]}

    def put(row: int, name: str, value: object) -> None:
        columns.setdefault(name, [None] * count)[row] = value

    for row, event in enumerate(events):
        for name, text in event.texts.items():
            put(row, f"a.{name}:s", text)
        for name, number in event.numbers.items():
            put(row, f"a.{name}:{'i' if isinstance(number, int) else 'd'}", number)
    columns |= {
        "event_id": [event.event_id for event in events],
        "event_type": [event.event_type for event in events],
        "occurred_at": [event.at_us for event in events],
        "received_at": [event.received_us for event in events],
        "operation": [ADD] * count,
        "revision": [0] * count,
        "fingerprint": [0] * count,
    }
    types = {each.name: each.type for each in FIXED_FIELDS} | {key_column(user_key): DICTIONARY}
    names = sorted_columns(columns)
    arrays = [pa.array(columns[name], types.get(name) or KIND_TYPES[name[-1]]) for name in names]
    return EventBatch(pa.RecordBatch.from_arrays(arrays, names=names))


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _takers(header: Sequence[str]) -> list[tuple[int, _Take]]:
    """By place in the header what its cells say."""
    keys = [_key(name) for name in header]
    special: dict[int, _Take] = {}

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


def _take_type(column: str) -> _Take:
    def take(draft: _Draft, cell: str) -> None:
        if "/" in cell:
            raise _CellError(column, "a slash cannot be in the name of an event type")
        draft.kind[1] = cell

    return take


def _take_vendor(_column: str) -> _Take:
    return lambda draft, cell: draft.kind.__setitem__(0, cell.replace("/", "_"))


def _take_version(_column: str) -> _Take:
    return lambda draft, cell: draft.kind.__setitem__(2, cell.replace("/", "_"))


def _take_time(column: str) -> _Take:
    def take(draft: _Draft, cell: str) -> None:
        draft.at_us = _instant(column, cell)

    return take


def _take_arrival(column: str) -> _Take:
    def take(draft: _Draft, cell: str) -> None:
        draft.received_us = _instant(column, cell)

    return take


def _take_user(_column: str) -> _Take:
    def take(draft: _Draft, cell: str) -> None:
        draft.user = cell

    return take


def _take_id(_column: str) -> _Take:
    def take(draft: _Draft, cell: str) -> None:
        draft.event_id = cell

    return take


def _take_endpoint(column: str) -> _Take:
    def take(draft: _Draft, cell: str) -> None:
        user = _object(column, cell).get("User") or {}
        if isinstance(user, dict) and isinstance(user.get("UserId"), str):
            draft.user = user["UserId"]

    return take


def _take_attributes(column: str) -> _Take:
    def take(draft: _Draft, cell: str) -> None:
        for name, value in _object(column, cell).items():
            if value is not None:
                draft.texts[name] = value if isinstance(value, str) else json.dumps(value)

    return take


def _take_metrics(column: str) -> _Take:
    def take(draft: _Draft, cell: str) -> None:
        for name, value in _object(column, cell).items():
            if value is not None:
                text = value if isinstance(value, str) else json.dumps(value)
                draft.numbers[name] = _number(f"{column}.{name}"[:80], text)

    return take


def _take_text(name: str) -> _Take:
    def take(draft: _Draft, cell: str) -> None:
        draft.texts[name] = cell

    return take


def _take_number(name: str, column: str) -> _Take:
    def take(draft: _Draft, cell: str) -> None:
        draft.numbers[name] = _number(column, cell)

    return take


def _take_either(name: str) -> _Take:
    def take(draft: _Draft, cell: str) -> None:
        draft.texts[name] = cell
        try:
            draft.numbers[name] = _number(name, cell)
        except _CellError:
            return

    return take


_SPECIAL: tuple[tuple[tuple[str, ...], Callable[[str], _Take]], ...] = (
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
        raise _CellError(column, 'is not a JSON object such as {"name": "value"}')
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
    raise _CellError(column, "is not a number")


def _instant(column: str, text: str) -> int:
    try:
        instant_us = int(text) * 1_000 if re.fullmatch(r"-?\d{1,16}", text) else parse_instant(text)
        if 0 <= instant_us <= MAX_INSTANT_US:
            return instant_us
    except DateError:
        pass
    raise _CellError(column, "is not a time: milliseconds since 1970, or 2021-02-01T12:00:00Z")
