"""The tables of the change journal, in each service's own database."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from services.runtime.database import Database

MIGRATIONS = "services.runtime.migrations.journal"
"""The tables. Open the service's database with them: `Database.open(url, (MIGRATIONS, "services.x.migrations"))`."""

_ROWS_A_STATEMENT = 10_000

_HEADS = sa.table(
    "change_journals",
    sa.column("project", sa.String),
    sa.column("newest", sa.BigInteger),
    sa.column("trimmed", sa.BigInteger),
)
_ENTRIES = sa.table(
    "change_journal_entries",
    sa.column("project", sa.String),
    sa.column("sequence", sa.BigInteger),
    sa.column("stream", sa.String),
    sa.column("key_value", sa.String),
    sa.column("change", sa.String),
    sa.column("instant_us", sa.BigInteger),
    sa.column("position", sa.BigInteger),
    sa.column("detail", sa.Text),
    sa.column("written_us", sa.BigInteger),
)


@dataclass(frozen=True, slots=True)
class Change:
    """Something that changed for a key: it entered or left a segment, an insight applies or does not."""

    stream: str
    """What of, such as a segment or an insight: at most 160 characters."""
    key_value: str
    change: str
    """One word, such as `entered`: at most 32 characters."""
    instant_us: int
    """Since when."""
    position: int
    """The position of the log at which it was seen."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A change with its place in the project's journal."""

    sequence: int
    change: Change


@dataclass(frozen=True, slots=True)
class Extent:
    """What a journal holds: entries after `trimmed`, up to `newest`."""

    newest: int = 0
    trimmed: int = 0


class JournalStore:
    """Reads and writes entries. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, project: str, changes: Sequence[Change], now_us: int) -> int:
        """Writes all of them or none, with the next sequences; returns the last.

        The journal's row is locked first, so that sequences become visible in their order.
        """
        async with self._database.session() as session:
            last = await _advance(session, project, len(changes))
            for start in range(0, len(changes), _ROWS_A_STATEMENT):
                part = changes[start : start + _ROWS_A_STATEMENT]
                first = last - len(changes) + 1 + start
                rows = [_row(project, sequence, change, now_us) for sequence, change in enumerate(part, first)]
                await session.execute(sa.insert(_ENTRIES), rows)
        return last

    async def extent(self, project: str) -> Extent:
        """What the journal holds."""
        async with self._database.session(read_only=True) as session:
            return await _extent(session, project)

    async def read(self, project: str, streams: Collection[str], after: int, limit: int) -> tuple[Extent, list[Entry]]:
        """At most `limit` entries of the streams after a sequence, and what the journal held."""
        async with self._database.session(read_only=True) as session:
            newest = (await _extent(session, project)).newest
            query = (
                sa.select(_ENTRIES)
                .where(_ENTRIES.c.project == project, _ENTRIES.c.sequence > after, _ENTRIES.c.sequence <= newest)
                .where(_ENTRIES.c.stream.in_(streams))
                .order_by(_ENTRIES.c.sequence)
                .limit(limit)
            )
            entries = [_entry(row) for row in await session.execute(query)]
            # Asked again: PostgreSQL shows what others trimmed between the two queries.
            return Extent(newest, (await _extent(session, project)).trimmed), entries

    async def before_position(self, project: str, position: int) -> int:
        """The sequence of the last entry that was written when only earlier positions were applied.

        Looks back from the newest entry: quick for positions that are not long ago.
        """
        async with self._database.session(read_only=True) as session:
            found = await session.scalar(
                sa.select(_ENTRIES.c.sequence)
                .where(_ENTRIES.c.project == project, _ENTRIES.c.position > 0, _ENTRIES.c.position < position)
                .order_by(_ENTRIES.c.sequence.desc())
                .limit(1)
            )
            return (await _extent(session, project)).trimmed if found is None else int(found)

    async def streams_of(self, project: str, key_value: str) -> list[str]:
        """The streams that have an entry of a key."""
        mine = (_ENTRIES.c.project == project, _ENTRIES.c.key_value == key_value)
        async with self._database.session(read_only=True) as session:
            return sorted(await session.scalars(sa.select(_ENTRIES.c.stream).where(*mine).distinct()))

    async def trim(self, project: str, before_us: int, keep: int) -> int:
        """Deletes entries written before an instant, and all but the newest `keep`; returns the last one deleted."""
        async with self._database.session() as session:
            extent = await _extent(session, project)
            mine = _ENTRIES.c.project == project
            old = await session.scalar(
                sa.select(_ENTRIES.c.sequence)
                .where(mine, _ENTRIES.c.sequence > extent.trimmed, _ENTRIES.c.written_us >= before_us)
                .order_by(_ENTRIES.c.sequence)
                .limit(1)
            )
            last = max((extent.newest if old is None else int(old) - 1), extent.newest - keep, extent.trimmed)
            if last > extent.trimmed:
                await session.execute(sa.delete(_ENTRIES).where(mine, _ENTRIES.c.sequence <= last))
                await session.execute(sa.update(_HEADS).where(_HEADS.c.project == project).values(trimmed=last))
            return last

    async def forget(self, project: str, key_value: str, streams: Collection[str]) -> int:
        """Deletes the entries of a key in some streams; returns how many. The sequences of the others stay."""
        of_key = (
            _ENTRIES.c.project == project,
            _ENTRIES.c.key_value == key_value,
            _ENTRIES.c.stream.in_(streams),
        )
        async with self._database.session() as session:
            count = await session.scalar(sa.select(sa.func.count()).select_from(_ENTRIES).where(*of_key))
            await session.execute(sa.delete(_ENTRIES).where(*of_key))
        return int(count or 0)


async def _advance(session: AsyncSession, project: str, count: int) -> int:
    mine = _HEADS.c.project == project
    moved = sa.update(_HEADS).where(mine).values(newest=_HEADS.c.newest + count).returning(_HEADS.c.newest)
    last = await session.scalar(moved)
    if last is None:
        await session.execute(sa.insert(_HEADS).values(project=project, newest=count, trimmed=0))
        return count
    return int(last)


async def _extent(session: AsyncSession, project: str) -> Extent:
    row = (await session.execute(sa.select(_HEADS).where(_HEADS.c.project == project))).first()
    return Extent() if row is None else Extent(int(row.newest), int(row.trimmed))


def _row(project: str, sequence: int, change: Change, now_us: int) -> dict[str, object]:
    return {
        "project": project,
        "sequence": sequence,
        "stream": change.stream,
        "key_value": change.key_value,
        "change": change.change,
        "instant_us": change.instant_us,
        "position": change.position,
        "detail": change.detail,
        "written_us": now_us,
    }


def _entry(row: sa.Row[tuple[object, ...]]) -> Entry:
    return Entry(
        int(row.sequence),
        Change(row.stream, row.key_value, row.change, int(row.instant_us), int(row.position), row.detail),
    )
