"""Reads Snowplow's events from CSV, as its warehouses export them, into batches of the log's schema.

Column names come in either case. `event_id`, `event_vendor`, `event_name` (else `event`), `event_version` and
`derived_tstamp` (else, row by row, `collector_tstamp`) make the event; every column is an atomic property too, with its
name in lower case: text, but for those that Snowplow has as numbers or booleans. An empty cell is null. Columns of JSON
(`contexts…`, `derived_contexts`, `unstruct_event…`) become entities and the event's own data. Everything is done on
whole columns, and JSON once per distinct text.
"""

import csv
import gzip
import io
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from services.features.snowplow_json import Coordinates, Exploded, JsonColumn, json_columns
from services.features.snowplow_types import KINDS, parse_cells, parse_times
from services.kernel.columns import ADD, DICTIONARY, FIXED_FIELDS, EventBatch, key_column, sorted_columns

BLOCK_BYTES = 16 << 20
TIME_COLUMNS = ("derived_tstamp", "collector_tstamp")
NAME_COLUMNS = ("event_name", "event")


class SnowplowFileError(ValueError):
    """The file is not what is expected; the text says what is, for people."""


class SnowplowReader:
    """One file. `entities` are the coordinates that definitions look at: a column name alone does not tell a vendor.

    After reading, `rows` says how many lines there were and `skipped` how many of them had no time that could be read.
    """

    def __init__(self, path: Path, attribute_key: str, entities: Collection[Coordinates] = ()) -> None:
        self._path = path
        self._key = attribute_key
        self.rows = 0
        self.skipped = 0
        self._names, self._delimiter = read_header(path)
        self._positions = {name: i for i, name in enumerate(self._names)}
        self._check()
        self._json = json_columns(self._names, entities)

    def _check(self) -> None:
        if self._key not in self._positions:
            raise SnowplowFileError(f"no column {self._key}: it holds the key. There are {', '.join(self._names)}")
        if not any(name in self._positions for name in TIME_COLUMNS):
            raise SnowplowFileError(f"no column {' or '.join(TIME_COLUMNS)}: it holds the time of an event")
        if not any(name in self._positions for name in NAME_COLUMNS):
            raise SnowplowFileError(f"no column {' or '.join(NAME_COLUMNS)}: it holds the name of an event")

    def batches(self) -> Iterator[EventBatch]:
        """The events in the order of the file. SnowplowFileError for a file that cannot be read to its end."""
        types = {name: pa.string() if name == "event_id" else DICTIONARY for name in self._names}
        convert = arrow_csv.ConvertOptions(
            column_types=types, strings_can_be_null=True, quoted_strings_can_be_null=True, null_values=[""]
        )
        # The names are given and the header skipped, because upper-case names stand for the same columns.
        read = arrow_csv.ReadOptions(block_size=BLOCK_BYTES, column_names=self._names, skip_rows=1)
        parse = arrow_csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True)
        try:
            with open_bytes(self._path) as source, arrow_csv.open_csv(source, read, parse, convert) as blocks:
                for block in blocks:
                    yield EventBatch(self._batch(block))
        except (pa.ArrowInvalid, OSError) as error:
            raise SnowplowFileError(f"cannot be read: {error}") from None

    def _batch(self, block: pa.RecordBatch) -> pa.RecordBatch:
        times = self._times(block)
        first_line = self.rows + 2
        self.rows += block.num_rows
        ids = self._ids(block, first_line)
        if times.null_count:
            kept = times.is_valid()
            self.skipped += times.null_count
            block, times, ids = block.filter(kept), times.filter(kept), ids.filter(kept)
        count = block.num_rows
        columns: dict[str, pa.Array] = {
            "event_id": ids,
            "event_type": self._types(block),
            "occurred_at": times,
            # Received all at once: the horizon within which an id counts once is the whole file.
            "received_at": pa.array(np.zeros(count, np.int64)),
            "operation": pa.array(np.full(count, ADD, np.int8)),
            "revision": pa.array(np.zeros(count, np.int32)),
            "fingerprint": pa.array(np.zeros(count, np.uint64)),
            key_column(self._key): self._column(block, self._key),
        }
        for name in self._names:
            if name not in self._json:
                kind = KINDS.get(name, "s")
                columns[f"a.{name}:{kind}"] = parse_cells(self._column(block, name), kind)
        for name, column in self._json.items():
            self._add_json(columns, column, self._column(block, name))
        fixed = {field.name for field in FIXED_FIELDS}
        names = [name for name in sorted_columns(columns) if name in fixed or columns[name].null_count < count]
        return pa.RecordBatch.from_arrays([columns[name] for name in names], names=names)

    def _column(self, block: pa.RecordBatch, name: str) -> pa.Array:
        position = self._positions.get(name)
        if position is None:
            return pa.nulls(block.num_rows, DICTIONARY)
        found = block.column(position)
        return found.dictionary_encode() if pa.types.is_string(found.type) else found

    def _text(self, block: pa.RecordBatch, name: str) -> pa.Array:
        return self._column(block, name).cast(pa.string())

    def _times(self, block: pa.RecordBatch) -> pa.Array:
        derived, collector = (parse_times(self._column(block, name)) for name in TIME_COLUMNS)
        return pc.coalesce(derived, collector)

    def _ids(self, block: pa.RecordBatch, first_line: int) -> pa.Array:
        ids = self._text(block, "event_id")
        if not ids.null_count:
            return ids
        # An event without an id counts by itself.
        return pc.coalesce(ids, pa.array([f"line {first_line + i}" for i in range(block.num_rows)]))

    def _types(self, block: pa.RecordBatch) -> pa.Array:
        name = pc.coalesce(*(self._text(block, each) for each in NAME_COLUMNS))
        parts = (self._text(block, "event_vendor"), name, self._text(block, "event_version"))
        joined = pc.binary_join_element_wise(*parts, "/", null_handling="replace", null_replacement="")
        return joined.dictionary_encode()

    def _add_json(self, columns: dict[str, pa.Array], column: JsonColumn, cells: pa.Array) -> None:
        exploded: Exploded = column.explode(cells.dictionary.to_pylist())
        for name, values in exploded.items():
            found = values.take(cells.indices)
            columns[name] = pc.coalesce(columns[name], found) if name in columns else found


def open_bytes(path: Path) -> pa.NativeFile:
    """The file's bytes, gzip undone; it is known by its first bytes, not by its name."""
    raw = pa.OSFile(str(path), "rb")
    magic = raw.read(2)
    raw.seek(0)
    return pa.CompressedInputStream(raw, "gzip") if magic == b"\x1f\x8b" else raw


def read_header(path: Path) -> tuple[list[str], str]:
    """The names of the columns in lower case, and the separator: a tab when the header has one, else a comma."""
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    try:
        opened = gzip.open(path) if zipped else path.open("rb")  # noqa: SIM115
        with io.TextIOWrapper(opened, "utf-8-sig") as file:
            line = file.readline()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise SnowplowFileError(f"cannot be read: {error}") from None
    delimiter = "\t" if "\t" in line else ","
    names = [name.strip().lower() for name in next(csv.reader([line], delimiter=delimiter), [])]
    if not any(names):
        raise SnowplowFileError("is empty: the first line must name the columns")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise SnowplowFileError(f"has two columns of the name {repeated[0]}")
    return names, delimiter
