"""The SQLite log's tables and the statements on them. Plain functions of a connection; errors are sqlite3's.

`log_projects` has one row for each project with its head; `log_batches` one row for each batch. Rows hold a running
sum of what they keep, so that no question about a project walks its batches. The index carries what trimming looks at.
"""

import os
import sqlite3
from pathlib import Path

from services.ingest.log.base import Entry, LogBatch, LogStats, Totals, Trimmed, place
from services.ingest.log.extents import Extent
from services.runtime.errors import FailedPrecondition

_VERSIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE log_projects (
            id                INTEGER PRIMARY KEY,
            name              TEXT NOT NULL UNIQUE,
            head              INTEGER NOT NULL,
            kept_count        INTEGER NOT NULL,
            kept_bytes        INTEGER NOT NULL,
            appended_bytes    INTEGER NOT NULL,
            max_occurred_us   INTEGER NOT NULL,
            complete_since_us INTEGER
        ) STRICT
        """,
        """
        CREATE TABLE log_batches (
            id              INTEGER PRIMARY KEY,
            project_id      INTEGER NOT NULL REFERENCES log_projects (id),
            first_position  INTEGER NOT NULL,
            last_position   INTEGER NOT NULL,
            min_occurred_us INTEGER NOT NULL,
            max_occurred_us INTEGER NOT NULL,
            received_us     INTEGER NOT NULL,
            data            BLOB NOT NULL
        ) STRICT
        """,
        """
        CREATE UNIQUE INDEX log_batches_by_position
        ON log_batches (project_id, last_position, first_position, max_occurred_us)
        """,
    ),
)
"""Each version's steps from the one before. `PRAGMA user_version` says which were taken."""

_PAGE_BYTES = 8192
"""A batch fills many pages: larger ones mean fewer frames and checksums in the write-ahead log."""


def connect(path: Path) -> sqlite3.Connection:
    """The writing connection to a file that is made, or migrated, as needed."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA synchronous = FULL")
        # The writer moves the write-ahead log itself, after it has answered.
        connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        connection.execute("PRAGMA journal_size_limit = 67108864").fetchall()
        # Overwriting trimmed batches with zeros would write as much again as they held.
        connection.execute("PRAGMA secure_delete = OFF").fetchall()
        _migrate(connection)
        _sync_folder(path.parent)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """A reading connection."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(_VERSIONS):
        raise FailedPrecondition("the log was written by a newer version of Inkling: start that one")
    for steps in _VERSIONS[version:]:
        version += 1
        connection.execute("BEGIN IMMEDIATE")
        for step in steps:
            connection.execute(step)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")


def _sync_folder(folder: Path) -> None:
    """A new file is there after a power cut only when its folder is on the disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append(connection: sqlite3.Connection, entries: list[Entry]) -> list[LogBatch]:
    """Appends a group of entries in one transaction; returns them with their positions. All or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    ids: dict[str, int] = {}
    heads: dict[str, int] = {}
    for project, total in Totals.of(entries).items():
        added = (project, total.count, total.count, total.bytes, total.bytes, total.max_occurred_us)
        ((ids[project], heads[project]),) = connection.execute(_ADVANCE, added).fetchall()
    batches = place(entries, heads)
    connection.executemany(
        _INSERT,
        [
            (
                ids[entry.project],
                batch.first_position,
                batch.last_position,
                batch.min_occurred_us,
                batch.max_occurred_us,
                batch.received_us,
                batch.data,
            )
            for entry, batch in zip(entries, batches, strict=True)
        ],
    )
    connection.execute("COMMIT")
    return batches


_ADVANCE = """
INSERT INTO log_projects (name, head, kept_count, kept_bytes, appended_bytes, max_occurred_us) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET
    head = head + excluded.head,
    kept_count = kept_count + excluded.kept_count,
    kept_bytes = kept_bytes + excluded.kept_bytes,
    appended_bytes = appended_bytes + excluded.appended_bytes,
    max_occurred_us = max(max_occurred_us, excluded.max_occurred_us)
RETURNING id, head
"""
_INSERT = """
INSERT INTO log_batches (
    project_id, first_position, last_position, min_occurred_us, max_occurred_us, received_us, data
) VALUES (?, ?, ?, ?, ?, ?, ?)
"""


