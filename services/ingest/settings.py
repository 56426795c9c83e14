"""Settings of the ingest service: the environment variables INKLING_INGEST_*."""

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from services.runtime.settings import MEBIBYTE, Settings


class IngestSettings(Settings):
    """What ingest can be told beyond what every service can."""

    name: ClassVar[str] = "ingest"

    port: int = Field(default=7001, ge=0, le=65535)
    max_receive_bytes: int = Field(default=9 * MEBIBYTE, ge=1024)
    """The largest message taken; a request has at most 8 MiB, and larger ones are told so."""
    log_url: str = ""
    """The event log: `sqlite:///FILE` or `postgresql://…`. Default: `log.db` in `data_dir`."""
    log_tail_bytes: int = Field(default=64 * MEBIBYTE, ge=0)
    """The newest batches stay in memory up to this, for subscribers that keep up."""
    archive: bool = True
    """Write the log to the archive (Parquet in `data_dir`)."""
    archive_flush_seconds: float = Field(default=300.0, gt=0)
    """Events wait at most so long for the archive,"""
    archive_flush_bytes: int = Field(default=32 * MEBIBYTE, ge=1)
    """and at most so many bytes of them."""
    retention_seconds: float = Field(default=300.0, gt=0)
    """How often the log, the archive and the dead letters are trimmed."""
    waiting_bytes: int = Field(default=64 * MEBIBYTE, ge=MEBIBYTE)
    """Requests that wait to be stored may have so many bytes together; half of them in one project."""
    stream_window: int = Field(default=16, ge=1)
    """How many batches of an IngestStream may be on their way."""
    idle_seconds: float = Field(default=1.0, gt=0)
    """How often an idle subscriber hears of the head of the log."""

    insights_target: str = ""
    """Where insights are, for requests that wait for them; empty: these are told that nothing was evaluated. It need
    not be up. It is shown `service_key`."""
    insights_ca_file: Path | None = None
    """Authorities of its certificate; plaintext without."""

    @model_validator(mode="before")
    @classmethod
    def _fill_log_url(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("log_url"):
            return values
        data_dir = values.get("data_dir") or cls.model_fields["data_dir"].default
        return {**values, "log_url": f"sqlite:///{data_dir}/log.db"}
