"""Settings of a process: read once from the environment, frozen, refused when misspelt."""

import difflib
import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

MEBIBYTE = 1024 * 1024


class SettingsError(ValueError):
    """The environment holds a variable that is unknown or has a value that does not fit; the text says which."""


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


CommaSeparated = Annotated[tuple[str, ...], BeforeValidator(_split)]
"""Several strings, in the environment separated by commas."""


class Settings(BaseModel):
    """What every service can be told. A service subclasses it, sets `name` and adds fields of its own.

    Sizes are bytes, times seconds, unless the name says otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    name: ClassVar[str] = "service"
    """The service's name: the file of its embedded database, and the owner of its operations."""

    host: str = "127.0.0.1"
    """The address to listen on. Other than loopback only with TLS, `allow_plaintext` or `insecure`."""
    port: int = Field(default=0, ge=0, le=65535)
    """The port of the gRPC server; 0 takes a free one, which the log names."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """The port of the Prometheus metrics; 0 serves none."""
    data_dir: Path = Path(".data")
    """Where the embedded databases and blobs are."""
    database_url: str = ""
    """The service's own database: `sqlite:///FILE` or `postgresql://…`. Default: a file in `data_dir`."""
    auth_database_url: str = ""
    """The database of API keys, shared by the services. Default: `auth.db` in `data_dir`."""
    insecure: bool = False
    """Serve callers without a key as project `default` with every role. For trying things out."""
    allow_plaintext: bool = False
    """Listen without TLS on an address other than loopback: when a mesh or a proxy encrypts."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """DEBUG logs every call; INFO those that fail or are slow."""
    log_format: Literal["json", "text"] = "json"
    log_exception_text: bool = False
    """Log the messages of unexpected exceptions too. They may quote personal data."""
    reflection: bool = True
    """Serve gRPC reflection. Off in production."""
    otlp_endpoint: str = ""
    """Where traces go (`http://collector:4317`); empty traces nothing. Needs the `telemetry` extra."""

    drain_seconds: float = Field(default=3.0, ge=0)
    """After SIGTERM: how long to go on serving as NOT_SERVING, while balancers notice."""
    grace_seconds: float = Field(default=5.0, ge=0)
    """After draining: how long calls may take to end."""
    max_concurrent_rpcs: int = Field(default=4096, ge=1)
    """More calls at once are refused with RESOURCE_EXHAUSTED."""
    max_receive_bytes: int = Field(default=16 * MEBIBYTE, ge=1024)
    """The largest message taken."""
    max_send_bytes: int = Field(default=32 * MEBIBYTE, ge=1024)
    """The largest message sent."""
    max_connection_age_seconds: float = Field(default=300.0, gt=0)
    """Connections are renewed after this time, so that new replicas get traffic."""
    max_connection_age_grace_seconds: float = Field(default=3600.0, gt=0)
    """How long calls on an old connection may go on."""
    keepalive_seconds: float = Field(default=60.0, ge=10)
    """How often an idle connection is checked."""
    so_reuseport: bool = False
    """Share the port with other processes."""

    service_key: str = Field(default="", repr=False)
    """The credential that services show each other when there are no certificates; at least 32 characters."""
    key_cache_seconds: float = Field(default=15.0, ge=0)
    """How long a verified or refused key is remembered: the longest that a revoked key still works elsewhere."""
    quota_requests_per_second: float = Field(default=0.0, ge=0)
    """Calls a second for each project; 0 sets no limit."""
    quota_burst: int = Field(default=100, ge=1)
    """Calls that a project may make at once after a pause."""
    paging_secret: str = Field(default="", repr=False)
    """Signs page tokens; replicas share it. Default: a random one, kept in `data_dir`."""

    tls_certificate_file: Path | None = None
    """The server's certificate chain (PEM). With `tls_key_file`: serve TLS."""
    tls_key_file: Path | None = None
    tls_client_ca_file: Path | None = None
    """Authorities of client certificates. With it, every caller must show one (mutual TLS)."""
    tls_service_names: CommaSeparated = ()
    """Names in client certificates that are our services: they get the role SERVICE without a key."""

    @model_validator(mode="before")
    @classmethod
    def _fill_urls(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        data_dir = Path(values.get("data_dir") or cls.model_fields["data_dir"].default)
        defaults = {
            "database_url": f"sqlite:///{data_dir / cls.name}.db",
            "auth_database_url": f"sqlite:///{data_dir / 'auth.db'}",
        }
        return {**values, **{field: url for field, url in defaults.items() if not values.get(field)}}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file go together: set both or none")
        if self.tls_client_ca_file is not None and self.tls_certificate_file is None:
            raise ValueError("tls_client_ca_file needs tls_certificate_file and tls_key_file")
        if self.service_key and len(self.service_key) < 32:
            raise ValueError("service_key is too short: give at least 32 random characters")
        plaintext = self.tls_certificate_file is None and not (self.allow_plaintext or self.insecure)
        if plaintext and not _is_loopback(self.host):
            raise ValueError(
                f"host {self.host} is not loopback and there is no TLS: set tls_certificate_file and tls_key_file, "
                "or allow_plaintext where something else encrypts"
            )
        return self

    @classmethod
    def load(cls, prefix: str, environ: Mapping[str, str]) -> Self:
        """Reads the variables that start with `prefix` (`INKLING_INGEST`: `INKLING_INGEST_PORT` is `port`).

        Raises SettingsError for an unknown variable, with the nearest known name, and for a value that does not fit.
        """
        start = prefix.rstrip("_").upper() + "_"
        given = {key: value for key, value in environ.items() if key.startswith(start)}
        known = {start + field.upper(): field for field in cls.model_fields}
        for key in sorted(given):
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
                raise SettingsError(f"unknown variable {key}: did you mean {near[0]}?")
        try:
            return cls.model_validate({known[key]: value for key, value in given.items()})
        except ValidationError as error:
            raise SettingsError(_explain(error, start)) from None


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _explain(error: ValidationError, start: str) -> str:
    """The mistakes by variable name, without their values (they may be secrets)."""
    lines = []
    for mistake in error.errors(include_input=False, include_url=False, include_context=False):
        field = "_".join(str(part) for part in mistake["loc"][:1])
        lines.append(f"{start}{field.upper()}: {mistake['msg']}" if field else mistake["msg"])
    return "; ".join(lines)
