"""The PostgreSQL log's tables and statements: the same tables as in SQLite, spoken to through SQLAlchemy.

The row of a project in `log_projects` is locked from the moment a writer takes positions until it has committed. So
positions become visible in their order and without gaps, however many replicas append.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.ingest.log.base import Entry, LogBatch, LogStats, Totals, Trimmed, place
from services.ingest.log.extents import Extent

CHANNEL = "inkling_log"
"""What replicas tell each other: `HEAD PROJECT`, for each project that grew; `0 PROJECT` when content was replaced."""

_READ_BATCHES = 1024
"""One read looks at no more batches than this."""

_METADATA = sa.MetaData()
_PROJECTS = sa.Table(
    "log_projects",
    _METADATA,
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column("name", sa.Text),
    sa.Column("head", sa.BigInteger),
    sa.Column("kept_count", sa.BigInteger),
    sa.Column("kept_bytes", sa.BigInteger),
    sa.Column("appended_bytes", sa.BigInteger),
    sa.Column("max_occurred_us", sa.BigInteger),
    sa.Column("complete_since_us", sa.BigInteger),
)
_BATCHES = sa.Table(
    "log_batches",
    _METADATA,
    sa.Column("project_id", sa.BigInteger, primary_key=True),
    sa.Column("last_position", sa.BigInteger, primary_key=True),
    sa.Column("first_position", sa.BigInteger),
    sa.Column("min_occurred_us", sa.BigInteger),
    sa.Column("max_occurred_us", sa.BigInteger),
    sa.Column("received_us", sa.BigInteger),
    sa.Column("data", sa.LargeBinary),
)


def _advance() -> sa.Executable:
    project, new = _PROJECTS.c, insert(_PROJECTS)
    added = new.excluded
    return new.on_conflict_do_update(
        index_elements=[project.name],
        set_={
            "head": project.head + added.head,
            "kept_count": project.kept_count + added.kept_count,
            "kept_bytes": project.kept_bytes + added.kept_bytes,
            "appended_bytes": project.appended_bytes + added.appended_bytes,
            "max_occurred_us": sa.func.greatest(project.max_occurred_us, added.max_occurred_us),
        },
    ).returning(project.id, project.head)


_ADVANCE = _advance()
_NOTIFY = sa.text("SELECT pg_notify(:channel, :payload)")


async def append(connection: AsyncConnection, entries: Sequence[Entry]) -> list[LogBatch]:
    """Appends a group of entries in the caller's transaction; returns them with their positions."""
    ids: dict[str, int] = {}
    heads: dict[str, int] = {}
    for project, total in Totals.of(entries).items():
        row = {
            "name": project,
            "head": total.count,
            "kept_count": total.count,
            "kept_bytes": total.bytes,
            "appended_bytes": total.bytes,
            "max_occurred_us": total.max_occurred_us,
        }
        ids[project], heads[project] = (await connection.execute(_ADVANCE, row)).one()
    batches = place(entries, heads)
    rows = [
        {
            "project_id": ids[entry.project],
            "last_position": batch.last_position,
            "first_position": batch.first_position,
            "min_occurred_us": batch.min_occurred_us,
            "max_occurred_us": batch.max_occurred_us,
            "received_us": batch.received_us,
            "data": batch.data,
        }
        for entry, batch in zip(entries, batches, strict=True)
    ]
    await connection.execute(sa.insert(_BATCHES), rows)
    for project, head in heads.items():
        await connection.execute(_NOTIFY, {"channel": CHANNEL, "payload": f"{head} {project}"})
    return batches


def _id_of(project: str) -> sa.ScalarSelect[int]:
    return sa.select(_PROJECTS.c.id).where(_PROJECTS.c.name == project).scalar_subquery()


async def read(connection: AsyncConnection, project: str, after_position: int, max_bytes: int) -> list[LogBatch]:
    """As `EventLog.read`."""
    wanted = (_BATCHES.c.project_id == _id_of(project)) & (_BATCHES.c.last_position > after_position)
    # The sizes first, from the rows alone: content lives elsewhere (TOAST) and is fetched only for what fits.
    sizes = (
        sa.select(_BATCHES.c.last_position, sa.func.octet_length(_BATCHES.c.data).label("size"))
        .where(wanted)
        .order_by(_BATCHES.c.last_position)
        .limit(_READ_BATCHES)
    ).subquery()
    before = sa.func.sum(sizes.c.size).over(order_by=sizes.c.last_position)
    running = sa.select(sizes.c.last_position, sizes.c.size, before.label("total")).subquery()
    last = (
        sa.select(sa.func.max(running.c.last_position))
        .where((running.c.total <= max_bytes) | (running.c.total == running.c.size))
        .scalar_subquery()
    )
    rows = await connection.execute(
        sa.select(
            _BATCHES.c.first_position,
            _BATCHES.c.last_position,
            _BATCHES.c.data,
            _BATCHES.c.min_occurred_us,
            _BATCHES.c.max_occurred_us,
            _BATCHES.c.received_us,
        )
        .where(wanted & (_BATCHES.c.last_position <= last))
        .order_by(_BATCHES.c.last_position)
    )
    return [LogBatch(*row) for row in rows]


