"""What is served is recomputed from the archive: no difference is found, unless there is one."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest
from prometheus_client import CollectorRegistry

from inkling.features.v1 import attribute_group_pb2 as groups_pb2
from inkling.features.v1 import definition_service_pb2 as definitions
from inkling.features.v1 import profile_pb2
from inkling.features.v1 import profile_service_pb2 as profiles
from services.features.app import open_app
from services.features.archive import ArchiveListing
from services.features.parity import Counts, ParitySampler, Served
from services.features.projection import Projection, Slot
from services.features.selections import Selection
from services.features.settings import FeaturesSettings
from services.kernel.aggregations import Aggregation, Function
from services.kernel.columns import DELETE, REPLACE
from services.kernel.erasing import MARKER_NAME, VERSION, subject_hash
from services.kernel.windows import Lifetime
from services.runtime.clocks import ManualClock
from services.runtime.server import Server
from tests.features.archives import MemoryListings
from tests.features.memory_log import NOW_US, MemoryLog, purchase
from tests.features.serving import DAY_US, GROUP, Client
from tests.features.test_history import ATTRIBUTES, EVENTS

SELECTION = profile_pb2.Selection(attribute_groups=[GROUP])


def test_every_profile_is_chosen_or_none_or_so_many_on_average() -> None:
    assert list(ParitySampler(1.0, 10).chosen(3)) == [0, 1, 2]
    assert list(ParitySampler(0.0, 10).chosen(10_000)) == []
    sampler = ParitySampler(0.01, 10, random.Random(7))
    sizes = [1, 10, 1000, 3] * 250
    chosen = [(i, place) for i, size in enumerate(sizes) for place in sampler.chosen(size)]
    assert all(0 <= place < sizes[i] for i, place in chosen)
    assert 2_300 < len(chosen) < 2_800


def test_what_has_no_room_is_left_out_and_counted() -> None:
    sampler = ParitySampler(1.0, 2)
    for i in range(5):
        sampler.offer(Served("shop", Selection(), "user_id", 1, f"u{i}", b""))
    assert [each.key_value for each in sampler.take()] == ["u0", "u1"]
    assert sampler.counts["shop"] == Counts(dropped=3)
    assert sampler.take() == []


class Shop(Client):
    """A client of a server that proves all it serves."""

    def __init__(self, channel: grpc.aio.Channel, registry: CollectorRegistry) -> None:
        super().__init__(channel)
        self._registry = registry

    def count(self, name: str) -> float:
        """A metric of parity."""
        labels = {"project": "default"}
        return self._registry.get_sample_value(f"inkling_features_parity_{name}_total", labels) or 0.0

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until the metrics say so."""
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 (the metrics tell nobody when they change)
                await asyncio.sleep(0.01)

    async def counted(self, name: str, least: int) -> None:
        """Waits until a metric has come so far."""
        await self.until(lambda: self.count(name) >= least)

    async def read(self, *users: str, position: int = 0) -> list[profile_pb2.Profile]:
        """Profiles, in one batch or alone."""
        if len(users) == 1:
            request = profiles.GetProfileRequest(key_value=users[0], selection=SELECTION, min_position=position)
            return [await self.profiles.GetProfile(request)]
        batch = profiles.BatchGetProfilesRequest(key_values=users, selection=SELECTION, min_position=position)
        return list((await self.profiles.BatchGetProfiles(batch)).profiles)


class HeldBack(MemoryListings):
    """An archive that is not there while it is held back."""

    def __init__(self, log: MemoryLog, root: Path) -> None:
        super().__init__(log, root)
        self.there = asyncio.Event()
        self.there.set()

    async def listing(self, project: str, *, settle: bool = True) -> ArchiveListing:
        """See Listings."""
        await self.there.wait()
        return await super().listing(project, settle=settle)


@pytest.fixture
def listings(served_settings: FeaturesSettings, log: MemoryLog) -> HeldBack:
    """The archive of the log."""
    return HeldBack(log, served_settings.archive_root)


