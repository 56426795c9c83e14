"""Settings of the features service: the environment variables INKLING_FEATURES_*."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from services.runtime.settings import Settings


class FeaturesSettings(Settings):
    """What features can be told beyond what every service can."""

    name: ClassVar[str] = "features"

    port: int = Field(default=7002, ge=0, le=65535)
    ingest_target: str = "127.0.0.1:7001"
    """Where ingest is: the log that attributes are computed from. It is shown `service_key`."""
    ingest_ca_file: Path | None = None
    """Authorities of ingest's certificate; plaintext without."""
    ingest_compression: Literal["none", "lz4", "zstd"] = "none"
    """How ingest sends the log. Compression costs it more than the event itself; it pays across slow networks."""
    archive_dir: Path | None = None
    """The root of the blob store that ingest archives to. Default: `blobs` in `data_dir`, which the services share."""
    parity_sample: float = Field(default=0.001, ge=0, le=1)
    """The part of the profiles served that is recomputed from the archive and compared, as a proof."""
    parity_seconds: float = Field(default=30.0, gt=0)
    """How often those that waited for the archive are recomputed."""
    parity_queue: int = Field(default=1_000, ge=1)
    """How many may wait; more are left out, and counted."""
    snapshot_events: int = Field(default=500_000, ge=1)
    """A project's state is written to the blob store after so many events,"""
    snapshot_seconds: float = Field(default=60.0, gt=0)
    """or after so long, if there was any event."""
    memory_days: float = Field(default=400.0, gt=0)
    """Events older than this that no window needs are let go from memory (never from the log). Values stay as they
    are; but a correction of such an event does not change a lifetime's value any more."""
    tick_seconds: float = Field(default=0.5, gt=0)
    """How often values that time alone changes are noticed and pushed to watchers."""
    journal_days: float = Field(default=30.0, gt=0)
    """Who entered and left segments is kept so long for watchers that were away,"""
    journal_entries: int = Field(default=1_000_000, ge=1)
    """and at most so many changes of a project."""
    apply_bytes: int = Field(default=512 * 1024, ge=1024)
    """The most bytes of the log applied at once while serving: larger is faster, smaller answers sooner."""
    backfill_bytes: int = Field(default=1024 * 1024, ge=1024)
    """The same for filling what was just published, which runs beside the serving."""
    dataset_partition_events: int = Field(default=4_000_000, ge=1)
    """The archive's events for each part of a training set: a part is in memory as a whole."""
    dataset_ray_events: int = Field(default=4_000_000, ge=0)
    """From so many events in the archive on, training sets are computed as Ray tasks, beneath that in this process."""
    dataset_upload_bytes: int = Field(default=256 * 1024 * 1024, ge=1024)
    """The largest table of rows to compute that may be uploaded."""
    insights_target: str = ""
    """Where insights are, for training sets whose goal is an insight (empty: such goals are refused) and for erasures
    (empty: insights are not asked to forget). It is shown `service_key`."""
    insights_ca_file: Path | None = None
    """Authorities of that service's certificate; plaintext without."""
    ray_address: str = ""
    """A Ray cluster; empty starts one on this machine when it is first needed."""
    ray_cpus: int = Field(default=2, ge=1)
    """How many tasks run at once, and how many CPUs a cluster of our own has."""

    @property
    def archive_root(self) -> Path:
        """Where the archive's files are."""
        return self.archive_dir or self.data_dir / "blobs"
