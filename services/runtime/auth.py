"""Who calls, and what they may do: API keys with projects and roles, and a policy for every method."""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

from services.runtime.clocks import Clock
from services.runtime.database import Database


class Role(StrEnum):
    """What a key is for. No role includes another."""

    INGEST = "ingest"
    READ = "read"
    DEFINE = "define"
    UPLOAD = "upload"
    OPERATE = "operate"
    SERVICE = "service"
    """Another service of the suite: it acts for the project that it names in `x-inkling-project`."""


Policies = Mapping[str, frozenset[Role]]
"""Full method name (`/inkling.ingest.v1.IngestService/Ingest`) to the roles of which one is enough."""

MIGRATIONS = "services.runtime.migrations.keys"
"""The tables of the key store, for `Database.open`."""


@dataclass(frozen=True)
class Caller:
    """Who is calling: the project that everything they do belongs to, their roles, the id of their key."""

    project: str
    roles: frozenset[Role]
    key_id: str


@dataclass(frozen=True)
class KeyInfo:
    """What is known of a key; never its secret."""

    key_id: str
    project: str
    roles: frozenset[Role]
    description: str
    created_at_us: int
    expires_at_us: int | None
    revoked_at_us: int | None


CALLER: ContextVar[Caller] = ContextVar("caller")


def current_caller() -> Caller:
    """The caller of the RPC that runs now; LookupError outside of one."""
    return CALLER.get()


class KeyStore:
    """API keys in SQL. Secrets are random (256 bits), stored as SHA-256, and shown once."""

    def __init__(
        self,
        database: Database,
        *,
        service_key: str = "",
        cache_seconds: float = 15.0,
        clock: Clock | None = None,
    ) -> None:
        raise NotImplementedError

    async def create(
        self, project: str, roles: Sequence[Role], expires_at_us: int | None = None, description: str = ""
    ) -> tuple[str, str]:
        """Makes a key: (key id, secret)."""
        raise NotImplementedError

    async def create_first(self, project: str, roles: Sequence[Role], description: str = "") -> tuple[str, str] | None:
        """Makes a key if the store has never had one; else None. Safe between processes."""
        raise NotImplementedError

    async def verify(self, secret: str) -> Caller:
        """Whose secret it is; raises Unauthenticated."""
        raise NotImplementedError

    async def list(self, project: str | None = None) -> list[KeyInfo]:
        """All keys of a project, or of all projects, oldest first."""
        raise NotImplementedError

    async def revoke(self, key_id: str) -> None:
        """Ends a key now; raises NotFound."""
        raise NotImplementedError

    async def rotate(self, key_id: str, overlap_seconds: float = 0.0) -> tuple[str, str]:
        """A new key with the same project and roles; the old one ends after `overlap_seconds`."""
        raise NotImplementedError
