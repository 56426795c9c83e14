"""The composition root: opens everything in one place, serves, and closes it in reverse."""

import asyncio
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Awaitable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc.aio
from prometheus_client import CollectorRegistry

from inkling.ingest.v1 import (
    archive_service_pb2,
    collection_service_pb2,
    dead_letter_service_pb2,
    ingest_service_pb2,
    project_service_pb2,
    subject_service_pb2,
)
from inkling.ingest.v1.archive_service_pb2_grpc import add_ArchiveServiceServicer_to_server
from inkling.ingest.v1.collection_service_pb2_grpc import add_CollectionServiceServicer_to_server
from inkling.ingest.v1.dead_letter_service_pb2_grpc import add_DeadLetterServiceServicer_to_server
from inkling.ingest.v1.project_service_pb2_grpc import add_ProjectServiceServicer_to_server
from inkling.ingest.v1.subject_service_pb2_grpc import add_SubjectServiceServicer_to_server
from services.ingest import (
    archive,
    servicer_archive,
    servicer_collections,
    servicer_dead_letters,
    servicer_ingest,
    servicer_projects,
    servicer_subjects,
)
from services.ingest.appender import Appender, Limits
from services.ingest.archive import Archive, ArchivePolicy
from services.ingest.archive.erasing import ArchiveEraser
from services.ingest.archive.index import ArchiveIndex
from services.ingest.collections import Collections
from services.ingest.dead_letters import DeadLetters
from services.ingest.decode import Decoder
from services.ingest.erasure import Eraser
from services.ingest.insights_client import InsightChanges
from services.ingest.log import EventLog, open_log
from services.ingest.metrics import IngestMetrics
from services.ingest.projects import Projects
from services.ingest.replay import Replayer
from services.ingest.retention import Retention, RetentionPolicy, Trimmable
from services.ingest.servicer_archive import ArchiveServicer
from services.ingest.servicer_collections import CollectionServicer
from services.ingest.servicer_dead_letters import DeadLetterServicer
from services.ingest.servicer_ingest import IngestServicer
from services.ingest.servicer_projects import ProjectServicer
from services.ingest.servicer_subjects import ErasureOperations, SubjectServicer
from services.ingest.settings import IngestSettings
from services.ingest.store import MIGRATIONS, CollectionStore, DeadLetterStore, ProjectStore
from services.ingest.subscriptions import Subscriptions
from services.ingest.warming import warm
from services.runtime import erasures, operations
from services.runtime.blobs import FolderBlobStore
from services.runtime.channels import open_channel
from services.runtime.clocks import Clock, SystemClock
from services.runtime.database import Database
from services.runtime.erasures import ErasureStore
from services.runtime.operations import OperationRunner
from services.runtime.operations_service import operations_service
from services.runtime.paging import PageTokens
from services.runtime.server import Service, serve

DOMAIN = "ingest.inkling"
_THREADS = 2
# Large batches are prepared in threads: hand the interpreter back to the event loop sooner than the default of 5 ms.
_SWITCH_SECONDS = 0.0005


@dataclass(frozen=True)
class App:
    """Everything that is open."""

    services: tuple[Service, ...]
    ready: Awaitable[None]
    """Done when the first request will be answered as fast as the others."""
    registry: CollectorRegistry


