"""Brings a database's tables up to date, with Alembic and without its files of configuration.

A *migrations package* is a folder of Alembic revisions (`v0001_collections.py`, each with `revision`, `down_revision`
and `upgrade()`) and an `__init__.py`. Each package has a line of revisions and a version table of its own, so several
can live in one database: a service opens its database with its own package and with those of the runtime that it
needs (`services.runtime.migrations.operations`), and neither knows of the other. Table names must differ.

All packages are upgraded in one transaction under one lock: PostgreSQL and SQLite both roll DDL back.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, text

from services.runtime.errors import FailedPrecondition

# Any number will do, as long as all processes take the same: "inkling" in ASCII.
_ADVISORY_LOCK = 0x696E6B6C696E67


def upgrade(connection: Connection, packages: Sequence[str]) -> None:
    """Upgrades each package to its newest revision, inside the caller's transaction.

    Raises FailedPrecondition when the database holds a revision that this code does not know.
    """
    if not packages:
        return
    if connection.dialect.name == "postgresql":
        # SQLite needs none: the transaction itself holds the write lock.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    for package in packages:
        _upgrade_package(connection, package)


def version_table(package: str) -> str:
    """The version table of a package: `services.ingest.migrations` keeps `ingest_schema_version`."""
    parts = [part for part in package.split(".") if part not in ("services", "migrations")]
    return f"{'_'.join(parts)}_schema_version"


def _upgrade_package(connection: Connection, package: str) -> None:
    folder = Path(next(iter(importlib.import_module(package).__path__)))
    script = ScriptDirectory(str(folder), version_locations=[str(folder)])

    def revisions(current: Any, _context: MigrationContext) -> Any:
        try:
            return script._upgrade_revs("head", current)
        except CommandError as error:
            raise FailedPrecondition(
                f"the database's tables of {package} are newer than this program: run a newer version"
            ) from error

    options = {"fn": revisions, "version_table": version_table(package), "transactional_ddl": True}
    context = MigrationContext.configure(connection, opts=options)
    with Operations.context(context):
        context.run_migrations()
