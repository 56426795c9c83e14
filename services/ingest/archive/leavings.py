"""Files beside the index: those that are being written to replace others, and those that were replaced.

Each is noted before it is written, or in the transaction that takes it out of the index. So whatever a crash leaves in
the blob store is known, and is deleted the next time.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple, cast

import sqlalchemy as sa
from sqlalchemy.engine import CursorResult

from services.ingest.archive.files import ArchiveFile
from services.ingest.archive.index import FILE_COLUMNS, FILES
from services.runtime.database import Database

_LEAVINGS = sa.Table(
    "archive_leavings",
    sa.MetaData(),
    sa.Column("project", sa.String, primary_key=True),
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("wanted", sa.Boolean),
)


class ArchivedRange(NamedTuple):
    """A range of the log that was archived together."""

    first_position: int
    last_position: int
    event_count: int
    whole: bool
    """Whether all its files are in sight."""


class _ChangedError(Exception):
    """Somebody else changed what was to be replaced."""


class Leavings:
    """Those in a database opened with `index.MIGRATIONS`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ranges(self, project: str) -> list[ArchivedRange]:
        """The ranges that have files, in the order of the log."""
        first, last = FILES.c.first_position, FILES.c.last_position
        hidden = sa.func.sum(sa.case((FILES.c.condemned, 1), else_=0))
        query = (
            sa.select(first, last, sa.func.sum(FILES.c.event_count), hidden == 0)
            .where(FILES.c.project == project)
            .group_by(first, last)
            .order_by(last)
        )
        async with self._database.session(read_only=True) as session:
            rows = (await session.execute(query)).all()
        return [ArchivedRange(row[0], row[1], int(row[2]), bool(row[3])) for row in rows]

    async def files(self, project: str, first: int, last: int) -> list[ArchiveFile]:
        """The files in sight of the ranges within positions, by hour and position."""
        query = sa.select(*FILE_COLUMNS).where(*_within(project, first, last))
        async with self._database.session(read_only=True) as session:
            rows = await session.execute(query.order_by(FILES.c.hour_us, FILES.c.last_position))
            return [ArchiveFile(*row) for row in rows]

    async def want(self, project: str, keys: Sequence[str]) -> None:
        """Notes files before they are written."""
        rows = [{"project": project, "key": key, "wanted": True} for key in keys]
        async with self._database.session() as session:
            await session.execute(sa.insert(_LEAVINGS), rows)

    async def replace(self, old: Sequence[ArchiveFile], new: Sequence[ArchiveFile]) -> bool:
        """Puts files that were wanted into the index, and takes those out that they replace: all of their positions.

        False, and nothing is changed, when the old ones are not as given any more, or the new ones not wanted.
        """
        project, first, last = new[0].project, new[0].first_position, new[0].last_position
        mine = _within(project, first, last)
        wanted = _LEAVINGS.c.project == project, _LEAVINGS.c.wanted
        try:
            async with self._database.session() as session:
                rows = await session.execute(sa.select(*FILE_COLUMNS).where(*mine).with_for_update())
                if {ArchiveFile(*row) for row in rows} != set(old):
                    raise _ChangedError
                await session.execute(sa.delete(FILES).where(*mine))
                taken = await session.execute(sa.delete(_LEAVINGS).where(*wanted))
                if cast("CursorResult[object]", taken).rowcount != len(new):
                    raise _ChangedError
                await session.execute(sa.insert(FILES), [asdict(file) | {"condemned": False} for file in new])
                gone = [{"project": project, "key": file.key, "wanted": False} for file in old]
                await session.execute(sa.insert(_LEAVINGS), gone)
        except _ChangedError:
            return False
        return True

    async def unwanted(self, project: str) -> list[str]:
        """The files to be deleted. What is still wanted is so no more: whoever wanted it was interrupted."""
        mine = _LEAVINGS.c.project == project
        async with self._database.session() as session:
            await session.execute(sa.update(_LEAVINGS).where(mine, _LEAVINGS.c.wanted).values(wanted=False))
            rows = await session.execute(sa.select(_LEAVINGS.c.key).where(mine).order_by(_LEAVINGS.c.key))
            return [row[0] for row in rows]

    async def forget(self, project: str, key: str) -> None:
        """The file is deleted."""
        async with self._database.session() as session:
            await session.execute(
                sa.delete(_LEAVINGS).where(_LEAVINGS.c.project == project, _LEAVINGS.c.key == key, ~_LEAVINGS.c.wanted)
            )


def _within(project: str, first: int, last: int) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        FILES.c.project == project,
        FILES.c.first_position >= first,
        FILES.c.last_position <= last,
        ~FILES.c.condemned,
    )
