"""Uploaded tables: rows to fill, or the keys of a segment, in one canonical form under the hash of their content."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv

from services.features.dataset_files import AS_OF
from services.features.snowplow_types import parse_times
from services.kernel.columns import shard_of

KEY, INSTANT = "\x00key", "\x00instant_us"
"""The names of the two columns that say what to fill in; no other column can have them."""
MAX_COLUMNS = 500
_CARRIED = (pa.types.is_string, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_timestamp)


class TableError(ValueError):
    """A table is not what is expected; the text says what is, for people."""


@dataclass(frozen=True, slots=True)
class Supplied:
    """The rows of a part: keys, instants, their numbers in the table, and the other columns."""

    keys: pa.Array
    instants_us: NDArray[np.int64]
    numbers: NDArray[np.int64]
    carried: pa.Table


def canonical(content: bytes, key_column: str, instant_column: str = AS_OF) -> pa.Table:
    """The rows of an uploaded CSV or Parquet file. Raises TableError."""
    table = _read(content)
    names = table.column_names
    if len(names) > MAX_COLUMNS:
        raise TableError(f"has {len(names)} columns: at most {MAX_COLUMNS} are taken")
    if len(set(names)) < len(names) or "" in names:
        raise TableError("has a column without a name, or two of one name")
    for wanted, what in ((key_column, "the key"), (instant_column, "the instant of each row")):
        if wanted not in names:
            raise TableError(f"has no column {wanted}: it holds {what}. There are {', '.join(names[:20])}")
    carried = [name for name in names if name not in (key_column, instant_column)]
    for name in carried:
        if not any(accepts(table.schema.field(name).type) for accepts in _CARRIED):
            raise TableError(f"the column {name} is of type {table.schema.field(name).type}, which cannot be kept")
    try:
        keys = table.column(key_column).cast(pa.string())
        columns = [keys, _instants(table.column(instant_column), instant_column)]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise TableError(
            f"holds keys or instants of a type that cannot be read: {key_column}, {instant_column}"
        ) from error
    return pa.table([*columns, *(table.column(name) for name in carried)], [KEY, INSTANT, *carried])


def of_keys(keys: list[str]) -> pa.Table:
    """A table of keys alone."""
    return pa.table({KEY: pa.array(sorted(set(keys)), pa.string())})


def to_bytes(table: pa.Table) -> tuple[str, bytes]:
    """The table as Parquet, and the hash that it is kept under."""
    sink = io.BytesIO()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", row_group_size=1 << 17)
    content = sink.getvalue()
    return hashlib.sha256(content).hexdigest(), content


def read_keys(path: Path) -> list[str]:
    """The keys of such a table."""
    keys: list[str] = pq.read_table(path, columns=[KEY]).column(KEY).to_pylist()
    return keys


def read_rows(path: Path, shards: tuple[int, int] | None) -> Supplied:
    """The rows of such a table whose keys are of some shards; a null key is of shard 0."""
    table = pq.read_table(path)
    numbers = np.arange(table.num_rows, dtype=np.int64)
    if shards is not None:
        encoded = table.column(KEY).combine_chunks().dictionary_encode()
        by_value = np.fromiter((shard_of(key) for key in encoded.dictionary.to_pylist()), np.int64)
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        of_row = np.append(by_value, 0)[codes]
        numbers = numbers[(of_row >= shards[0]) & (of_row <= shards[1])]
        table = table.take(pa.array(numbers))
    carried = table.drop_columns([KEY, INSTANT])
    keys = table.column(KEY).combine_chunks()
    return Supplied(keys, table.column(INSTANT).to_numpy().astype(np.int64), numbers, carried)


def carried_fields(path: Path) -> list[pa.Field]:
    """The columns that a table has besides key and instant."""
    return [field for field in pq.read_schema(path) if field.name not in (KEY, INSTANT)]


def _read(content: bytes) -> pa.Table:
    try:
        if content[:4] == b"PAR1":
            table = pq.read_table(pa.BufferReader(content))
            plain = [c.cast(c.type.value_type) if pa.types.is_dictionary(c.type) else c for c in table.columns]
            return pa.table(plain, table.column_names)
        names = arrow_csv.open_csv(pa.BufferReader(content)).schema.names
        convert = arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
        )
        parse = arrow_csv.ParseOptions(newlines_in_values=True)
        return arrow_csv.read_csv(pa.BufferReader(content), parse_options=parse, convert_options=convert)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise TableError("cannot be read: give CSV in UTF-8 with a header, or Parquet") from error


def _instants(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    if pa.types.is_timestamp(column.type):
        instants = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())
    elif pa.types.is_integer(column.type):
        instants = column.cast(pa.int64())
    elif pa.types.is_string(column.type):
        instants = pa.chunked_array([parse_times(column.combine_chunks().dictionary_encode())]).cast(pa.int64())
    else:
        raise TableError(f"the column {name} is of type {column.type}: give instants, microseconds or ISO 8601")
    if instants.null_count:
        row = int(pc.index(pc.is_null(instants), True).as_py())
        raise TableError(f"row {row + 1}: {name} is no instant: write it as 2025-05-01T00:00:00Z")
    return instants
