"""What ingest keeps in SQL beside the log: settings of projects, collections, dead letters."""

from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, undefer

from services.runtime.database import Database
from services.runtime.errors import InvalidArgument

MIGRATIONS = "services.ingest.migrations"
_CHUNK = 500
"""Rows of one statement: SQLite takes a limited number of parameters."""


class Base(DeclarativeBase):
    """The tables of this service."""


class ProjectRow(Base):
    """The settings of a project. Durations are microseconds."""

    __tablename__ = "project_settings"

    project: Mapped[str] = mapped_column(primary_key=True)
    clock: Mapped[str]
    retention_us: Mapped[int | None] = mapped_column(sa.BigInteger)
    horizon_us: Mapped[int] = mapped_column(sa.BigInteger)
    max_lead_us: Mapped[int] = mapped_column(sa.BigInteger)


class CollectionRow(Base):
    """The newest version of a collection; the document is JSON."""

    __tablename__ = "collections"

    project: Mapped[str] = mapped_column(primary_key=True)
    collection_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    document: Mapped[str]
    create_time_us: Mapped[int] = mapped_column(sa.BigInteger)
    update_time_us: Mapped[int] = mapped_column(sa.BigInteger)


class RequestRow(Base):
    """A declaration that a client may send again."""

    __tablename__ = "collection_requests"

    project: Mapped[str] = mapped_column(primary_key=True)
    request_id: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    document: Mapped[str]


class DeadLetterRow(Base):
    """A refused event or line."""

    __tablename__ = "dead_letters"

    project: Mapped[str] = mapped_column(primary_key=True)
    letter_id: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str]
    field: Mapped[str]
    message: Mapped[str]
    create_time_us: Mapped[int] = mapped_column(sa.BigInteger)
    event_id: Mapped[str]
    event: Mapped[bytes | None] = mapped_column(deferred=True)
    csv_line: Mapped[bytes | None] = mapped_column(deferred=True)


class ProjectStore:
    """Reads and writes settings."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, project: str) -> ProjectRow | None:
        """The settings, or None if they were never changed."""
        async with self._database.session(read_only=True) as session:
            return await session.get(ProjectRow, project)

    async def put(self, project: str, clock: str, retention_us: int | None, horizon_us: int, max_lead_us: int) -> None:
        """Writes all settings of a project."""
        async with self._database.session() as session:
            await session.merge(
                ProjectRow(
                    project=project,
                    clock=clock,
                    retention_us=retention_us,
                    horizon_us=horizon_us,
                    max_lead_us=max_lead_us,
                )
            )

    async def changed(self) -> list[str]:
        """The projects whose settings were ever changed."""
        async with self._database.session(read_only=True) as session:
            return list(await session.scalars(sa.select(ProjectRow.project)))


class CollectionStore:
    """Reads and writes collections."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self, project: str) -> list[CollectionRow]:
        """The collections of a project, by name."""
        query = sa.select(CollectionRow).where(CollectionRow.project == project).order_by(CollectionRow.collection_id)
        async with self._database.session(read_only=True) as session:
            return list(await session.scalars(query))

    async def answered(self, project: str, request_id: str, fingerprint: str) -> str | None:
        """What was answered to a request when it came before, as the document, else None.

        Raises InvalidArgument when it came with another content.
        """
        async with self._database.session(read_only=True) as session:
            row = await session.get(RequestRow, (project, request_id))
        if row is not None and row.fingerprint != fingerprint:
            raise InvalidArgument("the request_id was used for another declaration", reason="REQUEST_ID_REUSED")
        return None if row is None else row.document

    async def add(self, row: CollectionRow, request: RequestRow | None) -> None:
        """Adds a collection; raises AlreadyExists."""
        async with self._database.session() as session:
            session.add(row)
            if request is not None:
                session.add(request)

    async def replace(self, row: CollectionRow) -> bool:
        """Writes the next version over the one before; False when that is not there any more."""
        values = {"version": row.version, "document": row.document, "update_time_us": row.update_time_us}
        query = sa.update(CollectionRow).where(
            CollectionRow.project == row.project,
            CollectionRow.collection_id == row.collection_id,
            CollectionRow.version == row.version - 1,
        )
        async with self._database.session() as session:
            replaced = await session.execute(query.values(**values).returning(CollectionRow.version))
            return replaced.first() is not None


class DeadLetterStore:
    """Reads and writes dead letters."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, rows: Sequence[dict[str, object]]) -> None:
        """Adds letters; one that is there already gets its new reason, and stays as old as it is."""
        insert = postgresql.insert if self._database.dialect == "postgresql" else sqlite.insert
        statement = insert(DeadLetterRow)
        renewed = {name: statement.excluded[name] for name in ("reason", "field", "message")}
        statement = statement.on_conflict_do_update(index_elements=["project", "letter_id"], set_=renewed)
        async with self._database.session() as session:
            await session.execute(statement, rows)

    async def page(
        self, project: str, size: int, before: tuple[int, str] | None, reason: str | None
    ) -> list[DeadLetterRow]:
        """Letters without their payloads, newest first, older than `before` (time, id)."""
        query = sa.select(DeadLetterRow).where(DeadLetterRow.project == project)
        if reason is not None:
            query = query.where(DeadLetterRow.reason == reason)
        if before is not None:
            query = query.where(sa.tuple_(DeadLetterRow.create_time_us, DeadLetterRow.letter_id) < before)
        query = query.order_by(DeadLetterRow.create_time_us.desc(), DeadLetterRow.letter_id.desc()).limit(size)
        async with self._database.session(read_only=True) as session:
            return list(await session.scalars(query))

    async def get(self, project: str, letter_ids: Iterable[str]) -> dict[str, DeadLetterRow]:
        """Letters with their payloads, by id; those that are not there are left out."""
        wanted = sorted(set(letter_ids))
        found: dict[str, DeadLetterRow] = {}
        options = undefer(DeadLetterRow.event), undefer(DeadLetterRow.csv_line)
        async with self._database.session(read_only=True) as session:
            for chunk in _chunks(wanted):
                query = sa.select(DeadLetterRow).options(*options).where(_among(project, chunk))
                found |= {row.letter_id: row for row in await session.scalars(query)}
        return found

    async def delete(self, project: str, letter_ids: Iterable[str]) -> int:
        """Deletes letters by id: how many were there."""
        deleted = 0
        async with self._database.session() as session:
            for chunk in _chunks(sorted(set(letter_ids))):
                query = sa.delete(DeadLetterRow).where(_among(project, chunk)).returning(DeadLetterRow.letter_id)
                deleted += len((await session.execute(query)).all())
        return deleted

    async def delete_before(self, project: str, before_us: int | None) -> int:
        """Deletes the letters refused before an instant, or all: how many there were."""
        query = sa.delete(DeadLetterRow).where(DeadLetterRow.project == project)
        if before_us is not None:
            query = query.where(DeadLetterRow.create_time_us < before_us)
        async with self._database.session() as session:
            return len((await session.execute(query.returning(DeadLetterRow.letter_id))).all())

    async def projects(self) -> list[str]:
        """The projects that have dead letters."""
        async with self._database.session(read_only=True) as session:
            return list(await session.scalars(sa.select(DeadLetterRow.project).distinct()))


def _chunks(values: Sequence[str]) -> Iterable[Sequence[str]]:
    return (values[i : i + _CHUNK] for i in range(0, len(values), _CHUNK))


def _among(project: str, letter_ids: Sequence[str]) -> sa.ColumnElement[bool]:
    return sa.and_(DeadLetterRow.project == project, DeadLetterRow.letter_id.in_(letter_ids))
