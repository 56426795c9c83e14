"""The table of long-running operations, in each service's own database."""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from google.longrunning import operations_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import status_pb2

from services.runtime.database import Database
from services.runtime.errors import FailedPrecondition, InvalidArgument, NotFound, Violation

MIGRATIONS = "services.runtime.migrations.operations"
"""The table. Open the service's database with it: `Database.open(url, (MIGRATIONS, "services.x.migrations"))`."""

PREFIX = "operations/"

_TABLE = sa.table(
    "operations",
    sa.column("project", sa.String),
    sa.column("id", sa.String),
    sa.column("kind", sa.String),
    sa.column("metadata", sa.LargeBinary),
    sa.column("response", sa.LargeBinary),
    sa.column("error", sa.LargeBinary),
    sa.column("done", sa.Boolean),
    sa.column("cancel_requested", sa.Boolean),
    sa.column("owner", sa.String),
    sa.column("lease_until_us", sa.BigInteger),
    sa.column("create_time_us", sa.BigInteger),
    sa.column("update_time_us", sa.BigInteger),
)


@dataclass(frozen=True)
class StoredOperation:
    """One operation as the table has it. `response` and `error` are serialised `Any` and `google.rpc.Status`."""

    project: str
    id: str
    kind: str
    metadata: bytes
    response: bytes | None
    error: bytes | None
    done: bool
    cancel_requested: bool
    owner: str
    lease_until_us: int
    create_time_us: int
    update_time_us: int

    @property
    def name(self) -> str:
        """`operations/{id}`"""
        return PREFIX + self.id

    def to_proto(self) -> operations_pb2.Operation:
        """For callers."""
        operation = operations_pb2.Operation(name=self.name, done=self.done)
        operation.metadata.CopyFrom(AnyMessage.FromString(self.metadata))
        if self.error is not None:
            operation.error.CopyFrom(status_pb2.Status.FromString(self.error))
        elif self.response is not None:
            operation.response.CopyFrom(AnyMessage.FromString(self.response))
        return operation


def parse_name(name: str) -> str:
    """The id in `operations/{id}`; raises InvalidArgument."""
    operation_id = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX) or not operation_id.isalnum() or len(operation_id) > 64:
        hint = "an operation's name is operations/{id}"
        raise InvalidArgument(hint, reason="BAD_NAME", violations=(Violation("name", hint),))
    return operation_id


