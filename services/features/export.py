"""Profiles as a table: every key of a projection, or some, all at one instant.

The projection stands still while the arrays of its engines are copied, as for a snapshot; then it goes on, and the
columns are gathered from the copy in a thread, some keys at a time. So all values hold at one position and instant, and
an export costs the serving no more than a snapshot does, however long the lists are.
"""

import asyncio
import contextlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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
from services.features.export_parts import SEGMENTS_TYPE, ExportedRollup, RollupColumns, Roster, segments_column
from services.features.listing import union_of
from services.features.projection import Projection
from services.features.properties import PropertyDefinition, compile_property
from services.features.rollups import VALUE_TYPES
from services.features.selections import Chosen, Selection, choose, choose_more, key_of_selection
from services.features.values import Status
from services.kernel import snapshots
from services.kernel.aggregations import Aggregation
from services.kernel.asof import STATUSES, Column
from services.kernel.engine import Engine
from services.kernel.fold import Fold

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
    rollups: tuple[ExportedRollup, ...] = ()
    segments: bool = False

    @classmethod
    def of(cls, catalog: Catalog, selection: Selection, attribute_key: str, *, statuses: bool) -> "Columns":
        """What a selection means. Raises as reading does."""
        chosen = choose(catalog, selection, attribute_key)
        own_key = key_of_selection(catalog, chosen, attribute_key)
        more = choose_more(catalog, selection, own_key)
        values = [_attribute(each, own_key) for each in chosen] + [_property(each) for each in more.properties]
        rollups = tuple(ExportedRollup.of(catalog, each) for each in more.rollups)
        return cls(own_key, tuple(values), statuses, rollups, more.segments)

    @property
    def names(self) -> list[str]:
        """The names of the columns, the key first. Where several values have one name, the group's id is before it."""
        named = [name for label in self._labels for name in self._with_status(label)]
        segments = ["profile.segments" if "segments" in named else "segments"] if self.segments else []
        return [self.attribute_key, *named, *segments]

    @property
    def _labels(self) -> list[str]:
        named = [(each.group_id, each.attribute.name) for each in self.values]
        named += [("rollups", each.definition.rollup_id) for each in self.rollups]
        counts = Counter(name for _, name in named)
        return [
            f"{group_id}.{name}" if counts[name] > 1 or name == self.attribute_key else name for group_id, name in named
        ]

    def _with_status(self, label: str) -> list[str]:
        return [label, f"{label}.status"] if self.statuses else [label]

    @property
    def schema(self) -> pa.Schema:
        """The types of the columns."""
        types = [pa.string()]
        for kind in (*map(_arrow_type, self.values), *(ARROW_TYPES[each.type] for each in self.rollups)):
            types += [kind, *([STATUS_TYPE] if self.statuses else [])]
        types += [SEGMENTS_TYPE] if self.segments else []
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
    still_seconds: float
    """How long the projection stood still."""


class Place(NamedTuple):
    """Where a value is computed: the number of the engine, and the aggregation's place in it."""

    engine: int
    number: int


async def gather(
    projection: Projection,
    columns: Columns,
    keys: Sequence[str] | None,
    folder: Path,
    done: Callable[[int, int], None],
    rosters: Callable[[], Sequence[Roster]] = tuple,
) -> Gathered:
    """Writes the values of some keys, None for all in order, to an Arrow file below `folder`, which the caller removes.

    `rosters` gives the members of segments as published. `done` hears how many of how many keys are read; it is called
    in a thread.
    """
    path = folder / "gathered.arrow"
    await projection.wait_changeable()
    projection.advance()
    begun = time.perf_counter()
    with projection.freezing() as fold:
        part = Fold(fold.clock)
        part.position, part.as_of_us = fold.position, fold.as_of_us
        needed = [slot.engine for each in columns.rollups for one in each.needed if (slot := projection.slot(*one))]
        mine = columns.attribute_key
        part.engines = [engine for engine in fold.engines if engine.attribute_key == mine or engine in needed]
        members = rosters() if columns.segments else ()
        places = [_place(part, each, mine) for each in columns.values]
        manifest, arrays = await asyncio.to_thread(snapshots.freeze, part)
    still = time.perf_counter() - begun
    sources = _Sources(columns, places, lambda: _copy(manifest, arrays).engines, members)
    rows = await asyncio.to_thread(_gather, sources, keys, path, done)
    return Gathered(path, rows, part.position, part.as_of_us, still)


def _copy(manifest: dict[str, Any], arrays: dict[str, NDArray[np.generic]]) -> Fold:
    return snapshots.thaw(manifest, arrays)


def _place(fold: Fold, exported: Exported, attribute_key: str) -> Place | Status:
    """Where a value is, or why it is nowhere."""
    if exported.unavailable is not None:
        return exported.unavailable
    for number, engine in enumerate(fold.engines):
        index = engine.index_of(exported.aggregation) if engine.attribute_key == attribute_key else None
        if index is not None:
            return Place(number, index)
    return Status.BACKFILLING


class _Sources:
    """Where the values of an export come from, once the projection goes on."""

    def __init__(
        self,
        columns: Columns,
        places: Sequence[Place | Status],
        copy: Callable[[], Sequence[Engine]],
        rosters: Sequence[Roster],
    ) -> None:
        self.columns = columns
        self.places = places
        self.copy = copy
        self.rosters = rosters


def _gather(sources: _Sources, keys: Sequence[str] | None, path: Path, done: Callable[[int, int], None]) -> int:
    columns, engines = sources.columns, sources.copy()
    rollups = RollupColumns(columns.rollups, engines)
    if keys is not None:
        values = pa.array(keys, pa.large_string())
    else:
        own = [engine.key_codes.array() for engine in engines if engine.attribute_key == columns.attribute_key]
        # Whom others refer to is a profile, also when nothing is known of it by itself.
        values = union_of([*own, *rollups.targets()])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, columns.schema) as writer:
        for start in range(0, len(values), CHUNK):
            chunk = values.slice(start, CHUNK).cast(pa.string())
            writer.write_batch(_batch(sources, engines, rollups, chunk))
            done(start + len(chunk), len(values))
    return len(values)


def _batch(sources: _Sources, engines: Sequence[Engine], rollups: RollupColumns, keys: pa.Array) -> pa.RecordBatch:
    columns = sources.columns
    codes = [engine.key_codes.known_codes(keys) for engine in engines]
    arrays: list[pa.Array] = [keys]

    def add(value: pa.Array, statuses: NDArray[np.int8]) -> None:
        arrays.append(value)
        if columns.statuses:
            arrays.append(pa.DictionaryArray.from_arrays(pa.array(statuses), _STATUS_NAMES))

    for exported, place in zip(columns.values, sources.places, strict=True):
        if isinstance(place, Status):
            add(pa.nulls(len(keys), _arrow_type(exported)), np.full(len(keys), place, np.int8))
        else:
            add(*_values(exported, engines[place.engine].column(place.number, codes[place.engine])))
    for number in range(len(columns.rollups)):
        add(*rollups.values(number, keys))
    if columns.segments:
        arrays.append(segments_column(keys, sources.rosters))
    return pa.record_batch(arrays, schema=columns.schema)


def _values(exported: Exported, column: Column) -> tuple[pa.Array, NDArray[np.int8]]:
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
