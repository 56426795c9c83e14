"""Rules as a part of the insights service: opened together, closed together."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc.aio
import httpx

from services.following.feed import Feed
from services.insights.actions.clients import ServiceDelivery
from services.insights.actions.counting import CountedOutbox
from services.insights.actions.delivery import Delivery, ExecutorSettings
from services.insights.actions.executor import Executor
from services.insights.actions.webhooks import TIMEOUT_SECONDS, Webhooks, WebhookSecrets
from services.insights.rules.metrics import RuleMetrics
from services.insights.rules.service import Rules
from services.insights.rules.store import MIGRATIONS, RuleStore
from services.insights.servicer_rules import RuleServicer, rule_service
from services.insights.settings import InsightsSettings
from services.kernel.fold import DAY_US
from services.runtime.blobs import BlobStore
from services.runtime.clocks import Clock
from services.runtime.database import Database
from services.runtime.paging import PageTokens
from services.runtime.server import Service

RULE_MIGRATIONS = MIGRATIONS


@dataclass(frozen=True)
class RulesLinks:
    """What joins rules to the other services."""

    feed: Feed
    """The logs that they are evaluated over."""
    delivery: Delivery | None = None
    """How their actions are done; without it these wait."""


@dataclass(frozen=True)
class RulesApp:
    """Rules at work."""

    rules: Rules
    service: Service
    metrics: RuleMetrics


@asynccontextmanager
async def open_rules(
    settings: InsightsSettings,
    database: Database,
    links: RulesLinks,
    blobs: BlobStore,
    clock: Clock,
    tokens: PageTokens,
    domain: str,
) -> AsyncIterator[RulesApp]:
    """Opens the projects with rules, and works their outbox off. The database has `RULE_MIGRATIONS`."""
    outbox = CountedOutbox(database)
    memory_us = round(settings.memory_days * DAY_US)
    rules = Rules(RuleStore(database), outbox, links.feed, blobs, clock, memory_us)
    servicer = RuleServicer(rules, links.feed, tokens, _secrets(settings))
    async with rules.open():
        counting = asyncio.create_task(outbox.keep_counting(), name="pending actions of rules")
        working: asyncio.Task[None] | None = None
        if links.delivery is not None:
            how = ExecutorSettings(consent_property=settings.consent_property)
            executor = Executor(outbox, links.delivery, rules.limits_of, clock, how)
            working = asyncio.create_task(executor.run(), name="outbox of rules")
        try:
            yield RulesApp(rules, rule_service(servicer, domain), RuleMetrics(rules, outbox))
        finally:
            for task in (counting, working):
                if task is not None:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task


@asynccontextmanager
async def open_delivery(
    settings: InsightsSettings, ingest: grpc.aio.Channel, features: grpc.aio.Channel
) -> AsyncIterator[Delivery]:
    """How actions are done: through these services, and over HTTP."""
    async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, follow_redirects=False) as http:
        webhooks = Webhooks(http, _secrets(settings), allow_private=settings.webhook_private_addresses)
        yield ServiceDelivery(ingest, features, webhooks)


def _secrets(settings: InsightsSettings) -> WebhookSecrets:
    return WebhookSecrets.open(settings.webhook_secret, settings.data_dir)
