"""Erasures of subjects as a service keeps them: what is needed to go on after a restart, and the receipts.

The value that is being erased is kept while the erasure goes on, and only in this table: an operation's metadata,
which callers read and which is kept for a month, does not hold it. `finish` puts the receipt in its place.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from services.runtime.database import Database
from services.runtime.errors import InvalidArgument, NotFound, Violation

MIGRATIONS = "services.runtime.migrations.erasures"
"""The table, for `Database.open`."""

PREFIX = "erasures/"
_MAX_KEY, _MAX_VALUE, _MAX_REQUEST_ID = 64, 4096, 128

_TABLE = sa.table(
    "erasures",
    sa.column("project", sa.String),
    sa.column("erasure_id", sa.String),
    sa.column("attribute_key", sa.String),
    sa.column("subject", sa.String),
    sa.column("value", sa.Text),
    sa.column("state", sa.Text),
    sa.column("receipt", sa.Text),
    sa.column("create_time_us", sa.BigInteger),
)


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased in one store."""

    store: str
    count: int
    """Of what `unit` says."""
    unit: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an erasure did. It names the subject by its hash only."""

    name: str
    """erasures/{id}"""
    attribute_key: str
    subject: str
    stores: tuple[Erased, ...]
    marker_position: int
    """What the subject does after this position of the log is a new life."""
    position: int
    """Whoever has applied the log up to here holds nothing of the subject from before the marker."""
    start_time_us: int
    finish_time_us: int
    files: tuple[str, ...] = ()
    """Files written before for others to read, which may hold the subject and were not changed."""
    notes: tuple[str, ...] = ()
    """What an operator should know, or still has to do."""
    ingest_digest: str = ""
    """The digest of the receipt that ingest gave for its part, when this one is of another service."""

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the receipt as JSON with sorted keys and without spaces."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The canonical text."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Receipt":
        """The receipt back from its text."""
        fields = json.loads(text)
        fields["stores"] = tuple(Erased(**each) for each in fields["stores"])
        return cls(**fields | {"files": tuple(fields["files"]), "notes": tuple(fields["notes"])})


@dataclass(frozen=True, slots=True)
class Erasure:
    """One erasure."""

    project: str
    erasure_id: str
    attribute_key: str
    subject: str
    value: str | None = field(repr=False)
    """None once it is done."""
    state: Mapping[str, Any]
    receipt: Receipt | None
    create_time_us: int

    @property
    def name(self) -> str:
        """erasures/{id}"""
        return PREFIX + self.erasure_id


def parse_name(name: str) -> str:
    """The id in `erasures/{id}`; raises InvalidArgument."""
    erasure_id = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX) or not erasure_id.isalnum() or len(erasure_id) > 64:
        raise InvalidArgument("an erasure's name is erasures/{id}", reason="BAD_NAME")
    return erasure_id


def check_request(attribute_key: str, key_value: str, request_id: str) -> None:
    """Raises InvalidArgument for a request that names no subject."""
    wrong = []
    if not 1 <= len(attribute_key) <= _MAX_KEY:
        wrong.append(Violation("attribute_key", f"has 1 to {_MAX_KEY} characters"))
    if not key_value or len(key_value.encode()) > _MAX_VALUE:
        wrong.append(Violation("key_value", f"has 1 to {_MAX_VALUE} bytes of UTF-8"))
    if len(request_id) > _MAX_REQUEST_ID:
        wrong.append(Violation("request_id", f"has at most {_MAX_REQUEST_ID} characters"))
    if wrong:
        raise InvalidArgument("the request names no subject", reason="BAD_KEY", violations=wrong)


class ErasureStore:
    """Reads and writes erasures in a database opened with MIGRATIONS."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(
        self, project: str, attribute_key: str, value: str, subject: str, request_id: str, now_us: int
    ) -> Erasure:
        """Stores a new erasure; with a `request_id` that came before, gives the one that it began.

        Raises InvalidArgument when it came with another subject.
        """
        erasure_id = secrets.token_hex(12)
        if request_id:
            erasure_id = hashlib.blake2b(f"{project}\0{request_id}".encode(), digest_size=12).hexdigest()
        row = {
            "project": project,
            "erasure_id": erasure_id,
            "attribute_key": attribute_key,
            "subject": subject,
            "value": value,
            "state": "{}",
            "receipt": None,
            "create_time_us": now_us,
        }
        insert = postgresql.insert if self._database.dialect == "postgresql" else sqlite.insert
        async with self._database.session() as session:
            await session.execute(insert(_TABLE).values(row).on_conflict_do_nothing())
        found = await self.get(project, erasure_id)
        if found.subject != subject:
            raise InvalidArgument("the request_id was used for another subject", reason="REQUEST_ID_REUSED")
        return found

    async def get(self, project: str, erasure_id: str) -> Erasure:
        """An erasure; raises NotFound."""
        query = sa.select(_TABLE).where(_TABLE.c.project == project, _TABLE.c.erasure_id == erasure_id)
        async with self._database.session(read_only=True) as session:
            row = (await session.execute(query)).one_or_none()
        if row is None:
            raise NotFound("there is no such erasure", reason="NOT_FOUND")
        return Erasure(
            row.project,
            row.erasure_id,
            row.attribute_key,
            row.subject,
            row.value,
            json.loads(row.state),
            None if row.receipt is None else Receipt.from_json(row.receipt),
            row.create_time_us,
        )

    async def note(self, erasure: Erasure, state: Mapping[str, Any]) -> None:
        """Stores how far it is."""
        async with self._database.session() as session:
            await session.execute(
                sa.update(_TABLE)
                .where(_TABLE.c.project == erasure.project, _TABLE.c.erasure_id == erasure.erasure_id)
                .values(state=json.dumps(dict(state)))
            )

    async def finish(self, erasure: Erasure, receipt: Receipt) -> None:
        """Stores the receipt, and forgets the value: also of erasures of the same subject that began before.

        They have come to nothing more: one that was cancelled, or failed, and was asked for again.
        """
        done = {"value": None, "state": "{}", "receipt": receipt.to_json()}
        async with self._database.session() as session:
            await session.execute(
                sa.update(_TABLE)
                .where(
                    _TABLE.c.project == erasure.project,
                    _TABLE.c.subject == erasure.subject,
                    _TABLE.c.receipt.is_(None),
                    _TABLE.c.create_time_us <= erasure.create_time_us,
                )
                .values(done)
            )

    async def scrub(self) -> None:
        """Leaves nothing of what was deleted in the database's files (see `Database.scrub`)."""
        await self._database.scrub()
