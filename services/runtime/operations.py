"""Long-running operations (AIP 151) over the service's own database."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager

from google.longrunning import operations_pb2
from google.protobuf.message import Message

from services.runtime.auth import Role
from services.runtime.clocks import Clock
from services.runtime.database import Database
from services.runtime.paging import PageTokens
from services.runtime.server import Service

MIGRATIONS = "services.runtime.migrations.operations"
"""Give it to `Database.open` beside the service's own: `Database.open(url, (MIGRATIONS, "services.x.migrations"))`."""

Progress = Callable[[Message], Awaitable[None]]
"""`await progress(metadata)` stores new metadata; raises CancelledError once the operation is cancelled."""
Work = Callable[[Progress], Awaitable[Message]]
"""The work: returns the operation's response; an InklingError that it raises becomes the operation's error."""
Resumer = Callable[[operations_pb2.Operation, str, Progress], Awaitable[Message]]
"""Goes on with an interrupted operation: (operation with its last metadata, project, progress) to response."""


class OperationRunner:
    """Runs work in this process and keeps what became of it in SQL.

    `async with OperationRunner.open(database, owner="features-0", resumers={"publish": resume}) as runner:`
    """

    @classmethod
    def open(
        cls,
        database: Database,
        *,
        owner: str,
        resumers: Mapping[str, Resumer] | None = None,
        clock: Clock | None = None,
    ) -> AbstractAsyncContextManager["OperationRunner"]:
        """Opens the runner; operations that `owner` left unfinished are resumed by kind, or failed with a reason."""
        raise NotImplementedError

    async def start(self, kind: str, project: str, metadata: Message, work: Work) -> operations_pb2.Operation:
        """Stores the operation, then starts the work; returns at once."""
        raise NotImplementedError

    async def get(self, project: str, name: str) -> operations_pb2.Operation:
        """The operation `operations/{id}` as it is now; raises NotFound."""
        raise NotImplementedError


def operations_service(runner: OperationRunner, tokens: PageTokens, roles: frozenset[Role], domain: str) -> Service:
    """google.longrunning.Operations (get, list, wait, cancel, delete) over the runner, to give to `serve`."""
    raise NotImplementedError
