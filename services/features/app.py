"""The composition root: opens everything in one place, serves, and closes it in reverse."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc.aio
from prometheus_client import CollectorRegistry

from inkling.features.v1 import definition_service_pb2, profile_service_pb2
from inkling.features.v1.definition_service_pb2_grpc import add_DefinitionServiceServicer_to_server
from services.features import (
    servicer_definitions,
    servicer_exports,
    servicer_history,
    servicer_profiles,
    servicer_subjects,
)
from services.features.archive import Listings, NoArchive
from services.features.archive_index import ArchiveIndex
from services.features.datasets import creating as datasets
from services.features.datasets.forgetting import DatasetForgetter
from services.features.datasets.store import MIGRATIONS as DATASET_MIGRATIONS
from services.features.datasets.store import DatasetStore
from services.features.erasure import (
    Elsewhere,
    FeaturesEraser,
    Forgets,
    InsightErasures,
    LogErasures,
    NoLogErasures,
)
from services.features.erasure.ingest_client import IngestErasures
from services.features.exports import Exports
from services.features.importing import Importer
from services.features.insights_client import InsightsClient
from services.features.metrics import ParityMetrics, ProjectMetrics, SegmentMetrics
from services.features.parity import ParityChecker, ParitySampler
from services.features.past import PastReader
from services.features.plan_answer import PlanAnswerer
from services.features.projects import Projects
from services.features.property_sink import EventSink, IngestSink, NoSink
from services.features.property_writer import PropertyWriter
from services.features.publishing import KIND, Publisher
from services.features.segments.service import Segments
from services.features.segments.store import MIGRATIONS as SEGMENT_MIGRATIONS
from services.features.segments.store import SegmentStore
from services.features.servicer_datasets import DatasetServicer, dataset_service
from services.features.servicer_definitions import OPERATION_ROLES, DefinitionServicer
from services.features.servicer_exports import Exporter, ExportServicer
from services.features.servicer_history import HistoryServicer
from services.features.servicer_profiles import ProfileServicer
from services.features.servicer_properties import PropertyServicer, property_service
from services.features.servicer_rollups import RollupServicer
from services.features.servicer_segments import SegmentServicer, segment_service
from services.features.servicer_subjects import ErasureResumer, SubjectServicer, subject_service
from services.features.settings import FeaturesSettings
from services.features.store import MIGRATIONS, DefinitionStore
from services.following.feed import Feed, IngestFeed
from services.kernel.warming import warm
from services.runtime import erasures, journal, operations
from services.runtime.blobs import FolderBlobStore
from services.runtime.channels import open_channel
from services.runtime.clocks import Clock, SystemClock
from services.runtime.database import Database
from services.runtime.erasures import ErasureStore
from services.runtime.operations import OperationRunner
from services.runtime.operations_service import operations_service
from services.runtime.paging import PageTokens
from services.runtime.ray_session import RayOptions, RaySession
from services.runtime.server import Service, serve

DOMAIN = "features.inkling"
# Backfills run in a thread beside the event loop: hand the interpreter over sooner than the default of 5 ms.
_SWITCH_SECONDS = 0.0005


@dataclass(frozen=True)
class App:
    """Everything that is open."""

    services: tuple[Service, ...]
    projects: Projects
    registry: CollectorRegistry


async def main(settings: FeaturesSettings) -> None:
    """Serves until told to stop."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    await asyncio.to_thread(warm)
    async with (
        open_channel(settings.ingest_target, key=settings.service_key, ca_file=settings.ingest_ca_file) as channel,
        AsyncExitStack() as stack,
        open_app(
            settings,
            IngestFeed(channel, "features", settings.ingest_compression),
            SystemClock(),
            ArchiveIndex(channel),
            IngestSink(channel),
            IngestErasures(channel),
            await _insight_erasures(settings, stack),
        ) as app,
    ):
        await serve(settings, app.services, ready=app.projects.wait_ready(), registry=app.registry)


async def _insight_erasures(settings: FeaturesSettings, stack: AsyncExitStack) -> Elsewhere | None:
    if not settings.insights_target:
        return None
    target, key, ca_file = settings.insights_target, settings.service_key, settings.insights_ca_file
    return InsightErasures(await stack.enter_async_context(open_channel(target, key=key, ca_file=ca_file)))