async def main(settings: IngestSettings) -> None:
    """Serves until told to stop."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    async with open_app(settings, SystemClock()) as app:
        await serve(settings, app.services, ready=app.ready, registry=app.registry)


@asynccontextmanager
async def open_app(settings: IngestSettings, clock: Clock) -> AsyncIterator[App]:
    """Opens the database and the log, and keeps the archive and the retention going."""
    async with AsyncExitStack() as stack:
        executor = stack.enter_context(ThreadPoolExecutor(_THREADS, "ingest"))
        packages = (operations.MIGRATIONS, erasures.MIGRATIONS, MIGRATIONS, archive.MIGRATIONS)
        database = await stack.enter_async_context(Database.open(settings.database_url, packages))
        log = await stack.enter_async_context(open_log(settings.log_url, tail_bytes=settings.log_tail_bytes))
        registry = CollectorRegistry()
        metrics = IngestMetrics(registry)
        projects = Projects(ProjectStore(database), log, clock)
        collections = Collections(CollectionStore(database), clock)
        dead_letters = DeadLetters(DeadLetterStore(database), clock)
        limits = Limits(
            waiting_bytes=settings.waiting_bytes, waiting_bytes_of_project=max(settings.waiting_bytes // 2, 1)
        )
        decoder = Decoder(secrets.randbits(64))
        appender = Appender(log, decoder, projects, collections, dead_letters, metrics, clock, executor, limits)
        stack.push_async_callback(appender.close)
        archived = await stack.enter_async_context(
            _keeping_house(settings, database, log, projects, dead_letters, clock)
        )
        archive_eraser = ArchiveEraser(ArchiveIndex(database), FolderBlobStore(settings.data_dir / "blobs"), archived)
        eraser = Eraser(log, archive_eraser, dead_letters, projects, ErasureStore(database), clock)
        erasing = ErasureOperations(eraser)
        runner = await stack.enter_async_context(
            OperationRunner.open(
                database,
                owner=f"ingest@{socket.gethostname()}",
                domain=DOMAIN,
                resumers={servicer_subjects.KIND: erasing.resume},
                clock=clock,
            )
        )
        tokens = PageTokens.open(settings.paging_secret, settings.data_dir)
        subscriptions = Subscriptions(log, projects, executor, settings.idle_seconds)
        insights: InsightChanges | None = None
        if settings.insights_target:
            target, key, ca_file = settings.insights_target, settings.service_key, settings.insights_ca_file
            insights = InsightChanges(await stack.enter_async_context(open_channel(target, key=key, ca_file=ca_file)))
        ingest = IngestServicer(
            appender, collections, dead_letters, subscriptions, metrics, executor, settings.stream_window, insights
        )
        service = _service(
            ingest,
            ArchiveServicer(archived, projects, tokens),
            CollectionServicer(collections, tokens),
            DeadLetterServicer(dead_letters, Replayer(appender, dead_letters), tokens),
            ProjectServicer(projects),
            SubjectServicer(erasing, runner),
        )
        ready = asyncio.get_running_loop().run_in_executor(executor, warm, decoder)
        yield App((service, operations_service(runner, tokens, servicer_subjects.ROLES)), ready, registry)


@asynccontextmanager
async def _keeping_house(
    settings: IngestSettings,
    database: Database,
    log: EventLog,
    projects: Projects,
    dead_letters: DeadLetters,
    clock: Clock,
) -> AsyncIterator[Archive | None]:
    """Runs the archive and the retention beside the block; gives the archive, if there is one."""

    async def horizon_us(project: str) -> int:
        return (await projects.get(project)).horizon_us

    async def policy(project: str) -> RetentionPolicy:
        return (await projects.get(project)).retention_policy

    async def every_project() -> set[str]:
        return {*await log.projects(), *await dead_letters.projects()}

    archiving = ArchivePolicy(settings.archive_flush_bytes, settings.archive_flush_seconds)
    blobs = FolderBlobStore(settings.data_dir / "blobs")
    archived = Archive(log, blobs, database, horizon_us, archiving)
    retention = Retention(
        log,
        archived if settings.archive else _NoArchive(),
        projects=every_project,
        policy=policy,
        expire_dead_letters=dead_letters.delete_before,
        clock=clock,
        every_seconds=settings.retention_seconds,
    )
    tasks = [asyncio.create_task(retention.run(), name="retention")]
    if settings.archive:
        tasks.append(asyncio.create_task(archived.run(), name="archive"))
    try:
        yield archived if settings.archive else None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _NoArchive(Trimmable):
    """In place of the archive where there is none."""

    async def settle(self, project: str) -> int:
        return 0

    async def trim(self, project: str, before_occurred_us: int) -> int:
        return 0


def _service(
    ingest: IngestServicer,
    archived: ArchiveServicer,
    collections: CollectionServicer,
    dead_letters: DeadLetterServicer,
    projects: ProjectServicer,
    subjects: SubjectServicer,
) -> Service:
    def register(server: grpc.aio.Server) -> None:
        ingest.register(server)
        add_ArchiveServiceServicer_to_server(archived, server)
        add_CollectionServiceServicer_to_server(collections, server)
        add_DeadLetterServiceServicer_to_server(dead_letters, server)
        add_ProjectServiceServicer_to_server(projects, server)
        add_SubjectServiceServicer_to_server(subjects, server)

    modules = (
        servicer_ingest,
        servicer_archive,
        servicer_collections,
        servicer_dead_letters,
        servicer_projects,
        servicer_subjects,
    )
    return Service(
        name="ingest",
        domain=DOMAIN,
        register=register,
        health_names=tuple(module.SERVICE_NAME for module in modules),
        policies={method: roles for module in modules for method, roles in module.POLICIES.items()},
        descriptors=(
            ingest_service_pb2.DESCRIPTOR,
            archive_service_pb2.DESCRIPTOR,
            collection_service_pb2.DESCRIPTOR,
            dead_letter_service_pb2.DESCRIPTOR,
            project_service_pb2.DESCRIPTOR,
            subject_service_pb2.DESCRIPTOR,
        ),
        endless_methods=frozenset({servicer_ingest.SUBSCRIBE}),
    )
