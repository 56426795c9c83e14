"""API keys: made, verified, listed, revoked and rotated, in SQL.

A secret is `ink_` and 43 characters: 256 random bits. Only its SHA-256 is stored, which is enough because secrets
are random: there is nothing to guess, so nothing to slow down. A verification is a look-up in memory; what the
database said is remembered for a few seconds, refusals too, so a revoked key works elsewhere no longer than that.
"""

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from services.runtime.callers import Caller, Policies, Role, check_project, current_caller
from services.runtime.clocks import Clock, SystemClock
from services.runtime.database import Database
from services.runtime.errors import FailedPrecondition, InvalidArgument, NotFound, Unauthenticated

__all__ = ["MIGRATIONS", "Caller", "KeyInfo", "KeyStore", "Policies", "Role", "current_caller"]

MIGRATIONS = "services.runtime.migrations.keys"
"""The tables of the key store, for `Database.open`."""

SERVICE_KEY_ID = "service"
_SECRET = re.compile(r"ink_[A-Za-z0-9_-]{43}")
_CACHE_ENTRIES = 10_000

_KEYS = sa.table(
    "api_keys",
    sa.column("key_id", sa.String),
    sa.column("digest", sa.LargeBinary),
    sa.column("project", sa.String),
    sa.column("roles", sa.String),
    sa.column("description", sa.String),
    sa.column("created_at_us", sa.BigInteger),
    sa.column("expires_at_us", sa.BigInteger),
    sa.column("revoked_at_us", sa.BigInteger),
)


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


@dataclass(frozen=True)
class _Verdict:
    """What the database said of a digest: a caller (None: refused) until `expires_at_us`, fresh until `fresh_until`."""

    caller: Caller | None
    expires_at_us: int | None
    fresh_until: float


