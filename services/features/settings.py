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
    snapshot_events: int = Field(default=500_000, ge=1)
    """A project's state is written to the blob store after so many events,"""
    snapshot_seconds: float = Field(default=60.0, gt=0)
    """or after so long, if there was any event."""
    memory_days: float = Field(default=400.0, gt=0)
    """Events older than this that no window needs are let go from memory (never from the log). Values stay as they
    are; but a correction of such an event does not change a lifetime's value any more."""
    tick_seconds: float = Field(default=0.5, gt=0)
    """How often values that time alone changes are noticed and pushed to watchers."""
    apply_bytes: int = Field(default=512 * 1024, ge=1024)
    """The most bytes of the log applied at once while serving: larger is faster, smaller answers sooner."""
    backfill_bytes: int = Field(default=1024 * 1024, ge=1024)
    """The same for filling what was just published, which runs beside the serving."""
