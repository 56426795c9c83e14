"""Insights in SQL: the present version of each, all versions, and the request ids that made them."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from services.insights.definitions import Insight
from services.insights.language.tree import Dialect
from services.runtime.database import Database
from services.runtime.errors import InvalidArgument

MIGRATIONS = "services.insights.migrations"


@dataclass(frozen=True, slots=True)
class Request:
    """A creation that a client may send again: its id, and a hash of what it asks for."""

    request_id: str
    fingerprint: str


class _Base(DeclarativeBase):
    pass


class _InsightRow(_Base):
    __tablename__ = "insights"

    project: Mapped[str] = mapped_column(primary_key=True)
    insight_id: Mapped[str] = mapped_column(primary_key=True)
    query: Mapped[str]
    dialect: Mapped[str]
    active: Mapped[bool]
    version: Mapped[int]
    description: Mapped[str]
    create_time_us: Mapped[int] = mapped_column(sa.BigInteger)
    update_time_us: Mapped[int] = mapped_column(sa.BigInteger)


class _VersionRow(_Base):
    __tablename__ = "insight_versions"

    project: Mapped[str] = mapped_column(primary_key=True)
    insight_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    query: Mapped[str]
    dialect: Mapped[str]
    create_time_us: Mapped[int] = mapped_column(sa.BigInteger)


class _RequestRow(_Base):
    __tablename__ = "insight_requests"

    project: Mapped[str] = mapped_column(primary_key=True)
    request_id: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    insight_id: Mapped[str]
    create_time_us: Mapped[int] = mapped_column(sa.BigInteger)


class InsightStore:
    """Reads and writes insights. Each method is one transaction; conflicts raise AlreadyExists."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def projects(self) -> list[str]:
        """The projects that have an insight."""
        async with self._database.session(read_only=True) as session:
            return sorted(await session.scalars(sa.select(_InsightRow.project).distinct()))

    async def all(self, project: str) -> list[Insight]:
        """A project's insights, by id."""
        query = sa.select(_InsightRow).where(_InsightRow.project == project).order_by(_InsightRow.insight_id)
        async with self._database.session(read_only=True) as session:
            return [_insight(row) for row in await session.scalars(query)]

    async def repeated(self, project: str, request: Request | None) -> str | None:
        """The id of what the request made when it came before, else None.

        Raises InvalidArgument when it came with another content.
        """
        if request is None:
            return None
        async with self._database.session(read_only=True) as session:
            row = await session.get(_RequestRow, (project, request.request_id))
        if row is not None and row.fingerprint != request.fingerprint:
            raise InvalidArgument("the request_id was used for another request", reason="REQUEST_ID_REUSED")
        return None if row is None else row.insight_id

    async def add(self, project: str, insight: Insight, request: Request | None) -> None:
        """Adds an insight in its first version."""
        async with self._database.session() as session:
            session.add(_row(project, insight))
            session.add(_version(project, insight, insight.create_time_us))
            if request is not None:
                session.add(
                    _RequestRow(
                        project=project,
                        request_id=request.request_id,
                        fingerprint=request.fingerprint,
                        insight_id=insight.insight_id,
                        create_time_us=insight.create_time_us,
                    )
                )

    async def replace(self, project: str, insight: Insight, *, new_version: bool) -> None:
        """Changes an insight; a new version is kept beside those before."""
        async with self._database.session() as session:
            await session.merge(_row(project, insight))
            if new_version:
                session.add(_version(project, insight, insight.update_time_us))

    async def delete(self, project: str, insight_ids: list[str]) -> None:
        """Deletes insights with all their versions; the requests that made them go too."""
        async with self._database.session() as session:
            for table in (_InsightRow, _VersionRow, _RequestRow):
                await _delete(session, table, project, insight_ids)


async def _delete(
    session: AsyncSession,
    table: type[_InsightRow] | type[_VersionRow] | type[_RequestRow],
    project: str,
    ids: list[str],
) -> None:
    for start in range(0, len(ids), 500):
        chosen = table.insight_id.in_(ids[start : start + 500])
        await session.execute(sa.delete(table).where(table.project == project, chosen))


def _row(project: str, insight: Insight) -> _InsightRow:
    return _InsightRow(
        project=project,
        insight_id=insight.insight_id,
        query=insight.query,
        dialect=insight.dialect.value,
        active=insight.active,
        version=insight.version,
        description=insight.description,
        create_time_us=insight.create_time_us,
        update_time_us=insight.update_time_us,
    )


def _version(project: str, insight: Insight, time_us: int) -> _VersionRow:
    return _VersionRow(
        project=project,
        insight_id=insight.insight_id,
        version=insight.version,
        query=insight.query,
        dialect=insight.dialect.value,
        create_time_us=time_us,
    )


def _insight(row: _InsightRow) -> Insight:
    return Insight(
        row.insight_id,
        row.query,
        Dialect(row.dialect),
        row.active,
        row.version,
        row.description,
        row.create_time_us,
        row.update_time_us,
    )
