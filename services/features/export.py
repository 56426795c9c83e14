"""Profiles as a table: every key of a projection, or some, all at one instant.

The projection is frozen while the columns are gathered, as for a snapshot: it can be read but does not change, so all
values hold at one position and instant. They are gathered in a thread, some keys at a time, into a file that is only
copied memory; what takes long, compressing or printing, comes after.
"""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv

from services.features.catalog import Catalog
from services.features.compile import compile_attribute
from services.features.dataset import ARROW_TYPES, typed
from services.features.dataset_files import flat
from services.features.definitions import Attribute, GroupState
from services.features.listing import texts_of, union_of
from services.features.projection import Projection, Slot
from services.features.properties import PropertyDefinition, compile_property
from services.features.rollups import VALUE_TYPES
from services.features.selections import Chosen, Selection, choose, choose_more, key_of_selection
from services.features.values import Status
from services.kernel.aggregations import Aggregation
from services.kernel.asof import STATUSES
from services.kernel.engine import Engine

CHUNK = 65_536
STATUS_TYPE = pa.dictionary(pa.int8(), pa.string())
_KERNEL_STATUSES = np.array([Status[status.name] for status in STATUSES], np.int8)
_STATUS_NAMES = pa.array(["", *(status.name for status in Status)], pa.string())


@dataclass(frozen=True, slots=True)
class Exported:
    """One value that is exported: what serving calls it, and where it is computed."""

    attribute: Attribute
    """Its name, type and default; a property's are written as an attribute's."""
    aggregation: Aggregation
    group_id: str
    unavailable: Status | None
    """Why there is no value yet, if there is none."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What is exported of each key."""

    attribute_key: str
    values: tuple[Exported, ...]
    statuses: bool

    @classmethod
    def of(cls, catalog: Catalog, selection: Selection, attribute_key: str, *, statuses: bool) -> "Columns":
        """What a selection means: attributes and properties. Raises as reading does."""
        chosen = choose(catalog, selection, attribute_key)
        own_key = key_of_selection(catalog, chosen, attribute_key)
        properties = choose_more(catalog, selection, own_key).properties
        values = [_attribute(each, own_key) for each in chosen] + [_property(each) for each in properties]
        return cls(own_key, tuple(values), statuses)

    @property
    def names(self) -> list[str]:
        """The names of the columns, the key first. Where several values have one name, the group's id is before it."""
        return [self.attribute_key, *(name for label in self._labels for name in self._with_status(label))]

    @property
    def _labels(self) -> list[str]:
        plain = [each.attribute.name for each in self.values]
        return [
            f"{each.group_id}.{name}" if plain.count(name) > 1 or name == self.attribute_key else name
            for each, name in zip(self.values, plain, strict=True)
        ]

    def _with_status(self, label: str) -> list[str]:
        return [label, f"{label}.status"] if self.statuses else [label]

    @property
    def schema(self) -> pa.Schema:
        """The types of the columns."""
        types = [pa.string()]
        for each in self.values:
            types += [_arrow_type(each), *([STATUS_TYPE] if self.statuses else [])]
        return pa.schema(list(zip(self.names, types, strict=True)))


def _attribute(chosen: Chosen, attribute_key: str) -> Exported:
    unavailable = None if chosen.state is GroupState.SERVING else Status.BACKFILLING
    if chosen.group.attribute_key != attribute_key:
        unavailable = Status.WRONG_KEY
    return Exported(chosen.attribute, compile_attribute(chosen.attribute), chosen.group.group_id, unavailable)


def _property(definition: PropertyDefinition) -> Exported:
    assert definition.type is not None, "validated before"
    attribute = Attribute(definition.property_id, VALUE_TYPES[definition.type])
    return Exported(attribute, compile_property(definition), "properties", None)


def _arrow_type(exported: Exported) -> pa.DataType:
    assert exported.attribute.type is not None, "validated before"
    return ARROW_TYPES[exported.attribute.type]


@dataclass(frozen=True, slots=True)
class Gathered:
    """Where the gathered columns are, and what they hold for."""

    path: Path
    rows: int
    position: int
    as_of_us: int


