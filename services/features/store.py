"""Definitions in SQL: attribute groups by (project, id, version), and feature services. Documents are Signals JSON."""

import hashlib
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from services.features.definitions import AttributeGroup, FeatureService, GroupState
from services.features.signals import read_document, write_document
from services.runtime.database import Database
from services.runtime.errors import Internal, InvalidArgument, NotFound

MIGRATIONS = "services.features.migrations"


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """A version of a group with its life."""

    group: AttributeGroup
    state: GroupState
    create_time_us: int
    update_time_us: int
    publish_time_us: int | None = None

    @property
    def etag(self) -> str:
        """Changes with each change."""
        return _etag(write_document(self.group), self.state, self.update_time_us)


@dataclass(frozen=True, slots=True)
class StoredService:
    """A feature service with its life."""

    service: FeatureService
    create_time_us: int
    update_time_us: int

    @property
    def etag(self) -> str:
        """Changes with each change."""
        return _etag(write_document(self.service), "", self.update_time_us)


@dataclass(frozen=True, slots=True)
class Request:
    """A creation that a client may send again: its id, and a hash of what it asks for."""

    request_id: str
    fingerprint: str


class _Base(DeclarativeBase):
    pass


class _GroupRow(_Base):
    __tablename__ = "attribute_groups"

    project: Mapped[str] = mapped_column(primary_key=True)
    group_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    document: Mapped[str]
    state: Mapped[str]
    create_time_us: Mapped[int] = mapped_column(sa.BigInteger)
    update_time_us: Mapped[int] = mapped_column(sa.BigInteger)
    publish_time_us: Mapped[int | None] = mapped_column(sa.BigInteger)


class _ServiceRow(_Base):
    __tablename__ = "feature_services"

    project: Mapped[str] = mapped_column(primary_key=True)
    service_id: Mapped[str] = mapped_column(primary_key=True)
    document: Mapped[str]
    create_time_us: Mapped[int] = mapped_column(sa.BigInteger)
    update_time_us: Mapped[int] = mapped_column(sa.BigInteger)


class _RequestRow(_Base):
    __tablename__ = "definition_requests"

    project: Mapped[str] = mapped_column(primary_key=True)
    request_id: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    name: Mapped[str]
    create_time_us: Mapped[int] = mapped_column(sa.BigInteger)


class DefinitionStore:
    """Reads and writes definitions. Each method is one transaction; conflicts raise AlreadyExists."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def database(self) -> Database:
        """Where definitions are, and what belongs to them."""
        return self._database

    async def published_projects(self) -> list[str]:
        """The projects that have a group beyond its draft."""
        query = sa.select(_GroupRow.project).where(_GroupRow.state != GroupState.DRAFT).distinct()
        async with self._database.session(read_only=True) as session:
            return sorted(await session.scalars(query))

    async def groups(self, project: str) -> list[StoredGroup]:
        """All versions of all groups of a project, by id, then version."""
        query = sa.select(_GroupRow).where(_GroupRow.project == project)
        query = query.order_by(_GroupRow.group_id, _GroupRow.version)
        async with self._database.session(read_only=True) as session:
            return [_stored_group(row) for row in await session.scalars(query)]

    async def services(self, project: str) -> list[StoredService]:
        """All services of a project, by id."""
        query = sa.select(_ServiceRow).where(_ServiceRow.project == project).order_by(_ServiceRow.service_id)
        async with self._database.session(read_only=True) as session:
            return [_stored_service(row) for row in await session.scalars(query)]

    async def repeated(self, project: str, request: Request | None) -> str | None:
        """The name of what the request made when it came before, else None.

        Raises InvalidArgument when it came with another content.
        """
        if request is None:
            return None
        async with self._database.session(read_only=True) as session:
            row = await session.get(_RequestRow, (project, request.request_id))
        if row is not None and row.fingerprint != request.fingerprint:
            raise InvalidArgument("the request_id was used for another request", reason="REQUEST_ID_REUSED")
        return None if row is None else row.name

    async def add_group(self, project: str, stored: StoredGroup, request: Request | None) -> None:
        """Adds a version of a group."""
        async with self._database.session() as session:
            session.add(_group_row(project, stored))
            _remember(session, project, request, stored.group.name, stored.create_time_us)

    async def replace_group(self, project: str, stored: StoredGroup) -> None:
        """Writes a version of a group over the one of the same name; raises NotFound when it is gone."""
        async with self._database.session() as session:
            row = await session.get(_GroupRow, (project, stored.group.group_id, stored.group.version))
            if row is None:
                raise NotFound(f"{stored.group.name} was deleted", reason="NOT_FOUND")
            await session.merge(_group_row(project, stored))

    async def delete_group(self, project: str, group: AttributeGroup) -> None:
        """Removes a version of a group."""
        key = (_GroupRow.project == project, _GroupRow.group_id == group.group_id, _GroupRow.version == group.version)
        async with self._database.session() as session:
            await session.execute(sa.delete(_GroupRow).where(*key))

    async def add_service(self, project: str, stored: StoredService, request: Request | None) -> None:
        """Adds a service."""
        async with self._database.session() as session:
            session.add(_service_row(project, stored))
            _remember(session, project, request, stored.service.name, stored.create_time_us)

    async def replace_service(self, project: str, stored: StoredService) -> None:
        """Writes a service over the one of the same name."""
        async with self._database.session() as session:
            await session.merge(_service_row(project, stored))

    async def delete_service(self, project: str, service_id: str) -> None:
        """Removes a service."""
        key = (_ServiceRow.project == project, _ServiceRow.service_id == service_id)
        async with self._database.session() as session:
            await session.execute(sa.delete(_ServiceRow).where(*key))


def _etag(document: str, state: str, update_time_us: int) -> str:
    return hashlib.sha256(f"{update_time_us}\n{state}\n{document}".encode()).hexdigest()[:16]


def _remember(session: AsyncSession, project: str, request: Request | None, name: str, now_us: int) -> None:
    if request is not None:
        session.add(
            _RequestRow(
                project=project,
                request_id=request.request_id,
                fingerprint=request.fingerprint,
                name=name,
                create_time_us=now_us,
            )
        )


def _group_row(project: str, stored: StoredGroup) -> _GroupRow:
    return _GroupRow(
        project=project,
        group_id=stored.group.group_id,
        version=stored.group.version,
        document=write_document(stored.group),
        state=stored.state,
        create_time_us=stored.create_time_us,
        update_time_us=stored.update_time_us,
        publish_time_us=stored.publish_time_us,
    )


def _stored_group(row: _GroupRow) -> StoredGroup:
    document = read_document(row.document)
    if document.problems or not isinstance(document.definition, AttributeGroup):
        raise Internal(f"the stored group {row.group_id} version {row.version} cannot be read")
    return StoredGroup(
        document.definition, GroupState(row.state), row.create_time_us, row.update_time_us, row.publish_time_us
    )


def _service_row(project: str, stored: StoredService) -> _ServiceRow:
    return _ServiceRow(
        project=project,
        service_id=stored.service.service_id,
        document=write_document(stored.service),
        create_time_us=stored.create_time_us,
        update_time_us=stored.update_time_us,
    )


def _stored_service(row: _ServiceRow) -> StoredService:
    document = read_document(row.document)
    if document.problems or not isinstance(document.definition, FeatureService):
        raise Internal(f"the stored service {row.service_id} cannot be read")
    return StoredService(document.definition, row.create_time_us, row.update_time_us)