async def heads(connection: AsyncConnection, projects: Sequence[str] | None = None) -> dict[str, int]:
    """The heads of some projects, or of all."""
    query = sa.select(_PROJECTS.c.name, _PROJECTS.c.head)
    if projects is not None:
        query = query.where(_PROJECTS.c.name.in_(projects))
    return {row.name: row.head for row in await connection.execute(query)}


async def extent(connection: AsyncConnection, project: str) -> Extent:
    """What is kept of a project."""
    first = (
        sa.select(_BATCHES.c.first_position)
        .where(_BATCHES.c.project_id == _PROJECTS.c.id)
        .order_by(_BATCHES.c.last_position)
        .limit(1)
        .scalar_subquery()
    )
    query = sa.select(first, _PROJECTS.c.complete_since_us).where(_PROJECTS.c.name == project)
    row = (await connection.execute(query)).one_or_none()
    return Extent(None, None) if row is None else Extent(*row)


async def stats(connection: AsyncConnection, project: str) -> LogStats:
    """As `EventLog.stats`."""
    columns = (_PROJECTS.c.kept_count, _PROJECTS.c.kept_bytes, _PROJECTS.c.appended_bytes, _PROJECTS.c.max_occurred_us)
    row = (await connection.execute(sa.select(*columns).where(_PROJECTS.c.name == project))).one_or_none()
    return LogStats(0, 0, 0, None) if row is None else LogStats(*row)


async def replace(connection: AsyncConnection, project: str, before: LogBatch, after: LogBatch) -> bool:
    """As `EventLog.replace`, in the caller's transaction."""
    # The project's row first, as writers do.
    project_id = await connection.scalar(
        sa.select(_PROJECTS.c.id).where(_PROJECTS.c.name == project).with_for_update(key_share=True)
    )
    replaced = await connection.execute(
        sa.update(_BATCHES)
        .where(
            _BATCHES.c.project_id == project_id,
            _BATCHES.c.last_position == before.last_position,
            _BATCHES.c.first_position == before.first_position,
            _BATCHES.c.data == before.data,
        )
        .values(data=after.data, min_occurred_us=after.min_occurred_us, max_occurred_us=after.max_occurred_us)
        .returning(_BATCHES.c.last_position)
    )
    if replaced.first() is None:
        return False
    await connection.execute(
        sa.update(_PROJECTS)
        .where(_PROJECTS.c.id == project_id)
        .values(kept_bytes=_PROJECTS.c.kept_bytes + len(after.data) - len(before.data))
    )
    await connection.execute(_NOTIFY, {"channel": CHANNEL, "payload": f"0 {project}"})
    return True


async def trim(connection: AsyncConnection, project: str, before_occurred_us: int, limit: int) -> Trimmed:
    """As `EventLog.trim`, in the caller's transaction, for at most `limit` batches."""
    # The project's row first, as writers do: two replicas that trim at once must not wait for each other in a circle.
    project_id = await connection.scalar(
        sa.select(_PROJECTS.c.id).where(_PROJECTS.c.name == project).with_for_update(key_share=True)
    )
    mine = _BATCHES.c.project_id == project_id
    old = sa.select(_BATCHES.c.last_position).where(mine & (_BATCHES.c.max_occurred_us < before_occurred_us))
    removed = (
        await connection.execute(
            sa.delete(_BATCHES)
            .where(mine & _BATCHES.c.last_position.in_(old.limit(limit)))
            .returning(
                _BATCHES.c.last_position - _BATCHES.c.first_position + 1,
                sa.func.octet_length(_BATCHES.c.data),
                _BATCHES.c.max_occurred_us,
            )
        )
    ).all()
    trimmed = Trimmed(len(removed), sum(row[0] for row in removed), sum(row[1] for row in removed))
    if removed:
        await connection.execute(
            sa.update(_PROJECTS)
            .where(_PROJECTS.c.id == project_id)
            .values(
                kept_count=_PROJECTS.c.kept_count - trimmed.count,
                kept_bytes=_PROJECTS.c.kept_bytes - trimmed.bytes,
                complete_since_us=sa.func.greatest(_PROJECTS.c.complete_since_us, max(row[2] for row in removed) + 1),
            )
        )
    return trimmed