async def gather(
    projection: Projection, columns: Columns, keys: Sequence[str] | None, folder: Path, done: Callable[[int, int], None]
) -> Gathered:
    """Writes the values of some keys, None for all in order, to an Arrow file below `folder`, which the caller removes.

    `done` hears how many of how many keys are read; it is called in a thread.
    """
    path = folder / "gathered.arrow"
    await projection.wait_changeable()
    projection.advance()
    with projection.freezing() as fold:
        slots = [_slot(projection, columns.attribute_key, each) for each in columns.values]
        texts = texts_of(projection, columns.attribute_key) if keys is None else []
        position, as_of_us = fold.position, fold.as_of_us
        rows = await asyncio.to_thread(_gather, columns, slots, keys, texts, path, done)
    return Gathered(path, rows, position, as_of_us)


def _slot(projection: Projection, attribute_key: str, exported: Exported) -> Slot | Status:
    """Where a value is, or why it is nowhere."""
    if exported.unavailable is not None:
        return exported.unavailable
    return projection.slot(attribute_key, exported.aggregation) or Status.BACKFILLING


def _gather(
    columns: Columns,
    slots: Sequence[Slot | Status],
    keys: Sequence[str] | None,
    texts: list[pa.Array],
    path: Path,
    done: Callable[[int, int], None],
) -> int:
    if keys is None:
        values = union_of(texts) if texts else pa.array([], pa.large_string())
    else:
        values = pa.array(keys, pa.large_string())
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, columns.schema) as writer:
        for start in range(0, len(values), CHUNK):
            chunk = values.slice(start, CHUNK).cast(pa.string())
            writer.write_batch(_batch(columns, slots, chunk))
            done(start + len(chunk), len(values))
    return len(values)


def _batch(columns: Columns, slots: Sequence[Slot | Status], keys: pa.Array) -> pa.RecordBatch:
    codes = {slot.engine: slot.engine.key_codes.known_codes(keys) for slot in slots if isinstance(slot, Slot)}
    arrays: list[pa.Array] = [keys]
    for exported, slot in zip(columns.values, slots, strict=True):
        value, statuses = _values(exported, slot, codes, len(keys))
        arrays.append(value)
        if columns.statuses:
            arrays.append(pa.DictionaryArray.from_arrays(pa.array(statuses), _STATUS_NAMES))
    return pa.record_batch(arrays, schema=columns.schema)


def _values(
    exported: Exported, slot: Slot | Status, codes: dict[Engine, NDArray[np.int32]], count: int
) -> tuple[pa.Array, NDArray[np.int8]]:
    if isinstance(slot, Status):
        return pa.nulls(count, _arrow_type(exported)), np.full(count, slot, np.int8)
    column = slot.engine.column(slot.place, codes[slot.engine])
    value = typed(exported.attribute, column)
    statuses = _KERNEL_STATUSES[column.statuses]
    if value.null_count:
        unfit = value.is_null().to_numpy(False) & column.values.is_valid().to_numpy(False)
        statuses[unfit] = Status.OUT_OF_RANGE
    return value, statuses


def write_parquet(gathered: Gathered, target: Path) -> None:
    """The gathered columns as Parquet."""
    with pa.memory_map(str(gathered.path)) as source:
        reader = pa.ipc.open_file(source)
        facts = {"inkling.position": str(gathered.position), "inkling.as_of_us": str(gathered.as_of_us)}
        schema = reader.schema.with_metadata(facts)
        with pq.ParquetWriter(target, schema, compression="zstd") as writer:
            for batch in _batches(reader):
                writer.write_batch(batch.replace_schema_metadata(facts))


def write_csv(gathered: Gathered, target: Path) -> None:
    """The gathered columns as CSV: lists and counts as JSON, instants as ISO 8601."""
    with pa.memory_map(str(gathered.path)) as source, target.open("wb") as sink:
        reader = pa.ipc.open_file(source)
        empty = pa.table([flat(pa.chunked_array([], f.type)) for f in reader.schema], reader.schema.names)
        arrow_csv.write_csv(empty, sink)
        for batch in _batches(reader):
            table = pa.Table.from_batches([batch])
            plain = pa.table([flat(_decoded(column)) for column in table.columns], table.column_names)
            arrow_csv.write_csv(plain, sink, arrow_csv.WriteOptions(include_header=False))


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column


def _batches(reader: pa.ipc.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    for i in range(reader.num_record_batches):
        yield reader.get_batch(i)


@contextlib.contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A folder for the time of an export, readable by nobody else."""
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="export-", dir=parent) as folder:
        yield Path(folder)