def read(project: str, after_position: int, max_bytes: int, connection: sqlite3.Connection) -> list[LogBatch]:
    """As `EventLog.read`."""
    rows = connection.execute(
        """
        SELECT first_position, last_position, data, min_occurred_us, max_occurred_us, received_us FROM log_batches
        WHERE project_id = (SELECT id FROM log_projects WHERE name = ?) AND last_position > ? ORDER BY last_position
        """,
        (project, after_position),
    )
    batches: list[LogBatch] = []
    total = 0
    try:
        for row in rows:
            batch = LogBatch(*row)
            total += len(batch.data)
            if batches and total > max_bytes:
                break
            batches.append(batch)
            if total >= max_bytes:
                break
    finally:
        # An open cursor would hold a snapshot, and with it the write-ahead log.
        rows.close()
    return batches


def extent(project: str, connection: sqlite3.Connection) -> Extent:
    """What is kept of a project."""
    row = connection.execute(
        """
        SELECT (SELECT first_position FROM log_batches WHERE project_id = p.id ORDER BY last_position LIMIT 1),
               complete_since_us
        FROM log_projects AS p WHERE name = ?
        """,
        (project,),
    ).fetchone()
    return Extent(None, None) if row is None else Extent(*row)


def heads(connection: sqlite3.Connection) -> dict[str, int]:
    """The head of each project."""
    return dict(connection.execute("SELECT name, head FROM log_projects").fetchall())


def stats(project: str, connection: sqlite3.Connection) -> LogStats:
    """As `EventLog.stats`."""
    row = connection.execute(
        "SELECT kept_count, kept_bytes, appended_bytes, max_occurred_us FROM log_projects WHERE name = ?", (project,)
    ).fetchone()
    return LogStats(0, 0, 0, None) if row is None else LogStats(*row)


def replace(project: str, before: LogBatch, after: LogBatch, connection: sqlite3.Connection) -> bool:
    """As `EventLog.replace`."""
    connection.execute("BEGIN IMMEDIATE")
    replaced = connection.execute(
        """
        UPDATE log_batches SET data = ?, min_occurred_us = ?, max_occurred_us = ?
        WHERE project_id = (SELECT id FROM log_projects WHERE name = ?)
            AND last_position = ? AND first_position = ? AND data = ?
        RETURNING id
        """,
        (
            after.data,
            after.min_occurred_us,
            after.max_occurred_us,
            project,
            before.last_position,
            before.first_position,
            before.data,
        ),
    ).fetchall()
    if replaced:
        connection.execute(
            "UPDATE log_projects SET kept_bytes = kept_bytes + ? WHERE name = ?",
            (len(after.data) - len(before.data), project),
        )
    connection.execute("COMMIT")
    return bool(replaced)


def scrub(connection: sqlite3.Connection) -> bool:
    """As `EventLog.scrub`; False when a reader was in the way."""
    # Nothing less does: what `secure_delete` leaves alone is the slack of pages whose rows were moved to others.
    connection.execute("VACUUM")
    (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def trim(project: str, before_occurred_us: int, limit: int, connection: sqlite3.Connection) -> Trimmed:
    """As `EventLog.trim`, but for at most `limit` batches."""
    connection.execute("BEGIN IMMEDIATE")
    found = connection.execute(
        """
        SELECT id, last_position - first_position + 1, max_occurred_us FROM log_batches
        WHERE project_id = (SELECT id FROM log_projects WHERE name = ?) AND max_occurred_us < ? LIMIT ?
        """,
        (project, before_occurred_us, limit),
    ).fetchall()
    removed = [
        connection.execute("DELETE FROM log_batches WHERE id = ? RETURNING length(data)", (row[0],)).fetchall()
        for row in found
    ]
    trimmed = Trimmed(len(found), sum(row[1] for row in found), sum(rows[0][0] for rows in removed))
    if found:
        connection.execute(
            """
            UPDATE log_projects SET
                kept_count = kept_count - ?,
                kept_bytes = kept_bytes - ?,
                complete_since_us = max(coalesce(complete_since_us, ?), ?)
            WHERE name = ?
            """,
            (trimmed.count, trimmed.bytes, *[max(row[2] for row in found) + 1] * 2, project),
        )
    connection.execute("COMMIT")
    return trimmed