class KeyStore:
    """The keys of all projects. One per process; its cache is for one event loop."""

    def __init__(
        self,
        database: Database,
        *,
        service_key: str = "",
        cache_seconds: float = 15.0,
        clock: Clock | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._cache_seconds = cache_seconds
        self._clock = clock or SystemClock()
        self._monotonic = monotonic
        self._verdicts: dict[bytes, _Verdict] = {}
        self._asking: dict[bytes, asyncio.Task[_Verdict]] = {}
        self._service_digest = _digest(service_key) if service_key else None
        self._service = Caller("", frozenset({Role.SERVICE}), SERVICE_KEY_ID)

    async def create(
        self, project: str, roles: Iterable[Role], expires_at_us: int | None = None, description: str = ""
    ) -> tuple[str, str]:
        """Makes a key: (key id, secret). The secret is nowhere else. Raises InvalidArgument."""
        row, secret = self._new_row(project, roles, expires_at_us, description)
        async with self._database.session() as session:
            await session.execute(sa.insert(_KEYS).values(**row))
        self._forget(secret)
        return str(row["key_id"]), secret

    async def create_first(self, project: str, roles: Iterable[Role], description: str = "") -> tuple[str, str] | None:
        """Makes a key if the store has never had one, else answers None. Of several processes, one makes it."""
        row, secret = self._new_row(project, roles, None, description)
        async with self._database.session() as session:
            if self._database.dialect == "postgresql":
                await session.execute(sa.text("LOCK TABLE api_keys IN EXCLUSIVE MODE"))
            if await session.scalar(sa.select(sa.func.count()).select_from(_KEYS)):
                return None
            await session.execute(sa.insert(_KEYS).values(**row))
        return str(row["key_id"]), secret

    async def verify(self, secret: str) -> Caller:
        """Whose secret it is. Raises Unauthenticated (unknown, expired, revoked) and Unavailable (no database)."""
        digest = _digest(secret)
        verdict = self._verdicts.get(digest)
        if verdict is None or verdict.fresh_until <= self._monotonic():
            if digest == self._service_digest:
                return self._service
            if not _SECRET.fullmatch(secret):
                raise _refused()
            verdict = await self._ask_once(digest)
        if verdict.caller is None or (
            verdict.expires_at_us is not None and verdict.expires_at_us <= self._clock.now_us()
        ):
            raise _refused()
        return verdict.caller

    async def list(self, project: str | None = None) -> list[KeyInfo]:
        """The keys of a project, or of all, oldest first; ended ones too."""
        query = sa.select(_KEYS).order_by(_KEYS.c.created_at_us, _KEYS.c.key_id)
        if project is not None:
            query = query.where(_KEYS.c.project == project)
        async with self._database.session(read_only=True) as session:
            return [_info(row) for row in await session.execute(query)]

    async def revoke(self, key_id: str) -> None:
        """Ends a key: here at once, in other processes when their memory of it is stale. Raises NotFound."""
        async with self._database.session() as session:
            digest = await session.scalar(sa.select(_KEYS.c.digest).where(_KEYS.c.key_id == key_id))
            if digest is None:
                raise NotFound("there is no such key", reason="NOT_FOUND")
            revoked = sa.func.coalesce(_KEYS.c.revoked_at_us, self._clock.now_us())
            await session.execute(sa.update(_KEYS).where(_KEYS.c.key_id == key_id).values(revoked_at_us=revoked))
        self._verdicts.pop(bytes(digest), None)

    async def rotate(self, key_id: str, overlap_seconds: float = 0.0) -> tuple[str, str]:
        """A new key with the project, roles and description of an old one, which ends after `overlap_seconds`.

        The new key has no expiry of its own if the old one had none, else the same one. Raises NotFound, and
        FailedPrecondition when the old one has ended already.
        """
        now_us = self._clock.now_us()
        async with self._database.session() as session:
            found = (await session.execute(sa.select(_KEYS).where(_KEYS.c.key_id == key_id))).first()
            if found is None:
                raise NotFound("there is no such key", reason="NOT_FOUND")
            old = _info(found)
            if old.revoked_at_us is not None or (old.expires_at_us is not None and old.expires_at_us <= now_us):
                raise FailedPrecondition("the key has ended: create a new one", reason="KEY_ENDED")
            row, secret = self._new_row(old.project, old.roles, old.expires_at_us, old.description)
            await session.execute(sa.insert(_KEYS).values(**row))
            end_us = now_us + round(overlap_seconds * 1_000_000)
            end_us = end_us if old.expires_at_us is None else min(end_us, old.expires_at_us)
            await session.execute(sa.update(_KEYS).where(_KEYS.c.key_id == key_id).values(expires_at_us=end_us))
        self._verdicts.pop(bytes(found.digest), None)
        return str(row["key_id"]), secret

    def _new_row(
        self, project: str, roles: Iterable[Role], expires_at_us: int | None, description: str
    ) -> tuple[dict[str, object], str]:
        given = sorted(Role(role) for role in set(roles))
        if not given:
            raise InvalidArgument("a key needs at least one role", reason="BAD_ROLE")
        if len(description) > 1024:
            raise InvalidArgument("the description is too long: at most 1,024 characters", reason="BAD_DESCRIPTION")
        secret = f"ink_{secrets.token_urlsafe(32)}"
        row: dict[str, object] = {
            "key_id": secrets.token_hex(8),
            "digest": _digest(secret),
            "project": check_project(project),
            "roles": ",".join(given),
            "description": description,
            "created_at_us": self._clock.now_us(),
            "expires_at_us": expires_at_us,
            "revoked_at_us": None,
        }
        return row, secret

    def _forget(self, secret: str) -> None:
        self._verdicts.pop(_digest(secret), None)

    async def _ask_once(self, digest: bytes) -> _Verdict:
        """Asks the database; callers that come meanwhile share the answer, whichever of them is cancelled."""
        task = self._asking.get(digest)
        if task is None:
            task = asyncio.create_task(self._ask(digest))
            self._asking[digest] = task
            task.add_done_callback(lambda done: self._asked(digest, done))
        return await asyncio.shield(task)

    def _asked(self, digest: bytes, done: asyncio.Task[_Verdict]) -> None:
        del self._asking[digest]
        if not done.cancelled():
            done.exception()  # seen here, should every caller have left meanwhile

    async def _ask(self, digest: bytes) -> _Verdict:
        fresh_until = self._monotonic() + self._cache_seconds
        async with self._database.session(read_only=True) as session:
            row = (await session.execute(sa.select(_KEYS).where(_KEYS.c.digest == digest))).first()
        if row is None or row.revoked_at_us is not None:
            verdict = _Verdict(None, None, fresh_until)
        else:
            info = _info(row)
            verdict = _Verdict(Caller(info.project, info.roles, info.key_id), info.expires_at_us, fresh_until)
        self._verdicts.pop(digest, None)
        self._verdicts[digest] = verdict
        if len(self._verdicts) > _CACHE_ENTRIES:
            del self._verdicts[next(iter(self._verdicts))]
        return verdict


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _refused() -> Unauthenticated:
    # One answer for all causes: which of them it was is nobody's business who has no key.
    return Unauthenticated("the API key is unknown, has expired or was revoked", reason="BAD_KEY")


def _info(row: sa.Row[tuple[object, ...]]) -> KeyInfo:
    values = row._mapping
    return KeyInfo(
        key_id=values["key_id"],
        project=values["project"],
        roles=frozenset(Role(role) for role in values["roles"].split(",")),
        description=values["description"],
        created_at_us=values["created_at_us"],
        expires_at_us=values["expires_at_us"],
        revoked_at_us=values["revoked_at_us"],
    )
