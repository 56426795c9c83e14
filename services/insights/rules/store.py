"""Rules in SQL, by (project, id, version). A deleted rule leaves its versions: an id never starts again at 1."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from services.insights.rules.definitions import Rule
from services.insights.rules.documents import read_document, write_document
from services.runtime.database import Database
from services.runtime.errors import Aborted, AlreadyExists, NotFound

MIGRATIONS = "services.insights.rules.migrations"

_RULES = sa.table(
    "rules",
    sa.column("project", sa.String),
    sa.column("rule_id", sa.String),
    sa.column("version", sa.Integer),
    sa.column("document", sa.String),
    sa.column("is_newest", sa.Boolean),
    sa.column("is_active", sa.Boolean),
    sa.column("is_deleted", sa.Boolean),
    sa.column("create_time_us", sa.BigInteger),
    sa.column("update_time_us", sa.BigInteger),
)


@dataclass(frozen=True, slots=True)
class StoredRule:
    """A version of a rule with its life."""

    rule: Rule
    is_active: bool
    create_time_us: int
    """When the rule was first made."""
    update_time_us: int
    """When this version was made, or switched on or off."""

    @property
    def etag(self) -> str:
        """Changes with each change."""
        return f"{self.rule.version}-{self.update_time_us}-{int(self.is_active)}"


class RuleStore:
    """Reads and writes rules. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def projects(self) -> list[str]:
        """The projects that have an active rule."""
        query = sa.select(_RULES.c.project).where(_RULES.c.is_newest, _RULES.c.is_active, ~_RULES.c.is_deleted)
        async with self._database.session(read_only=True) as session:
            return sorted(await session.scalars(query.distinct()))

    async def rules(self, project: str) -> list[StoredRule]:
        """The newest versions of a project's rules, by id."""
        query = sa.select(_RULES).where(_RULES.c.project == project, _RULES.c.is_newest, ~_RULES.c.is_deleted)
        async with self._database.session(read_only=True) as session:
            return [_stored(row) for row in await session.execute(query.order_by(_RULES.c.rule_id))]

    async def versions(self, project: str, rule_id: str) -> list[StoredRule]:
        """All versions of a rule, the newest first; those from before a deletion too."""
        query = sa.select(_RULES).where(_RULES.c.project == project, _RULES.c.rule_id == rule_id)
        async with self._database.session(read_only=True) as session:
            return [_stored(row) for row in await session.execute(query.order_by(_RULES.c.version.desc()))]

    async def add(self, project: str, rules: Sequence[Rule], now_us: int, *, is_active: bool) -> list[StoredRule]:
        """Adds rules, all or none, with the versions that follow those deleted. Raises AlreadyExists."""
        added = []
        async with self._database.session() as session:
            for rule in rules:
                newest = await self._newest(session, project, rule.rule_id)
                if newest is not None and not newest.is_deleted:
                    raise AlreadyExists(f"rules/{rule.rule_id} exists already: update it", reason="ALREADY_EXISTS")
                version = 1 if newest is None else newest.version + 1
                added.append(StoredRule(replace(rule, version=version), is_active, now_us, now_us))
                await self._put(session, project, added[-1])
        return added

    async def update(self, project: str, rule: Rule, etag: str, now_us: int) -> StoredRule:
        """Adds the next version of a rule. Raises NotFound, and Aborted when the etag, if given, is not the newest."""
        async with self._database.session() as session:
            old = await self._present(session, project, rule.rule_id, etag)
            new = replace(rule, version=old.rule.version + 1)
            stored = StoredRule(new, old.is_active, old.create_time_us, now_us)
            await self._put(session, project, stored)
            return stored

    async def switch(self, project: str, rule: Rule, now_us: int, *, is_active: bool) -> StoredRule:
        """Switches the newest version on or off, and stores it as given. Raises NotFound."""
        async with self._database.session() as session:
            old = await self._present(session, project, rule.rule_id, "")
            stored = StoredRule(rule, is_active, old.create_time_us, now_us)
            await session.execute(
                sa.delete(_RULES).where(*_is(project, rule.rule_id), _RULES.c.version == rule.version)
            )
            await self._put(session, project, stored)
            return stored

    async def delete(self, project: str, rule_id: str, etag: str, now_us: int) -> None:
        """Marks a rule deleted. Raises NotFound and Aborted."""
        async with self._database.session() as session:
            await self._present(session, project, rule_id, etag)
            change = sa.update(_RULES).where(*_is(project, rule_id))
            await session.execute(change.values(is_deleted=True, is_active=False, update_time_us=now_us))

    async def _newest(self, session: AsyncSession, project: str, rule_id: str) -> "sa.Row[tuple[object, ...]] | None":
        query = sa.select(_RULES).where(*_is(project, rule_id), _RULES.c.is_newest)
        return (await session.execute(query)).first()

    async def _present(self, session: AsyncSession, project: str, rule_id: str, etag: str) -> StoredRule:
        row = await self._newest(session, project, rule_id)
        if row is None or row.is_deleted:
            raise NotFound(f"there is no rules/{rule_id}", reason="NOT_FOUND")
        stored = _stored(row)
        if etag and etag != stored.etag:
            raise Aborted(f"rules/{rule_id} was changed: read it again", reason="ETAG_MISMATCH")
        return stored

    async def _put(self, session: AsyncSession, project: str, stored: StoredRule) -> None:
        rule = stored.rule
        await session.execute(sa.update(_RULES).where(*_is(project, rule.rule_id)).values(is_newest=False))
        values = {
            "project": project,
            "rule_id": rule.rule_id,
            "version": rule.version,
            "document": write_document(rule),
            "is_newest": True,
            "is_active": stored.is_active,
            "is_deleted": False,
            "create_time_us": stored.create_time_us,
            "update_time_us": stored.update_time_us,
        }
        await session.execute(sa.insert(_RULES).values(values))


def _is(project: str, rule_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return _RULES.c.project == project, _RULES.c.rule_id == rule_id


def _stored(row: "sa.Row[tuple[object, ...]]") -> StoredRule:
    return StoredRule(read_document(row.document), row.is_active, row.create_time_us, row.update_time_us)
