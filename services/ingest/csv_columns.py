"""From the lines of a CSV file to events: what each column is, by its name in the header."""

import hashlib
import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from inkling.ingest.v1.event_pb2 import Event
from inkling.types.v1.value_pb2 import Value
from services.ingest.collections import Declaration, FieldType
from services.ingest.csv_lines import Record
from services.runtime.errors import InvalidArgument, Violation

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_BOOLEANS = {"true": True, "t": True, "1": True, "yes": True, "false": False, "f": False, "0": False, "no": False}


@dataclass(frozen=True)
class CsvOptions:
    """How lines become events. A column is named by its text in the first line."""

    declaration: Declaration | None = None
    """Of the collection that types the columns."""
    column_types: Mapping[str, FieldType] = field(default_factory=dict)
    event_id_column: str = ""
    occurred_at_column: str = ""
    key_columns: Mapping[str, str] = field(default_factory=dict)
    """Attribute key to column."""
    event_type: tuple[str, str, str] = ("", "", "")
    """Vendor, name, version."""
    event_type_columns: tuple[str, str, str] = ("", "", "")
    delimiter: str = ","

    def resolved(self) -> "CsvOptions":
        """With what the collection says filled in. Raises InvalidArgument for contradictions."""
        wrong = []
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            wrong.append(Violation("options.delimiter", "is one character, no quote and no end of line"))
        declared = self.declaration
        if declared is not None and self.column_types:
            wrong.append(Violation("options.column_types", "cannot be given together with a collection"))
        occurred_at = self.occurred_at_column or (declared.occurred_at_field if declared else "")
        keys = self.key_columns or (declared.key_fields if declared else {})
        event_type = self.event_type
        if declared is not None and not event_type[1] and not self.event_type_columns[1]:
            event_type = (declared.event_vendor, declared.event_name, declared.event_version)
        if not occurred_at:
            wrong.append(Violation("options.occurred_at_column", "is required unless the collection names it"))
        if not keys:
            wrong.append(Violation("options.key_columns", "are required unless the collection names them"))
        if not event_type[1] and not self.event_type_columns[1]:
            wrong.append(Violation("options.event_type", "needs a name, or event_type_columns one"))
        if wrong:
            raise InvalidArgument("the options do not say how to read the file", reason="BAD_LINE", violations=wrong)
        types = self.column_types
        if declared is not None:
            types = {each.name: each.type for each in declared.fields if each.type is not None}
        return CsvOptions(
            None,
            types,
            self.event_id_column or (declared.event_id_field if declared else ""),
            occurred_at,
            keys,
            event_type,
            self.event_type_columns,
            self.delimiter,
        )


class CellError(Exception):
    """A cell does not have the type of its column."""

    def __init__(self, column: str, message: str) -> None:
        super().__init__(message)
        self.column = column
        self.message = message


_Write = Callable[[Event, str], None]


class CsvColumns:
    """The columns of one file.

    A column becomes a property, typed as the options say or a string, unless it is the event's id, time, type or
    key and is not typed: those that are typed are both. Empty cells are absent.
    """

    def __init__(self, header: Sequence[str], options: CsvOptions) -> None:
        """`options` are resolved. Raises InvalidArgument when the header lacks a column that they name."""
        self._header = header
        self._event_type = options.event_type
        self._has_id = bool(options.event_id_column)
        self.fields: dict[str, str] = {"event_id": options.event_id_column, "occurred_at": options.occurred_at_column}
        """Field of an event to the column that it comes from."""
        places = _places(header, options)
        writers: list[tuple[int, _Write]] = []
        special = set()

        def write(column: str, writer: _Write) -> None:
            special.add(column)
            writers.append((places[column], writer))

        if options.event_id_column:
            write(options.event_id_column, lambda event, cell: setattr(event, "event_id", cell))
        write(options.occurred_at_column, _write_time(options.occurred_at_column))
        for part, column in zip(("vendor", "name", "version"), options.event_type_columns, strict=True):
            if column:
                write(column, lambda event, cell, part=part: setattr(event.type, part, cell))  # type: ignore[misc]
        for key, column in options.key_columns.items():
            write(column, lambda event, cell, key=key: event.keys.__setitem__(key, cell))  # type: ignore[misc]
            self.fields[f"keys.{key}"] = column
        for place, column in enumerate(header):
            if column in options.column_types or column not in special:
                kind = options.column_types.get(column, FieldType.STRING)
                writers.append((place, _write_property(column, kind)))
                self.fields[f"properties.{column}"] = column
        self._writers = writers

    def event(self, record: Record) -> Event:
        """The event of a record; raises CellError."""
        if record.fields is None:
            raise CellError("", record.problem)
        if len(record.fields) != len(self._header):
            raise CellError("", f"The line has {len(record.fields)} fields, the header {len(self._header)}.")
        event = Event()
        vendor, name, version = self._event_type
        event.type.vendor, event.type.name, event.type.version = vendor, name, version
        for place, write in self._writers:
            cell = record.fields[place]
            if cell:
                write(event, cell)
        if not self._has_id:
            event.event_id = derived_id(record)
        return event


