"""The composition root: opens everything in one place, serves, and closes it in reverse."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc.aio
from prometheus_client import CollectorRegistry

from inkling.insights.v1 import insight_service_pb2, query_service_pb2
from inkling.insights.v1.insight_service_pb2_grpc import add_InsightServiceServicer_to_server
from inkling.insights.v1.query_service_pb2_grpc import add_QueryServiceServicer_to_server
from services.following.feed import Feed, IngestFeed
from services.insights import servicer_insights, servicer_queries
from services.insights.engine.warming import warm
from services.insights.evaluators import EvaluatorMaker
from services.insights.forgetting import Forgetter
from services.insights.managing import Manager
from services.insights.metrics import InsightMetrics
from services.insights.projects import Projects
from services.insights.rules.service import Rules
from services.insights.rules_app import RULE_MIGRATIONS, RulesLinks, open_delivery, open_rules
from services.insights.servicer_changes import internal_service
from services.insights.servicer_insights import InsightServicer
from services.insights.servicer_queries import QueryServicer
from services.insights.settings import InsightsSettings
from services.insights.sources import IngestSources, OnlyTransactions, SourceReader
from services.insights.store import MIGRATIONS, InsightStore
from services.runtime import journal
from services.runtime.blobs import FolderBlobStore
from services.runtime.channels import open_channel
from services.runtime.clocks import Clock, SystemClock
from services.runtime.database import Database
from services.runtime.paging import PageTokens
from services.runtime.server import Service, serve

DOMAIN = "insights.inkling"


@dataclass(frozen=True)
class App:
    """Everything that is open."""

    services: tuple[Service, ...]
    projects: Projects
    rules: Rules
    registry: CollectorRegistry

    async def wait_ready(self) -> None:
        """Returns once insights and rules have caught up with their logs as they stood at the start."""
        await asyncio.gather(self.projects.wait_ready(), self.rules.wait_ready())


async def main(settings: InsightsSettings) -> None:
    """Serves until told to stop."""
    await asyncio.to_thread(warm)
    key = settings.service_key
    async with (
        open_channel(settings.ingest_target, key=key, ca_file=settings.ingest_ca_file) as channel,
        open_channel(settings.features_target, key=key, ca_file=settings.features_ca_file) as features,
        open_delivery(settings, channel, features) as delivery,
        open_app(
            settings,
            IngestFeed(channel, "insights", settings.ingest_compression),
            SystemClock(),
            IngestSources(channel),
            rules=RulesLinks(IngestFeed(channel, "rules", settings.ingest_compression), delivery),
        ) as app,
    ):
        await serve(settings, app.services, ready=app.wait_ready(), registry=app.registry)


@asynccontextmanager
async def open_app(
    settings: InsightsSettings,
    feed: Feed,
    clock: Clock,
    sources: SourceReader | None = None,
    others: tuple[EvaluatorMaker, ...] = (),
    *,
    rules: RulesLinks | None = None,
) -> AsyncIterator[App]:
    """Opens the database and the projects; what is active is kept true from here on.

    Without `sources` there are only transactions. `others` make what else is evaluated over the same logs; `rules` says
    where these do what they ask for, without it they follow `feed`, and their actions wait.
    """
    async with Database.open(settings.database_url, (journal.MIGRATIONS, MIGRATIONS, RULE_MIGRATIONS)) as database:
        blobs = FolderBlobStore(settings.data_dir / "blobs")
        tokens = PageTokens.open(settings.paging_secret, settings.data_dir)
        changes = journal.ChangeJournal(journal.JournalStore(database), clock)
        projects = Projects(
            InsightStore(database), feed, sources or OnlyTransactions(), blobs, changes, settings, clock, others
        )
        async with (
            projects.open(),
            open_rules(settings, database, rules or RulesLinks(feed), blobs, clock, tokens, DOMAIN) as ruling,
        ):
            registry = CollectorRegistry()
            registry.register(InsightMetrics(projects))
            registry.register(ruling.metrics)
            servicer = InsightServicer(projects, Manager(projects), tokens)
            internal = internal_service(projects, Forgetter(projects, ruling.rules, database), DOMAIN)
            services = (_service(servicer, QueryServicer(projects)), ruling.service, internal)
            yield App(services, projects, ruling.rules, registry)


def _service(insights: InsightServicer, queries: QueryServicer) -> Service:
    def register(server: grpc.aio.Server) -> None:
        add_InsightServiceServicer_to_server(insights, server)
        add_QueryServiceServicer_to_server(queries, server)

    return Service(
        name="insights",
        domain=DOMAIN,
        register=register,
        health_names=(servicer_insights.SERVICE_NAME, servicer_queries.SERVICE_NAME),
        policies={**servicer_insights.POLICIES, **servicer_queries.POLICIES},
        descriptors=(insight_service_pb2.DESCRIPTOR, query_service_pb2.DESCRIPTOR),
        endless_methods=servicer_insights.ENDLESS,
    )
