"""Segments in SQL, by (project, id)."""

import sqlalchemy as sa

from services.features.segments.definitions import SegmentDefinition
from services.features.store import Request
from services.runtime.database import Database
from services.runtime.errors import InvalidArgument, NotFound

MIGRATIONS = "services.features.segments.migrations"

_NAMES = ("segment_id", "attribute_key", "condition", "description", "owner", "uid")
_SEGMENTS = sa.table(
    "segments",
    sa.column("project", sa.String),
    *(sa.column(name, sa.String) for name in _NAMES),
    sa.column("evaluated", sa.Boolean),
    sa.column("create_time_us", sa.BigInteger),
    sa.column("update_time_us", sa.BigInteger),
)
_REQUESTS = sa.table(
    "segment_requests",
    sa.column("project", sa.String),
    sa.column("request_id", sa.String),
    sa.column("fingerprint", sa.String),
    sa.column("segment_id", sa.String),
    sa.column("create_time_us", sa.BigInteger),
)


class SegmentStore:
    """Reads and writes segments. Each method is one transaction; conflicts raise AlreadyExists."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def projects(self) -> list[str]:
        """The projects that have a segment."""
        async with self._database.session(read_only=True) as session:
            return sorted(await session.scalars(sa.select(_SEGMENTS.c.project).distinct()))

    async def segments(self, project: str) -> list[SegmentDefinition]:
        """The segments of a project, by id."""
        query = sa.select(_SEGMENTS).where(_SEGMENTS.c.project == project).order_by(_SEGMENTS.c.segment_id)
        async with self._database.session(read_only=True) as session:
            return [_definition(row) for row in await session.execute(query)]

    async def repeated(self, project: str, request: Request | None) -> str | None:
        """The id that the request made when it came before, else None.

        Raises InvalidArgument when it came with another content.
        """
        if request is None:
            return None
        query = sa.select(_REQUESTS).where(_REQUESTS.c.project == project, _REQUESTS.c.request_id == request.request_id)
        async with self._database.session(read_only=True) as session:
            row = (await session.execute(query)).first()
        if row is not None and row.fingerprint != request.fingerprint:
            raise InvalidArgument("the request_id was used for another request", reason="REQUEST_ID_REUSED")
        return None if row is None else str(row.segment_id)

    async def add(self, project: str, definition: SegmentDefinition, request: Request | None) -> None:
        """Adds a segment."""
        async with self._database.session() as session:
            await session.execute(sa.insert(_SEGMENTS).values(_row(project, definition)))
            if request is not None:
                values = {
                    "project": project,
                    "request_id": request.request_id,
                    "fingerprint": request.fingerprint,
                    "segment_id": definition.segment_id,
                    "create_time_us": definition.create_time_us,
                }
                await session.execute(sa.insert(_REQUESTS).values(values))

    async def replace(self, project: str, definition: SegmentDefinition) -> None:
        """Writes a segment over the one of the same id; raises NotFound when it is gone."""
        async with self._database.session() as session:
            changed = (
                sa.update(_SEGMENTS)
                .where(_SEGMENTS.c.project == project, _SEGMENTS.c.segment_id == definition.segment_id)
                .values(_row(project, definition))
                .returning(_SEGMENTS.c.segment_id)
            )
            if await session.scalar(changed) is None:
                raise NotFound(f"{definition.name} was deleted", reason="NOT_FOUND")

    async def delete(self, project: str, segment_id: str) -> None:
        """Removes a segment, and the request that made it."""
        async with self._database.session() as session:
            for table in (_SEGMENTS, _REQUESTS):
                await session.execute(
                    sa.delete(table).where(table.c.project == project, table.c.segment_id == segment_id)
                )


def _row(project: str, definition: SegmentDefinition) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(definition, name) for name in _NAMES}
    return row | {
        "project": project,
        "evaluated": definition.evaluated,
        "create_time_us": definition.create_time_us,
        "update_time_us": definition.update_time_us,
    }


def _definition(row: sa.Row[tuple[object, ...]]) -> SegmentDefinition:
    return SegmentDefinition(**{name: value for name, value in row._mapping.items() if name != "project"})