@pytest.fixture
async def shop(
    served_settings: FeaturesSettings, log: MemoryLog, clock: ManualClock, listings: HeldBack
) -> AsyncIterator[Shop]:
    """A published group, over an archive."""
    await log.append(*EVENTS)
    settings = FeaturesSettings(**{**dict(served_settings), "parity_sample": 1.0, "parity_seconds": 0.02})
    async with (
        open_app(settings, log, clock, listings) as app,
        Server.open(settings, app.services, registry=app.registry) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        await app.projects.wait_ready()
        client = Shop(channel, app.registry)
        group = groups_pb2.AttributeGroup(attribute_key="user_id", attributes=ATTRIBUTES)
        request = definitions.CreateAttributeGroupRequest(group_id="shopping", attribute_group=group)
        await client.definitions.CreateAttributeGroup(request)
        await client.publish(GROUP)
        yield client


async def test_nothing_differs_while_events_come_late_and_are_corrected(
    shop: Shop, log: MemoryLog, clock: ManualClock
) -> None:
    """What comes after a profile was served does not count against it."""
    chance = random.Random(5)
    served = 0
    for i in range(40):
        if i % 10 == 9:
            event = replace(chance.choice(log.rows), operation=chance.choice([REPLACE, DELETE]), revision=i)
            event = replace(event, properties={} if event.operation == DELETE else {"price": float(i)})
        else:
            late_us = chance.choice([0, DAY_US, 8 * DAY_US])
            event = purchase(100 + i, f"u{chance.randrange(3)}", clock.now_us() - late_us, chance.random())
        position = await log.append(event)
        clock.advance(DAY_US // 7)
        served += len(await shop.read("u1", position=position))
        served += len(await shop.read("u0", "u1", "nobody"))
    await shop.counted("checked", served * len(ATTRIBUTES))
    assert shop.count("mismatches") == 0
    assert shop.count("dropped") == 0


async def test_a_definition_that_is_broken_is_noticed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await shop.read("u1")
    await shop.counted("checked", len(ATTRIBUTES))
    assert shop.count("mismatches") == 0

    correct = Projection.slot

    def broken(self: Projection, attribute_key: str, aggregation: Aggregation) -> Slot | None:
        """As where a definition is compiled to another one than it says: the ttl's counter in place of the week's."""
        if aggregation.function is Function.COUNTER and aggregation.ttl_us is None:
            aggregation = replace(aggregation, window=Lifetime(), ttl_us=3 * DAY_US)
        return correct(self, attribute_key, aggregation)

    monkeypatch.setattr(Projection, "slot", broken)
    selection = profile_pb2.Selection(attributes=["shopping:buys", "shopping:spent"])
    profile = await shop.profiles.GetProfile(profiles.GetProfileRequest(key_value="u1", selection=selection))
    assert profile.values[0].value.int_value == 1
    caplog.set_level(logging.ERROR)
    await shop.counted("mismatches", 1)
    assert shop.count("mismatches") == 1
    (record,) = [each for each in caplog.records if each.name == "services.features.parity"]
    fields = record.__dict__["fields"]
    assert (fields["project"], fields["value"]) == ("default", "buys")
    assert fields["served_status"] == fields["recomputed_status"] == "PRESENT"
    assert "u1" not in str(fields)


async def test_what_waits_while_definitions_change_is_left_out(shop: Shop) -> None:
    await shop.read("u1")
    await shop.definitions.CreateAttributeGroup(
        definitions.CreateAttributeGroupRequest(
            group_id="shopping",
            attribute_group=groups_pb2.AttributeGroup(attribute_key="user_id", attributes=ATTRIBUTES),
        )
    )
    await shop.until(lambda: shop.count("checked") + shop.count("dropped") * len(ATTRIBUTES) >= len(ATTRIBUTES))
    assert shop.count("mismatches") == 0


async def test_who_was_erased_since_is_left_out(shop: Shop, log: MemoryLog, listings: HeldBack) -> None:
    await shop.read("u1")
    await shop.counted("checked", len(ATTRIBUTES))
    listings.there.clear()
    await shop.read("u1")
    await shop.read("u2")
    # As ingest does it: the records are emptied where they stand, and a marker says so.
    log.rows[:] = [replace(row, keys={}) if row.keys == {"user_id": "u1"} else row for row in log.rows]
    marker = replace(purchase(90, "u1", NOW_US - 1), vendor="inkling", name=MARKER_NAME, version=VERSION, keys={})
    subject = {"attribute_key": "user_id", "subject": subject_hash("default", "user_id", "u1")}
    await log.append(replace(marker, properties={}, data=subject))
    listings.there.set()
    await shop.counted("checked", 2 * len(ATTRIBUTES))
    await shop.until(lambda: shop.count("dropped") == 1)
    assert shop.count("mismatches") == 0