def derived_id(record: Record) -> str:
    """An id that the same line at the same place always gets: importing a file again adds nothing."""
    content = struct.pack("<q", record.line) + record.raw
    return f"csv-{hashlib.blake2b(content, digest_size=16).hexdigest()}"


def _places(header: Sequence[str], options: CsvOptions) -> dict[str, int]:
    places = {column: place for place, column in reversed(list(enumerate(header)))}
    if len(places) < len(header):
        raise InvalidArgument("the header names a column twice", reason="BAD_LINE")
    named = {
        "options.event_id_column": options.event_id_column,
        "options.occurred_at_column": options.occurred_at_column,
        **{f"options.key_columns[{key}]": column for key, column in options.key_columns.items()},
        **{
            f"options.event_type_columns.{part}": column
            for part, column in zip(("vendor", "name", "version"), options.event_type_columns, strict=True)
        },
        **{f"options.column_types[{column}]": column for column in options.column_types},
    }
    missing = [
        Violation(place, f"the header has no column {column[:64]!r}")
        for place, column in named.items()
        if column and column not in places
    ]
    if missing:
        raise InvalidArgument("the header lacks columns that the options name", reason="BAD_LINE", violations=missing)
    return places


def _write_time(column: str) -> _Write:
    def write(event: Event, cell: str) -> None:
        event.occurred_at.FromMicroseconds(_instant(cell, column))

    return write


def _write_property(column: str, kind: FieldType) -> _Write:
    put = _PUTS[kind]

    def write(event: Event, cell: str) -> None:
        try:
            put(event.properties[column], cell)
        except ValueError:
            raise CellError(column, f"The cell is not of type {kind}.") from None

    return write


def _instant(cell: str, column: str) -> int:
    try:
        return _microseconds(cell)
    except ValueError:
        raise CellError(column, "The cell is not a time such as 2026-09-01 12:00:00.") from None


def _microseconds(cell: str) -> int:
    try:
        instant = datetime.fromisoformat(cell.strip().removesuffix(" UTC"))
        if instant.tzinfo is None:
            instant = instant.replace(tzinfo=UTC)
        return (instant - _EPOCH) // _MICROSECOND
    except OverflowError:
        raise ValueError("out of range") from None


def _put_string(value: Value, cell: str) -> None:
    value.string_value = cell


def _put_number(value: Value, cell: str) -> None:
    number = float(cell)
    if not math.isfinite(number):
        raise ValueError(cell)
    value.double_value = number


def _put_integer(value: Value, cell: str) -> None:
    value.int_value = int(cell)


def _put_boolean(value: Value, cell: str) -> None:
    flag = _BOOLEANS.get(cell.lower())
    if flag is None:
        raise ValueError(cell)
    value.bool_value = flag


def _put_instant(value: Value, cell: str) -> None:
    value.timestamp_value.FromMicroseconds(_microseconds(cell))


def _put_list(value: Value, cell: str) -> None:
    texts = json.loads(cell)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(cell)
    value.string_list_value.values.extend(texts)
    value.string_list_value.SetInParent()


_PUTS: Mapping[FieldType, Callable[[Value, str], None]] = {
    FieldType.STRING: _put_string,
    FieldType.NUMBER: _put_number,
    FieldType.INTEGER: _put_integer,
    FieldType.BOOLEAN: _put_boolean,
    FieldType.TIMESTAMP: _put_instant,
    FieldType.STRING_LIST: _put_list,
}
