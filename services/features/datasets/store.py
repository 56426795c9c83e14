"""Training sets in SQL: what was asked for, its state, and the manifest once it is there."""

from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from services.runtime.database import Database
from services.runtime.errors import InvalidArgument, NotFound

MIGRATIONS = "services.features.datasets.migrations"


class State(StrEnum):
    """Where a training set is in its life."""

    RUNNING = "running"
    READY = "ready"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class StoredDataset:
    """One training set."""

    dataset_id: str
    spec: str
    """The specification as JSON; pinned, once its computation has begun."""
    create_time_us: int
    update_time_us: int
    state: State = State.RUNNING
    inputs: str = ""
    """The uploaded table that it stands on, if any."""
    manifest: str = ""
    """JSON, once it is there."""
    failure: str = ""
    operation: str = ""
    """The name of the operation that computes it."""
    request_id: str = ""
    fingerprint: str = ""
    """A hash of the request."""

    @property
    def name(self) -> str:
        """The resource name."""
        return f"datasets/{self.dataset_id}"


class _Base(DeclarativeBase):
    pass


class _Row(_Base):
    __tablename__ = "datasets"

    project: Mapped[str] = mapped_column(primary_key=True)
    dataset_id: Mapped[str] = mapped_column(primary_key=True)
    spec: Mapped[str]
    inputs: Mapped[str]
    state: Mapped[str]
    manifest: Mapped[str | None]
    failure: Mapped[str]
    operation: Mapped[str]
    request_id: Mapped[str | None]
    fingerprint: Mapped[str]
    create_time_us: Mapped[int] = mapped_column(sa.BigInteger)
    update_time_us: Mapped[int] = mapped_column(sa.BigInteger)


class DatasetStore:
    """Reads and writes training sets. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def repeated(self, project: str, request_id: str, fingerprint: str) -> StoredDataset | None:
        """What the request made when it came before; raises InvalidArgument when it came with another content."""
        if not request_id:
            return None
        query = sa.select(_Row).where(_Row.project == project, _Row.request_id == request_id)
        async with self._database.session(read_only=True) as session:
            row = (await session.scalars(query)).one_or_none()
        if row is not None and row.fingerprint != fingerprint:
            raise InvalidArgument("the request_id was used for another request", reason="REQUEST_ID_REUSED")
        return None if row is None else _stored(row)

    async def add(self, project: str, dataset: StoredDataset) -> None:
        """Adds one; raises AlreadyExists."""
        async with self._database.session() as session:
            session.add(_row(project, dataset))

    async def replace(self, project: str, dataset: StoredDataset) -> None:
        """Writes one over that of the same id; raises NotFound when it is gone."""
        async with self._database.session() as session:
            if await session.get(_Row, (project, dataset.dataset_id)) is None:
                raise NotFound(f"{dataset.name} was deleted", reason="NOT_FOUND")
            await session.merge(_row(project, dataset))

    async def get(self, project: str, dataset_id: str) -> StoredDataset:
        """One by its id; raises NotFound."""
        async with self._database.session(read_only=True) as session:
            row = await session.get(_Row, (project, dataset_id))
        if row is None:
            raise NotFound(f"there is no datasets/{dataset_id}", reason="NOT_FOUND")
        return _stored(row)

    async def page(self, project: str, size: int, before: tuple[int, str] | None) -> list[StoredDataset]:
        """Those created before a time (and id), the newest first."""
        query = sa.select(_Row).where(_Row.project == project)
        if before is not None:
            time_us, dataset_id = before
            older = sa.and_(_Row.create_time_us == time_us, _Row.dataset_id < dataset_id)
            query = query.where(sa.or_(_Row.create_time_us < time_us, older))
        query = query.order_by(_Row.create_time_us.desc(), _Row.dataset_id.desc()).limit(size)
        async with self._database.session(read_only=True) as session:
            return [_stored(row) for row in await session.scalars(query)]

    async def stand_on(self, project: str, input_id: str) -> int:
        """How many stand on an uploaded table."""
        query = sa.select(sa.func.count()).select_from(_Row)
        query = query.where(_Row.project == project, _Row.inputs == input_id)
        async with self._database.session(read_only=True) as session:
            return int((await session.execute(query)).scalar_one())

    async def delete(self, project: str, dataset_id: str) -> None:
        """Removes one."""
        mine = (_Row.project == project, _Row.dataset_id == dataset_id)
        async with self._database.session() as session:
            await session.execute(sa.delete(_Row).where(*mine))


def _row(project: str, dataset: StoredDataset) -> _Row:
    return _Row(
        project=project,
        dataset_id=dataset.dataset_id,
        spec=dataset.spec,
        inputs=dataset.inputs,
        state=dataset.state,
        manifest=dataset.manifest or None,
        failure=dataset.failure,
        operation=dataset.operation,
        request_id=dataset.request_id or None,
        fingerprint=dataset.fingerprint,
        create_time_us=dataset.create_time_us,
        update_time_us=dataset.update_time_us,
    )


def _stored(row: _Row) -> StoredDataset:
    return StoredDataset(
        dataset_id=row.dataset_id,
        spec=row.spec,
        create_time_us=row.create_time_us,
        update_time_us=row.update_time_us,
        state=State(row.state),
        inputs=row.inputs,
        manifest=row.manifest or "",
        failure=row.failure,
        operation=row.operation,
        request_id=row.request_id or "",
        fingerprint=row.fingerprint,
    )