@asynccontextmanager
async def open_app(
    settings: FeaturesSettings,
    feed: Feed,
    clock: Clock,
    listings: Listings | None = None,
    sink: EventSink | None = None,
    log_erasures: LogErasures | None = None,
    insight_erasures: Elsewhere | None = None,
) -> AsyncIterator[App]:
    """Opens the database and the projects; what is published is followed from here on. Without `listings` there is no
    archive to look back into, without a `sink` no log to write properties to,
    without `log_erasures` none to erase from, without `insight_erasures` nothing is erased from insights.
    """
    owner = f"features@{socket.gethostname()}"
    async with (
        Database.open(
            settings.database_url,
            (
                operations.MIGRATIONS,
                erasures.MIGRATIONS,
                journal.MIGRATIONS,
                MIGRATIONS,
                DATASET_MIGRATIONS,
                SEGMENT_MIGRATIONS,
            ),
        ) as database,
        RaySession.open(RayOptions(settings.ray_address, settings.ray_cpus)) as ray,
    ):
        blobs = FolderBlobStore(settings.data_dir / "blobs")
        tokens = PageTokens.open(settings.paging_secret, settings.data_dir)
        projects = Projects(DefinitionStore(database), feed, blobs, settings, clock)
        changes = journal.ChangeJournal(journal.JournalStore(database), clock)
        segments = Segments(projects, SegmentStore(database), changes, blobs, settings, clock)
        publisher = Publisher(projects, clock)
        dataset_store = DatasetStore(database)
        creator = datasets.DatasetCreator(
            datasets.Surroundings(
                projects=projects,
                store=dataset_store,
                blobs=blobs,
                archive_root=settings.archive_root,
                listings=listings or NoArchive(),
                feed=feed,
                settings=settings,
                clock=clock,
                ray=ray,
                segments=segments,
                insights=InsightsClient.of(settings),
            )
        )
        past = PastReader(listings or NoArchive(), settings.archive_root)
        exports = Exports(projects, blobs, clock, settings.data_dir / "scratch", segments.members, segments.rosters)
        exporter = Exporter(exports, clock)
        sampler = ParitySampler(settings.parity_sample, settings.parity_queue)
        # What else holds key values and can forget one: see `erasure.Forgets`.
        forgets: tuple[Forgets, ...] = (segments, DatasetForgetter(dataset_store, blobs, clock), sampler)
        eraser = FeaturesEraser(
            projects,
            log_erasures or NoLogErasures(),
            forgets,
            blobs,
            ErasureStore(database),
            clock,
            insight_erasures,
        )
        resumers = {
            KIND: publisher.resume,
            servicer_exports.KIND: exporter.resume,
            servicer_subjects.KIND: ErasureResumer(eraser).resume,
            datasets.KIND: creator.resume,
        }
        # The projects close first: so that publications that end then are known to be interrupted, not cancelled.
        async with (
            OperationRunner.open(database, owner=owner, domain=DOMAIN, resumers=resumers, clock=clock) as runner,
            projects.open(),
            ParityChecker(sampler, projects, past, settings.parity_seconds).running(),
            segments.open(),
        ):
            planner = PlanAnswerer(projects, settings, clock)
            definitions = DefinitionServicer(projects, publisher, runner, Importer(), planner, tokens)
            profiles = ProfileServicer(projects, tokens, clock, sampler, segments)
            registry = CollectorRegistry()
            registry.register(ProjectMetrics(projects, clock))
            registry.register(ParityMetrics(sampler))
            registry.register(SegmentMetrics(segments))
            training = DatasetServicer(creator, dataset_store, blobs, runner, tokens, settings.dataset_upload_bytes)
            history = HistoryServicer(projects, past, tokens)
            exporting = ExportServicer(exporter, exports, runner, tokens)
            services = (
                _service(definitions, profiles, history, exporting),
                dataset_service(training, DOMAIN),
                property_service(
                    PropertyServicer(projects, PropertyWriter(projects, sink or NoSink(), clock), tokens),
                    RollupServicer(projects, tokens),
                    DOMAIN,
                ),
                segment_service(SegmentServicer(segments, tokens), DOMAIN),
                subject_service(SubjectServicer(eraser, runner), DOMAIN),
                operations_service(runner, tokens, OPERATION_ROLES | servicer_subjects.ROLES),
            )
            yield App(services, projects, registry)


def _service(
    definitions: DefinitionServicer, profiles: ProfileServicer, history: HistoryServicer, exporting: ExportServicer
) -> Service:
    def register(server: grpc.aio.Server) -> None:
        add_DefinitionServiceServicer_to_server(definitions, server)
        profiles.register(server)
        history.register(server)
        exporting.register(server)

    return Service(
        name="features",
        domain=DOMAIN,
        register=register,
        health_names=(servicer_definitions.SERVICE_NAME, servicer_profiles.SERVICE_NAME),
        policies={
            **servicer_definitions.POLICIES,
            **servicer_profiles.POLICIES,
            **servicer_history.POLICIES,
            **servicer_exports.POLICIES,
        },
        descriptors=(definition_service_pb2.DESCRIPTOR, profile_service_pb2.DESCRIPTOR),
        endless_methods=frozenset({f"/{servicer_profiles.SERVICE_NAME}/WatchProfiles"}),
    )
