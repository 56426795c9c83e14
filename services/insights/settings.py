"""Settings of the insights service: the environment variables INKLING_INSIGHTS_*."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from services.runtime.settings import Settings


class InsightsSettings(Settings):
    """What insights can be told beyond what every service can."""

    name: ClassVar[str] = "insights"

    port: int = Field(default=7003, ge=0, le=65535)
    ingest_target: str = "127.0.0.1:7001"
    """Where ingest is: the log that insights are evaluated over. It is shown `service_key`."""
    ingest_ca_file: Path | None = None
    """Authorities of ingest's certificate; plaintext without."""
    ingest_compression: Literal["none", "lz4", "zstd"] = "none"
    """How ingest sends the log."""
    features_target: str = "127.0.0.1:7002"
    """Where features is: rules set properties there, and ask whether a user consents. It is shown `service_key`."""
    features_ca_file: Path | None = None
    """Authorities of its certificate; plaintext without."""
    consent_property: str = "consent"
    """Rules do nothing for users for whom this property says no (false, or the text no, false or denied). Empty: nobody
    is asked."""
    webhook_secret: str = ""
    """The secrets that webhooks of rules are signed with are made of it. Default: a random one, kept in `data_dir`."""
    webhook_private_addresses: bool = False
    """Whether webhooks of rules may be on private and loopback addresses: everybody who makes rules is trusted then."""
    memory_days: float = Field(default=400.0, gt=0)
    """Events that rules counted, and rows that no insight looks at any more, are let go from memory (never from the
    log) when they are older than this. Values and verdicts stay as they are; but a correction of such an event does not
    change what rules counted any more, and what is tried out sees only the rows that are left."""
    snapshot_events: int = Field(default=500_000, ge=1)
    """A project's state is written to the blob store after so many events,"""
    snapshot_seconds: float = Field(default=60.0, gt=0)
    """or after so long, if there was any event."""
    tick_seconds: float = Field(default=0.5, gt=0)
    """How often insights that time alone changes are noticed and pushed to watchers."""
    apply_bytes: int = Field(default=512 * 1024, ge=1024)
    """The most bytes of the log applied at once: larger is faster, smaller answers sooner."""
    journal_days: float = Field(default=30.0, gt=0)
    """How long changes are kept for watchers that come back,"""
    journal_changes: int = Field(default=1_000_000, ge=1)
    """and how many of them at most, of each project."""
    unbounded_is_error: bool = False
    """Whether a query must bound its rows in time with DATETIME_FROM."""
