"""The files of an offline training set: the table of rows to fill, and the filled table in one of three forms."""

import csv
import gzip
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from services.features.snowplow import open_bytes
from services.features.snowplow_types import parse_times

AS_OF = "as_of"
_CHUNK = 10_000


class RowsFileError(ValueError):
    """A table is not what is expected; the text says what is, for people, to follow the file's name."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The table to fill: its columns as text (null where empty), and the two that say what to fill in."""

    table: pa.Table
    keys: pa.Array
    instants_us: NDArray[np.int64]


def read_rows(path: Path, key: str, attributes: Sequence[str]) -> Rows:
    """Reads the rows, a CSV (plain or gzip) with the key's column and `as_of`; both names in either case.

    Raises RowsFileError: a column is missing, twice there or named as an attribute, or an instant cannot be read.
    """
    names = _header(path)
    positions = {name.lower(): i for i, name in enumerate(names)}
    for wanted, what in ((key, "the key"), (AS_OF, "the instant of each row")):
        if wanted not in positions:
            raise RowsFileError(f"has no column {wanted}: it holds {what}. There are {', '.join(names)}")
    taken = [name for name in names if name in attributes]
    if taken:
        raise RowsFileError(f"has a column {taken[0]}, which is the name of an attribute: rename one of them")
    table = _read_texts(path, names)
    cells = table.column(positions[AS_OF]).combine_chunks()
    instants = parse_times(cells.dictionary_encode())
    if instants.null_count:
        index = int(np.flatnonzero(instants.is_null())[0])
        text = cells[index].as_py()
        problem = f"{text} is not an instant" if text else "there is no instant"
        raise RowsFileError(f"line {_line_of(path, index)}: {AS_OF}: {problem}: write it as 2025-05-01T00:00:00Z")
    keys = table.column(positions[key]).combine_chunks()
    return Rows(table, keys, instants.to_numpy(zero_copy_only=False).astype(np.int64, copy=False))


def writer_of(path: Path) -> Callable[[pa.Table, Path], None]:
    """What writes a table in the form that the ending of a path asks for. Raises RowsFileError for an unknown one."""
    found = _WRITERS.get(path.suffix.lower())
    if found is None:
        raise RowsFileError(f"has no ending that says its form: write it as {', '.join(_WRITERS)}")
    return found


def write(table: pa.Table, path: Path) -> None:
    """Writes a table in the form of the path's ending, wholly or not at all."""
    writer = writer_of(path)
    part = path.with_name(f"{path.name}.part")
    try:
        writer(table, part)
        os.replace(part, path)
    except OSError as error:
        raise RowsFileError(f"cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


def _open_text(path: Path) -> io.TextIOWrapper:
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    opened = gzip.open(path) if zipped else path.open("rb")  # noqa: SIM115 (closed with the wrapper)
    return io.TextIOWrapper(opened, "utf-8-sig", newline="")


def _header(path: Path) -> list[str]:
    try:
        with _open_text(path) as file:
            names = [name.strip() for name in next(csv.reader(file), [])]
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise RowsFileError(f"cannot be read: {error}") from None
    if not any(names):
        raise RowsFileError("is empty: the first line must name the columns")
    lower = [name.lower() for name in names]
    repeated = [name for name in names if lower.count(name.lower()) > 1]
    if repeated:
        raise RowsFileError(f"has two columns of the name {repeated[0]}")
    return names


def _read_texts(path: Path, names: list[str]) -> pa.Table:
    convert = arrow_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
    )
    read = arrow_csv.ReadOptions(column_names=names, skip_rows=1)
    parse = arrow_csv.ParseOptions(newlines_in_values=True)
    try:
        with open_bytes(path) as source:
            return arrow_csv.read_csv(source, read, parse, convert)
    except (pa.ArrowInvalid, OSError) as error:
        raise RowsFileError(f"cannot be read: {error}") from None


def _line_of(path: Path, index: int) -> int:
    """The line, from 1, on which a row begins: cells may hold several lines, and empty lines are no rows."""
    with _open_text(path) as file:
        reader = csv.reader(file)
        next(reader)
        before = reader.line_num
        for row in reader:
            if row:
                if index == 0:
                    break
                index -= 1
            before = reader.line_num
    return before + 1


def _as_text(value: Any) -> Any:
    """What JSON has no form for."""
    assert isinstance(value, datetime), "all other types have a form"
    return value.isoformat().replace("+00:00", "Z")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_as_text)


def _plain(column: pa.ChunkedArray) -> list[Any]:
    """A column's values as JSON has them: a map is an object."""
    values: list[Any] = column.to_pylist()
    if pa.types.is_map(column.type):
        return [None if value is None else dict(value) for value in values]
    return values


def _write_parquet(table: pa.Table, path: Path) -> None:
    parquet.write_table(table, path)


def _write_lines(table: pa.Table, path: Path) -> None:
    names = table.column_names
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for start in range(0, table.num_rows, _CHUNK):
            columns = [_plain(column) for column in table.slice(start, _CHUNK).columns]
            for row in zip(*columns, strict=True):
                file.write(_json(dict(zip(names, row, strict=True))) + "\n")


def _write_csv(table: pa.Table, path: Path) -> None:
    arrow_csv.write_csv(pa.table([flat(column) for column in table.columns], table.column_names), str(path))


def flat(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as CSV can hold it: lists and maps as JSON text, instants as ISO 8601."""
    if pa.types.is_nested(column.type):
        return pa.chunked_array([[None if v is None else _json(v) for v in _plain(column)]], pa.string())
    if pa.types.is_timestamp(column.type):
        distinct = pc.unique(column)
        texts = pa.array([None if v is None else _as_text(v) for v in distinct.to_pylist()], pa.string())
        return texts.take(pc.index_in(column, distinct))
    return column


_WRITERS: Mapping[str, Callable[[pa.Table, Path], None]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".jsonl": _write_lines,
}
