"""The composition root: opens everything in one place, serves, and closes it in reverse."""

import socket
import sys
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry

from inkling.features.v1 import definition_service_pb2, profile_service_pb2
from inkling.features.v1.definition_service_pb2_grpc import add_DefinitionServiceServicer_to_server
from services.features import servicer_definitions, servicer_profiles
from services.features.feed import IngestFeed
from services.features.importing import Importer
from services.features.metrics import ProjectMetrics
from services.features.plan_answer import PlanAnswerer
from services.features.projects import Projects
from services.features.publishing import KIND, Publisher
from services.features.servicer_definitions import OPERATION_ROLES, DefinitionServicer
from services.features.servicer_profiles import ProfileServicer
from services.features.settings import FeaturesSettings
from services.features.store import MIGRATIONS, DefinitionStore
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


async def main(settings: FeaturesSettings, clock: Clock | None = None) -> None:
    """Serves until told to stop."""
    clock = clock or SystemClock()
    sys.setswitchinterval(_SWITCH_SECONDS)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(
            Database.open(settings.database_url, (operations.MIGRATIONS, MIGRATIONS))
        )
        channel = await stack.enter_async_context(
            open_channel(settings.ingest_target, key=settings.service_key, ca_file=settings.ingest_ca_file)
        )
        blobs = FolderBlobStore(settings.data_dir / "blobs")
        tokens = PageTokens.open(settings.paging_secret, settings.data_dir)
        projects = Projects(DefinitionStore(database), IngestFeed(channel), blobs, settings, clock)
        publisher = Publisher(projects, clock)
        runner = await stack.enter_async_context(
            OperationRunner.open(
                database,
                owner=f"features@{socket.gethostname()}",
                domain=DOMAIN,
                resumers={KIND: publisher.resume},
                clock=clock,
            )
        )
        await stack.enter_async_context(projects.open())
        definitions = DefinitionServicer(
            projects, publisher, runner, Importer(), PlanAnswerer(projects, settings, clock), tokens
        )
        registry = CollectorRegistry()
        registry.register(ProjectMetrics(projects, clock))
        service = _service(definitions, ProfileServicer(projects, tokens, clock))
        await serve(
            settings,
            [service, operations_service(runner, tokens, OPERATION_ROLES)],
            ready=projects.wait_ready(),
            registry=registry,
        )


def _service(definitions: DefinitionServicer, profiles: ProfileServicer) -> Service:
    def register(server: object) -> None:
        add_DefinitionServiceServicer_to_server(definitions, server)  # type: ignore[arg-type]
        profiles.register(server)  # type: ignore[arg-type]

    return Service(
        name="features",
        domain=DOMAIN,
        register=register,
        health_names=(servicer_definitions.SERVICE_NAME, servicer_profiles.SERVICE_NAME),
        policies={**servicer_definitions.POLICIES, **servicer_profiles.POLICIES},
        descriptors=(definition_service_pb2.DESCRIPTOR, profile_service_pb2.DESCRIPTOR),
        endless_methods=frozenset({f"/{servicer_profiles.SERVICE_NAME}/WatchProfiles"}),
    )
