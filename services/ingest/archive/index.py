"""The index of the archive: how far each project's log is archived, and which files hold which positions.

All changes of a project's progress compare and set: of two replicas that archive the same range one wins, and as both
wrote the same files it does not matter which.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncSession

from services.ingest.archive.files import ArchiveFile
from services.runtime.database import Database

MIGRATIONS = "services.ingest.archive.migrations"
"""For `Database.open`."""

_METADATA = sa.MetaData()
_PROGRESS = sa.Table(
    "archive_progress",
    _METADATA,
    sa.Column("project", sa.String, primary_key=True),
    sa.Column("position", sa.BigInteger),
    sa.Column("pending", sa.BigInteger),
    sa.Column("complete_since_us", sa.BigInteger),
)
FILES = sa.Table(
    "archive_files",
    _METADATA,
    sa.Column("project", sa.String, primary_key=True),
    sa.Column("hour_us", sa.BigInteger, primary_key=True),
    sa.Column("last_position", sa.BigInteger, primary_key=True),
    sa.Column("first_position", sa.BigInteger),
    sa.Column("min_occurred_us", sa.BigInteger),
    sa.Column("max_occurred_us", sa.BigInteger),
    sa.Column("event_count", sa.BigInteger),
    sa.Column("size_bytes", sa.BigInteger),
    sa.Column("condemned", sa.Boolean),
)
FILE_COLUMNS = [
    FILES.c[name]
    for name in (
        "project",
        "hour_us",
        "first_position",
        "last_position",
        "min_occurred_us",
        "max_occurred_us",
        "event_count",
        "size_bytes",
    )
]
"""The fields of an `ArchiveFile`, in its order."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a project is archived."""

    position: int
    """Everything up to here is in files of the index."""
    pending: int | None
    """The end of the range that is being archived: a range once begun is finished as it was begun."""
    complete_since_us: int | None = None
    """The event time from which on nothing is missing; None when nothing ever was."""


class ArchiveIndex:
    """The index in a database opened with MIGRATIONS."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def database(self) -> Database:
        """Where it is."""
        return self._database

    async def progress(self, project: str) -> Progress:
        """How far a project is archived; nothing yet when it is unknown."""
        async with self._database.session(read_only=True) as session:
            columns = (_PROGRESS.c.position, _PROGRESS.c.pending, _PROGRESS.c.complete_since_us)
            row = (await session.execute(sa.select(*columns).where(_PROGRESS.c.project == project))).one_or_none()
        return Progress(0, None) if row is None else Progress(*row)

    async def begin(self, project: str, position: int, pending: int) -> bool:
        """Notes that the range (position, pending] is being archived; False when something else happened meanwhile."""
        row = {"project": project, "position": 0, "pending": None}
        new = postgresql.insert(_PROGRESS) if self._database.dialect == "postgresql" else sqlite.insert(_PROGRESS)
        async with self._database.session() as session:
            await session.execute(new.values(row).on_conflict_do_nothing())
            begun = await session.execute(
                sa.update(_PROGRESS)
                .where(_PROGRESS.c.project == project, _PROGRESS.c.position == position, _PROGRESS.c.pending.is_(None))
                .values(pending=pending)
            )
            return cast("CursorResult[object]", begun).rowcount == 1

    async def finish(self, project: str, position: int, pending: int, files: Sequence[ArchiveFile]) -> bool:
        """Notes that the range is archived in these files; False when somebody else finished it before."""
        async with self._database.session() as session:
            finished = await session.execute(
                sa.update(_PROGRESS)
                .where(_PROGRESS.c.project == project, _PROGRESS.c.position == position, _PROGRESS.c.pending == pending)
                .values(position=pending, pending=None)
            )
            if cast("CursorResult[object]", finished).rowcount != 1:
                return False
            if files:
                await session.execute(sa.insert(FILES), [asdict(file) | {"condemned": False} for file in files])
            return True

    async def find(
        self,
        project: str,
        after_position: int = 0,
        last_position: int | None = None,
        start_us: int | None = None,
        end_us: int | None = None,
        *,
        after: tuple[int, int] | None = None,
        limit: int | None = None,
    ) -> list[ArchiveFile]:
        """The files with events in (after_position, last_position] that occurred in [start_us, end_us).

        They come by last position, then hour; `after` is where to go on, `limit` how many to give.
        """
        query = sa.select(*FILE_COLUMNS).where(
            FILES.c.project == project, FILES.c.last_position > after_position, ~FILES.c.condemned
        )
        if last_position is not None:
            query = query.where(FILES.c.first_position <= last_position)
        if start_us is not None:
            query = query.where(FILES.c.max_occurred_us >= start_us)
        if end_us is not None:
            query = query.where(FILES.c.min_occurred_us < end_us)
        if after is not None:
            query = query.where(sa.tuple_(FILES.c.last_position, FILES.c.hour_us) > sa.tuple_(*after))
        async with self._database.session(read_only=True) as session:
            rows = await session.execute(query.order_by(FILES.c.last_position, FILES.c.hour_us).limit(limit))
            return [ArchiveFile(*row) for row in rows]

    async def condemn(self, project: str, before_occurred_us: int) -> list[ArchiveFile]:
        """Takes the files out of sight all of whose events are older; returns all that are out of sight."""
        async with self._database.session() as session:
            mine = FILES.c.project == project
            old = (mine, FILES.c.max_occurred_us < before_occurred_us, ~FILES.c.condemned)
            newest = await session.scalar(sa.select(sa.func.max(FILES.c.max_occurred_us)).where(*old))
            if newest is not None:
                await session.execute(sa.update(FILES).where(*old).values(condemned=True))
                await _raise_complete_since(session, project, newest + 1)
            rows = await session.execute(sa.select(*FILE_COLUMNS).where(mine, FILES.c.condemned))
            return [ArchiveFile(*row) for row in rows]

    async def note_missing(self, project: str, complete_since_us: int) -> None:
        """Notes that records were lost to the archive: it is complete only from an event time on."""
        async with self._database.session() as session:
            await _raise_complete_since(session, project, complete_since_us)

    async def amend(self, file: ArchiveFile, *, condemned: bool = False) -> None:
        """Takes on a file's new times, count and size; or takes it out of sight."""
        changed = ("min_occurred_us", "max_occurred_us", "event_count", "size_bytes")
        async with self._database.session() as session:
            await session.execute(
                sa.update(FILES)
                .where(
                    FILES.c.project == file.project,
                    FILES.c.hour_us == file.hour_us,
                    FILES.c.last_position == file.last_position,
                )
                .values({name: getattr(file, name) for name in changed} | {"condemned": condemned})
            )

    async def forget(self, file: ArchiveFile) -> None:
        """Removes a file from the index, once it is deleted."""
        async with self._database.session() as session:
            await session.execute(
                sa.delete(FILES).where(
                    FILES.c.project == file.project,
                    FILES.c.hour_us == file.hour_us,
                    FILES.c.last_position == file.last_position,
                )
            )


async def _raise_complete_since(session: AsyncSession, project: str, complete_since_us: int) -> None:
    since = _PROGRESS.c.complete_since_us
    await session.execute(
        sa.update(_PROGRESS)
        .where(_PROGRESS.c.project == project, sa.or_(since.is_(None), since < complete_since_us))
        .values(complete_since_us=complete_since_us)
    )
