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
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

from services.insights.rules.events_cells import CellError, Draft, EventsError, takers_of
from services.kernel.columns import ADD, DICTIONARY, FIXED_FIELDS, KIND_TYPES, EventBatch, key_column, sorted_columns

MAX_CELL = 1 << 20


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
        self._takers = takers_of(header)

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
                except CellError as error:
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
            raise CellError("", f"has {len(cells)} cells, the header {self._width}")
        draft = Draft()
        for place, take in self._takers:
            cell = cells[place].strip() if place < len(cells) else ""
            if cell:
                take(draft, cell)
        vendor, name, version = draft.kind
        if not name:
            raise CellError("", "has no event type")
        if draft.at_us is None:
            raise CellError("", "has no time")
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
