"""All that a partition's computation needs, as one value that can be sent to another process."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from services.features.archive import ArchiveListing, columns_of, read_events
from services.features.datasets.goals import InsightLabels
from services.features.datasets.rolled import RolledColumn
from services.features.datasets.spec import DatasetSpec
from services.features.definitions import Attribute
from services.kernel.aggregations import Aggregation
from services.kernel.columns import SHARDS, EventBatch, key_column

_READ_ROWS = 131_072


@dataclass(frozen=True, slots=True)
class FeatureColumn:
    """One feature: where it comes from, and the column that it becomes."""

    feature_id: str
    """{group}/{version}:{attribute}, or properties.{name}."""
    column: str
    attribute: Attribute
    """Its type and default."""
    aggregation: Aggregation


class EventSource(Protocol):
    """Where events come from; picklable."""

    def batches(self, aggregations: list[Aggregation], shards: tuple[int, int] | None) -> Iterator[EventBatch]:
        """The records that the aggregations look at, in log order, of the keys of some shards (None: all)."""
        ...


@dataclass(frozen=True, slots=True)
class ArchiveSource:
    """The archive of a project up to a position."""

    blobs_root: Path
    listing: ArchiveListing
    attribute_key: str
    up_to_position: int
    before_us: int

    def batches(self, aggregations: list[Aggregation], shards: tuple[int, int] | None) -> Iterator[EventBatch]:
        """See EventSource."""
        return read_events(
            self.blobs_root,
            self.listing,
            columns=columns_of(aggregations),
            attribute_key=self.attribute_key,
            shards=shards,
            before_us=self.before_us,
            up_to_position=self.up_to_position,
            max_rows=_READ_ROWS,
        )

    def of_keys(
        self, attribute_key: str, aggregations: list[Aggregation], keys: Collection[str]
    ) -> Iterator[EventBatch]:
        """The records that aggregations of another attribute key look at: of some of its values, or of all."""
        return read_events(
            self.blobs_root,
            self.listing,
            columns=columns_of(aggregations) | {key_column(attribute_key)},
            attribute_key=attribute_key,
            key_values=keys,
            before_us=self.before_us,
            up_to_position=self.up_to_position,
            max_rows=_READ_ROWS,
        )


@dataclass(frozen=True, slots=True)
class Job:
    """A pinned training set, ready to be computed."""

    project: str
    spec: DatasetSpec
    """Pinned: key, versions, position, instant and partitions are given."""
    as_of_us: int
    source: EventSource
    features: tuple[FeatureColumn, ...]
    rollups: tuple[RolledColumn, ...] = ()
    creation: Aggregation | None = None
    """The declared property that tells when a key was created; None: its first event."""
    complete_since_us: int | None = None
    input_path: Path | None = None
    """The uploaded rows, or the members of a segment."""
    insights: InsightLabels | None = None

    @property
    def partitions(self) -> int:
        """How many parts there are."""
        return self.spec.partitions

    def shards(self, partition: int) -> tuple[int, int] | None:
        """The first and the last shard of a part; None when it has all."""
        if self.partitions == 1:
            return None
        return SHARDS * partition // self.partitions, SHARDS * (partition + 1) // self.partitions - 1
