"""The composition root: opens everything in one place, serves, and closes it in reverse."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc.aio
from prometheus_client import CollectorRegistry

from inkling.features.v1 import definition_service_pb2, profile_service_pb2
from inkling.features.v1.definition_service_pb2_grpc import add_DefinitionServiceServicer_to_server
from services.features import servicer_definitions, servicer_profiles
from services.features.importing import Importer
from services.features.metrics import ProjectMetrics
from services.features.plan_answer import PlanAnswerer
from services.features.projects import Projects
from services.features.publishing import KIND, Publisher
from services.features.servicer_definitions import OPERATION_ROLES, DefinitionServicer
from services.features.servicer_profiles import ProfileServicer
from services.features.settings import FeaturesSettings
from services.features.store import MIGRATIONS, DefinitionStore
from services.following.feed import Feed, IngestFeed
from services.kernel.warming import warm
from services.runtime import operations
from services.runtime.blobs import FolderBlobStore
from services.runtime.channels import open_channel
from services.runtime.clocks import Clock, SystemClock
from services.runtime.database import Database
from services.runtime.operations import OperationRunner
from services.runtime.operations_service import operations_service
from services.runtime.paging import PageTokens
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
        open_app(settings, IngestFeed(channel, "features", settings.ingest_compression), SystemClock()) as app,
    ):
        await serve(settings, app.services, ready=app.projects.wait_ready(), registry=app.registry)


@asynccontextmanager
async def open_app(settings: FeaturesSettings, feed: Feed, clock: Clock) -> AsyncIterator[App]:
    """Opens the database and the projects; what is published is followed from here on."""
    owner = f"features@{socket.gethostname()}"
    async with Database.open(settings.database_url, (operations.MIGRATIONS, MIGRATIONS)) as database:
        blobs = FolderBlobStore(settings.data_dir / "blobs")
        tokens = PageTokens.open(settings.paging_secret, settings.data_dir)
        projects = Projects(DefinitionStore(database), feed, blobs, settings, clock)
        publisher = Publisher(projects, clock)
        resumers = {KIND: publisher.resume}
        # The projects close first: so that publications that end then are known to be interrupted, not cancelled.
        async with (
            OperationRunner.open(database, owner=owner, domain=DOMAIN, resumers=resumers, clock=clock) as runner,
            projects.open(),
        ):
            planner = PlanAnswerer(projects, settings, clock)
            definitions = DefinitionServicer(projects, publisher, runner, Importer(), planner, tokens)
            profiles = ProfileServicer(projects, tokens, clock)
            registry = CollectorRegistry()
            registry.register(ProjectMetrics(projects, clock))
            services = (_service(definitions, profiles), operations_service(runner, tokens, OPERATION_ROLES))
            yield App(services, projects, registry)


def _service(definitions: DefinitionServicer, profiles: ProfileServicer) -> Service:
    def register(server: grpc.aio.Server) -> None:
        add_DefinitionServiceServicer_to_server(definitions, server)
        profiles.register(server)

    return Service(
        name="features",
        domain=DOMAIN,
        register=register,
        health_names=(servicer_definitions.SERVICE_NAME, servicer_profiles.SERVICE_NAME),
        policies={**servicer_definitions.POLICIES, **servicer_profiles.POLICIES},
        descriptors=(definition_service_pb2.DESCRIPTOR, profile_service_pb2.DESCRIPTOR),
        endless_methods=frozenset({f"/{servicer_profiles.SERVICE_NAME}/WatchProfiles"}),
    )
