"""Declarations of properties and roll-ups in SQL. Deleted properties leave a row: a name that was used is never new."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from services.features.properties import Merge, PropertyDefinition, PropertyType, Visibility
from services.features.rollups import RollupDefinition, RollupFunction
from services.runtime.database import Database


@dataclass(frozen=True, slots=True)
class StoredProperty:
    """A declared property with its life."""

    definition: PropertyDefinition
    create_time_us: int
    update_time_us: int
    generation: int = 1
    """How often the name was declared. The first time there is nothing of it in the log."""

    @property
    def etag(self) -> str:
        """Changes with each change."""
        text = f"{self.update_time_us}\n{self.generation}\n{_document(self.definition)}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class StoredRollup:
    """A declared roll-up with its life."""

    definition: RollupDefinition
    create_time_us: int


class _Base(DeclarativeBase):
    pass


class _PropertyRow(_Base):
    __tablename__ = "properties"

    project: Mapped[str] = mapped_column(primary_key=True)
    attribute_key: Mapped[str] = mapped_column(primary_key=True)
    property_id: Mapped[str] = mapped_column(primary_key=True)
    document: Mapped[str]
    generation: Mapped[int]
    deleted: Mapped[bool]
    create_time_us: Mapped[int] = mapped_column(sa.BigInteger)
    update_time_us: Mapped[int] = mapped_column(sa.BigInteger)


class _RollupRow(_Base):
    __tablename__ = "rollups"

    project: Mapped[str] = mapped_column(primary_key=True)
    attribute_key: Mapped[str] = mapped_column(primary_key=True)
    rollup_id: Mapped[str] = mapped_column(primary_key=True)
    document: Mapped[str]
    create_time_us: Mapped[int] = mapped_column(sa.BigInteger)


class PropertyStore:
    """Reads and writes declarations. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def projects(self) -> list[str]:
        """The projects that have a property."""
        query = sa.select(_PropertyRow.project).where(_PropertyRow.deleted.is_(False)).distinct()
        async with self._database.session(read_only=True) as session:
            return sorted(await session.scalars(query))

    async def properties(self, project: str) -> list[StoredProperty]:
        """The declared properties of a project."""
        query = sa.select(_PropertyRow).where(_PropertyRow.project == project, _PropertyRow.deleted.is_(False))
        async with self._database.session(read_only=True) as session:
            return [_stored_property(row) for row in await session.scalars(query)]

    async def rollups(self, project: str) -> list[StoredRollup]:
        """The declared roll-ups of a project."""
        query = sa.select(_RollupRow).where(_RollupRow.project == project)
        async with self._database.session(read_only=True) as session:
            return [_stored_rollup(row) for row in await session.scalars(query)]

    async def generations(self, project: str, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """How often each (attribute key, id) was declared so far, for those that ever were."""
        found = {}
        async with self._database.session(read_only=True) as session:
            for attribute_key, property_id in names:
                row = await session.get(_PropertyRow, (project, attribute_key, property_id))
                if row is not None:
                    found[attribute_key, property_id] = row.generation
        return found

    async def put_properties(self, project: str, stored: Sequence[StoredProperty], *, deleted: bool = False) -> None:
        """Writes declarations, over those of the same name."""
        async with self._database.session() as session:
            for each in stored:
                await session.merge(
                    _PropertyRow(
                        project=project,
                        attribute_key=each.definition.attribute_key,
                        property_id=each.definition.property_id,
                        document=_document(each.definition),
                        generation=each.generation,
                        deleted=deleted,
                        create_time_us=each.create_time_us,
                        update_time_us=each.update_time_us,
                    )
                )

    async def add_rollup(self, project: str, stored: StoredRollup) -> None:
        """Adds a declaration."""
        definition = stored.definition
        row = _RollupRow(
            project=project,
            attribute_key=definition.attribute_key,
            rollup_id=definition.rollup_id,
            document=json.dumps(asdict(definition), sort_keys=True),
            create_time_us=stored.create_time_us,
        )
        async with self._database.session() as session:
            session.add(row)

    async def delete_rollup(self, project: str, definition: RollupDefinition) -> None:
        """Removes a declaration."""
        key = (
            _RollupRow.project == project,
            _RollupRow.attribute_key == definition.attribute_key,
            _RollupRow.rollup_id == definition.rollup_id,
        )
        async with self._database.session() as session:
            await session.execute(sa.delete(_RollupRow).where(*key))


def _document(definition: PropertyDefinition) -> str:
    return json.dumps(asdict(definition), sort_keys=True)


def _stored_property(row: _PropertyRow) -> StoredProperty:
    fields = json.loads(row.document)
    fields["type"] = PropertyType(fields["type"])
    fields["visibility"] = Visibility(fields["visibility"])
    fields["merge"] = Merge(fields["merge"])
    return StoredProperty(PropertyDefinition(**fields), row.create_time_us, row.update_time_us, row.generation)


def _stored_rollup(row: _RollupRow) -> StoredRollup:
    fields = json.loads(row.document)
    fields["function"] = RollupFunction(fields["function"])
    return StoredRollup(RollupDefinition(**fields), row.create_time_us)
