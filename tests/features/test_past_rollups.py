"""Roll-ups are the same served, as of now from the archive, and exported; and as of then what was served then."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inkling.features.v1 import profile_history_pb2 as history
from inkling.features.v1 import profile_pb2, segment_service_pb2
from inkling.features.v1 import profile_service_pb2 as profiles
from services.features.settings import FeaturesSettings
from services.kernel.building import EventRow
from services.runtime.clocks import ManualClock
from tests.features.archives import MemoryListings
from tests.features.memory_log import NOW_US, MemoryLog, purchase
from tests.features.serving import DAY_US, Client, serving
from tests.features.test_dataset_service import downloaded, started
from tests.features.test_exports import content, export
from tests.features.test_property_service import MovingClock, declare_rollups, put

ACCOUNT = profile_pb2.Selection(rollups=["*"])


@pytest.fixture
def clock() -> ManualClock:
    """Time passes between a write and the next."""
    return MovingClock(NOW_US)


@pytest.fixture
async def client(served_settings: FeaturesSettings, log: MemoryLog, clock: ManualClock) -> AsyncIterator[Client]:
    """A client of a server that can write properties, and has an archive."""
    listings = MemoryListings(log, served_settings.archive_root)
    async with serving(served_settings, log, clock, listings) as client:
        yield client


async def served(client: Client, account: str, position: int = 0) -> profile_pb2.Profile:
    request = profiles.GetProfileRequest(
        attribute_key="account_id", key_value=account, selection=ACCOUNT, min_position=position
    )
    found: profile_pb2.Profile = await client.profiles.GetProfile(request)
    return found


async def past(client: Client, account: str, *served_then: profile_pb2.Profile) -> list[profile_pb2.Profile]:
    request = history.GetProfileHistoryRequest(
        attribute_key="account_id",
        key_value=account,
        selection=ACCOUNT,
        as_of_times=[each.as_of_time for each in served_then],
        position=served_then[-1].position,
    )
    return list((await client.profiles.GetProfileHistory(request)).profiles)


def plain(message: profile_pb2.AttributeValue) -> Any:
    kind = message.value.WhichOneof("kind")
    return None if kind is None else getattr(message.value, kind)


async def test_rollups_as_of_an_instant_are_those_served_then(
    client: Client, log: MemoryLog, clock: ManualClock
) -> None:
    await declare_rollups(client)
    chance = random.Random(3)
    seen: dict[str, list[profile_pb2.Profile]] = {"a": [], "b": [], "nobody": []}
    for step in range(6):
        clock.set(NOW_US + step * DAY_US)
        users = [f"u{chance.randrange(90)}" for _ in range(60)]
        now_us = NOW_US + step * DAY_US
        await log.append(*(purchase(step * 100 + i, user, now_us - i, i / 8) for i, user in enumerate(users)))
        position = 0
        for user in users:
            await put(client, user, {"seats": chance.randrange(9)})
            if chance.random() < 0.2:
                position = await put(client, user, {}, unset=["account"])
            else:
                position = await put(client, user, {"account": "a" if chance.random() < 0.9 else "b"})
        for account, before in seen.items():
            before.append(await served(client, account, position))
            assert await past(client, account, before[-1]) == [before[-1]]
    for account, before in seen.items():
        found = await past(client, account, *before)
        assert [each.rollups for each in found] == [each.rollups for each in before]
        assert {plain(each) for each in found[-1].rollups} != {None} or account == "nobody"


async def test_an_export_holds_the_rollups_that_are_served(client: Client, log: MemoryLog) -> None:
    await declare_rollups(client)
    position = 0
    for i in range(8):
        await log.append(purchase(i, f"u{i}", NOW_US - DAY_US + i, i / 8))
        position = await put(client, f"u{i}", {"account": "abc"[i % 3], "seats": i})
    await served(client, "a", position)
    made = await export(client, selection=ACCOUNT, attribute_key="account_id", statuses=True)
    rows = pq.read_table(pa.BufferReader(await content(client, made))).to_pylist()
    assert [row["account_id"] for row in rows] == ["a", "b", "c"]
    for row in rows:
        profile = await served(client, row["account_id"])
        assert {each.name: row[each.name] for each in profile.rollups} == {
            each.name: plain(each) for each in profile.rollups
        }
        for each in profile.rollups:
            assert f"VALUE_STATUS_{row[f'{each.name}.status']}" == profile_pb2.ValueStatus.Name(each.status)


async def test_an_export_tells_the_segments_of_each_profile(client: Client, log: MemoryLog) -> None:
    await declare_rollups(client)
    await put(client, "u1", {"seats": 5})
    for name, condition in [("seated", "seats > 1"), ("all", "not seats < 0"), ("none", "seats > 9")]:
        await client.segments.CreateSegment(
            segment_service_pb2.CreateSegmentRequest(
                segment_id=name,
                segment=segment_service_pb2.Segment(attribute_key="user_id", condition=condition),
            )
        )
    position = await put(client, "u2", {"seats": 1})
    read = profiles.GetProfileRequest(
        attribute_key="user_id",
        key_value="u2",
        selection=profile_pb2.Selection(properties=["seats"], segments=True),
        min_position=position,
    )
    async with asyncio.timeout(20):
        while not (await client.profiles.GetProfile(read)).segments:  # noqa: ASYNC110  (published a moment later)
            await asyncio.sleep(0.02)
    made = await export(client, selection=profile_pb2.Selection(segments=True), attribute_key="user_id")
    rows = pq.read_table(pa.BufferReader(await content(client, made))).to_pylist()
    assert rows == [
        {"user_id": "u1", "segments": ["segments/all", "segments/seated"]},
        {"user_id": "u2", "segments": ["segments/all"]},
    ]


async def test_an_explained_rollup_tells_whose_values_it_is_made_of(client: Client, log: MemoryLog) -> None:
    await declare_rollups(client)
    for i in range(5):
        await log.append(purchase(i, f"u{i}", NOW_US - DAY_US + i, i / 8))
        values: dict[str, Any] = {"account": "a" if i else "b"}
        position = await put(client, f"u{i}", values | ({"seats": i} if i % 2 else {}))
    profile = await served(client, "a", position)

    async def explained(value: str, token: str = "", size: int = 50) -> history.ExplainValueResponse:
        request = history.ExplainValueRequest(
            attribute_key="account_id", key_value="a", value=value, page_size=size, page_token=token
        )
        found: history.ExplainValueResponse = await client.profiles.ExplainValue(request)
        return found

    for each in profile.rollups:
        found = await explained(f"rollups.{each.name}")
        assert found.value == each
        assert [member.key_value for member in found.members] == ["u1", "u2", "u3", "u4"]
        assert found.relevant_count == 4
    seats = await explained("rollups.seats", size=3)
    assert [(m.key_value, plain(m.value), m.counted) for m in seats.members] == [
        ("u1", 1.0, True),
        ("u2", None, False),
        ("u3", 3.0, True),
    ]
    assert (seats.relevant_count, seats.counted_count) == (4, 2)
    await put(client, "u1", {"account": "b"})
    rest = await explained("rollups.seats", seats.next_page_token, size=3)
    assert [m.key_value for m in rest.members] == ["u4"]
    assert not rest.next_page_token
    assert (await explained("rollups.users")).counted_count == 3


async def test_a_training_set_has_the_rollups_that_were_served_at_each_moment(
    served_settings: FeaturesSettings, log: MemoryLog, clock: ManualClock, tmp_path: Path
) -> None:
    listings = MemoryListings(log, served_settings.data_dir / "blobs")
    async with started(served_settings, log, clock, listings, fresh=False) as server:
        await declare_rollups(server.stubs)
        for i, account in enumerate("ab"):
            await log.append(
                EventRow(f"a{i}", "open", NOW_US - DAY_US, NOW_US, {"account_id": account}, "shop", "1-0-0")
            )
        seen: dict[tuple[str, int], dict[str, Any]] = {}
        for i in range(6):
            await log.append(purchase(i, f"u{i % 4}", clock.now_us(), i / 8))
            position = await put(server.stubs, f"u{i % 4}", {"account": "ab"[i % 2 if i < 4 else 0], "seats": i})
            for account in "ab":
                profile = await served(server.stubs, account, position)
                instant_us = profile.as_of_time.ToMicroseconds()
                seen[account, instant_us] = {each.name: plain(each) for each in profile.rollups}
        rows, manifest = await downloaded(
            server,
            tmp_path / "out",
            {
                "attribute_key": "account_id",
                "features": {"rollups": ["*"]},
                "moments": {"instants": {"times": [_text(us) for _, us in seen]}},
                "partition_count": 2,
            },
        )
        names = ("most", "seats", "spent", "users")
        found = {
            (row["account_id"], round(row["moment"].timestamp() * 1e6)): {name: row[name] for name in names}
            for row in rows
        }
        assert {key: found[key] for key in seen} == seen
        spent = {"id": "rollups.spent", "column": "spent", "type": "double", "aggregation": "sum"}
        assert spent in manifest["features"]


def _text(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