class OperationStore:
    """Reads and writes operations. Nothing here looks outside of the given project but what keeps leases."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(
        self, project: str, kind: str, metadata: bytes, owner: str, now_us: int, lease_until_us: int
    ) -> StoredOperation:
        """Stores a new operation, not done."""
        operation = StoredOperation(
            project=project,
            id=secrets.token_hex(12),
            kind=kind,
            metadata=metadata,
            response=None,
            error=None,
            done=False,
            cancel_requested=False,
            owner=owner,
            lease_until_us=lease_until_us,
            create_time_us=now_us,
            update_time_us=now_us,
        )
        async with self._database.session() as session:
            await session.execute(sa.insert(_TABLE).values(**vars(operation)))
        return operation

    async def get(self, project: str, operation_id: str) -> StoredOperation:
        """The operation; raises NotFound."""
        query = sa.select(_TABLE).where(_TABLE.c.project == project, _TABLE.c.id == operation_id)
        async with self._database.session(read_only=True) as session:
            row = (await session.execute(query)).first()
        if row is None:
            raise NotFound("there is no such operation", reason="NOT_FOUND")
        return _stored(row)

    async def page(
        self, project: str, size: int, before: tuple[int, str] | None, done: bool | None
    ) -> Sequence[StoredOperation]:
        """Up to `size` operations, newest first, that come after (create_time_us, id) `before`."""
        query = sa.select(_TABLE).where(_TABLE.c.project == project)
        if done is not None:
            query = query.where(_TABLE.c.done == done)
        if before is not None:
            query = query.where(sa.tuple_(_TABLE.c.create_time_us, _TABLE.c.id) < sa.tuple_(*before))
        query = query.order_by(_TABLE.c.create_time_us.desc(), _TABLE.c.id.desc()).limit(size)
        async with self._database.session(read_only=True) as session:
            return [_stored(row) for row in await session.execute(query)]

    async def write_metadata(self, operation: StoredOperation, metadata: bytes, now_us: int) -> bool:
        """Stores progress; answers whether somebody asked to cancel."""
        async with self._database.session() as session:
            await session.execute(
                sa.update(_TABLE)
                .where(_same(operation), sa.not_(_TABLE.c.done))
                .values(metadata=metadata, update_time_us=now_us)
            )
            return bool(await session.scalar(sa.select(_TABLE.c.cancel_requested).where(_same(operation))))

    async def finish(
        self,
        operation: StoredOperation,
        metadata: bytes,
        now_us: int,
        *,
        response: bytes | None = None,
        error: bytes | None = None,
    ) -> None:
        """Stores the result. The first result stays: an operation is done once."""
        async with self._database.session() as session:
            await session.execute(
                sa.update(_TABLE)
                .where(_same(operation), sa.not_(_TABLE.c.done))
                .values(done=True, metadata=metadata, response=response, error=error, update_time_us=now_us)
            )

    async def request_cancel(self, project: str, operation_id: str) -> StoredOperation:
        """Marks the operation, unless it is done; raises NotFound."""
        async with self._database.session() as session:
            await session.execute(
                sa.update(_TABLE)
                .where(_TABLE.c.project == project, _TABLE.c.id == operation_id, sa.not_(_TABLE.c.done))
                .values(cancel_requested=True)
            )
        return await self.get(project, operation_id)

    async def delete(self, project: str, operation_id: str) -> None:
        """Forgets a finished operation; raises NotFound, and FailedPrecondition while it runs."""
        found = await self.get(project, operation_id)
        if not found.done:
            raise FailedPrecondition("the operation is still running: cancel it first", reason="RUNNING")
        async with self._database.session() as session:
            await session.execute(sa.delete(_TABLE).where(_same(found)))

    async def delete_finished_before(self, update_time_us: int) -> None:
        """Forgets old results, of all projects."""
        async with self._database.session() as session:
            await session.execute(sa.delete(_TABLE).where(_TABLE.c.done, _TABLE.c.update_time_us < update_time_us))

    async def renew(self, owner: str, ids: Collection[str], lease_until_us: int) -> set[str]:
        """Keeps the leases of running operations; answers those that somebody asked to cancel."""
        mine = sa.and_(_TABLE.c.owner == owner, _TABLE.c.id.in_(ids))
        async with self._database.session() as session:
            await session.execute(sa.update(_TABLE).where(mine).values(lease_until_us=lease_until_us))
            return set(await session.scalars(sa.select(_TABLE.c.id).where(mine, _TABLE.c.cancel_requested)))

    async def orphans(self, now_us: int, left_by: str | None) -> Sequence[StoredOperation]:
        """Unfinished operations whose lease has run out, and those of owner `left_by` whatever their lease."""
        gone = _TABLE.c.lease_until_us < now_us
        if left_by is not None:
            gone = sa.or_(gone, _TABLE.c.owner == left_by)
        query = sa.select(_TABLE).where(sa.not_(_TABLE.c.done), gone).order_by(_TABLE.c.create_time_us)
        async with self._database.session(read_only=True) as session:
            return [_stored(row) for row in await session.execute(query)]

    async def claim(self, operation: StoredOperation, owner: str, lease_until_us: int) -> bool:
        """Takes an orphan over; False when somebody else was faster."""
        async with self._database.session() as session:
            claimed = await session.scalar(
                sa.update(_TABLE)
                .where(
                    _same(operation),
                    sa.not_(_TABLE.c.done),
                    _TABLE.c.owner == operation.owner,
                    _TABLE.c.lease_until_us == operation.lease_until_us,
                )
                .values(owner=owner, lease_until_us=lease_until_us)
                .returning(_TABLE.c.id)
            )
        return claimed is not None

    async def release(self, owner: str, ids: Collection[str]) -> None:
        """Lets go of unfinished operations, for whoever comes next."""
        async with self._database.session() as session:
            await session.execute(
                sa.update(_TABLE)
                .where(_TABLE.c.owner == owner, _TABLE.c.id.in_(ids), sa.not_(_TABLE.c.done))
                .values(lease_until_us=0)
            )


def _same(operation: StoredOperation) -> sa.ColumnElement[bool]:
    return sa.and_(_TABLE.c.project == operation.project, _TABLE.c.id == operation.id)


def _stored(row: sa.Row[tuple[object, ...]]) -> StoredOperation:
    return StoredOperation(**row._mapping)
