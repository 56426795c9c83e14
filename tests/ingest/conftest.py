"""One ingest process for all tests of a run; each test has a project of its own."""

import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import grpc.aio
import pytest

from inkling.ingest.v1.collection_service_pb2_grpc import CollectionServiceStub
from inkling.ingest.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub
from inkling.ingest.v1.ingest_service_pb2 import (
    COMPRESSION_NONE,
    IngestRequest,
    IngestResponse,
    SubscribeRequest,
    SubscribeResponse,
)
from inkling.ingest.v1.ingest_service_pb2_grpc import IngestServiceStub
from inkling.ingest.v1.project_service_pb2_grpc import ProjectServiceStub
from services.kernel.columns import EventBatch
from services.runtime.auth import Role
from tests.ingest.processes import IngestProcess, bearer

_ROLES = frozenset(Role) - {Role.SERVICE}
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Project:
    """A project with a key of every role, and stubs for all services."""

    name: str
    metadata: tuple[tuple[str, str], ...]
    ingest: IngestServiceStub
    collections: CollectionServiceStub
    dead_letters: DeadLetterServiceStub
    projects: ProjectServiceStub

    async def send(self, *events: object) -> IngestResponse:
        """Ingests events in one batch."""
        response: IngestResponse = await self.ingest.Ingest(
            IngestRequest(events=events),  # type: ignore[arg-type]
            metadata=self.metadata,
        )
        return response

    async def parts(self, **fields: object) -> list[SubscribeResponse]:
        """What the log holds now, as Subscribe tells it."""
        request = SubscribeRequest(**{"stop_at_head": True, "compression": COMPRESSION_NONE, **fields})  # type: ignore[arg-type]
        return [part async for part in self.ingest.Subscribe(request, metadata=self.metadata)]

    async def rows(self, **fields: object) -> list[dict[str, object]]:
        """The events of the log, as rows."""
        parts = await self.parts(**fields)
        return [row for part in parts if part.record_batch for row in _rows(part.record_batch)]


def _rows(data: bytes) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = EventBatch.from_ipc(data).record_batch.to_pylist()
    return rows


@pytest.fixture(scope="session")
def ingest_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IngestProcess]:
    """A running ingest."""
    process = IngestProcess(tmp_path_factory.mktemp("ingest")).start()
    yield process
    assert process.stop() == 0


@pytest.fixture
async def channel(ingest_process: IngestProcess) -> AsyncIterator[grpc.aio.Channel]:
    """A connection to it."""
    async with ingest_process.channel() as opened:
        yield opened


@pytest.fixture
async def project(ingest_process: IngestProcess, channel: grpc.aio.Channel) -> Project:
    """An empty project."""
    return await _make(ingest_process, channel)


@pytest.fixture
async def other_project(ingest_process: IngestProcess, channel: grpc.aio.Channel) -> Project:
    """Another empty project."""
    return await _make(ingest_process, channel)


async def _make(process: IngestProcess, channel: grpc.aio.Channel) -> Project:
    name = f"project-{next(_NUMBERS)}"
    return Project(
        name,
        bearer(await process.key(name, _ROLES)),
        IngestServiceStub(channel),
        CollectionServiceStub(channel),
        DeadLetterServiceStub(channel),
        ProjectServiceStub(channel),
    )
