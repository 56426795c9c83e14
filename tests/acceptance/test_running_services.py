"""The document's attributes through the running services are worth what a direct computation in SQL is worth.

The project's clock is the log: after each part of the file the instant is just after the newest event imported.
"""

import csv
import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from inkling.client import AsyncClient
from inkling.client.profiles import Profile, Status
from tests.running import client_of, running_suite

from .direct_sql import profiles
from .shared import EVENTS, GROUP, SERVICE, instant, needs_shared

pytestmark = needs_shared

STOPS = tuple(
    map(instant, ("2025-04-08T09:00:00", "2025-04-23T12:00:00", "2025-05-02T00:00:00", "2025-12-31T00:00:00"))
)
SERVICE_NAME = json.loads(SERVICE.read_text())["name"] if SERVICE.exists() else ""


@dataclass(frozen=True)
class Part:
    """Some lines of the file as a file of their own, and the instant just after the newest event up to there."""

    path: Path
    t: datetime


def cut(events: Path, folder: Path) -> list[Part]:
    """Cuts the file, in its own order, into the parts that happened up to each stop; the columns in lower case."""
    with gzip.open(events, "rt", newline="") if events.suffix == ".gz" else events.open(newline="") as file:
        rows = list(csv.DictReader(file))
    parts: list[Part] = []
    done = datetime.min
    for number, stop in enumerate(STOPS):
        mine = [row for row in rows if done < datetime.fromisoformat(row["DERIVED_TSTAMP"]) <= stop]
        newest = max(datetime.fromisoformat(row["DERIVED_TSTAMP"]) for row in mine)
        path = folder / f"part{number}.csv"
        write(path, mine)
        parts.append(Part(path, newest + timedelta(microseconds=1)))
        done = stop
    return parts


def write(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """Writes lines, with the names that the definitions use."""
    lowered = [{name.lower(): value for name, value in row.items()} for row in rows]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lowered[0]))
        writer.writeheader()
        writer.writerows(lowered)


async def load(client: AsyncClient, part: Part) -> int:
    """Imports a part; gives its position."""
    progress = await client.events.import_csv(
        part.path,
        occurred_at_column="derived_tstamp",
        key_columns={"domain_userid": "domain_userid"},
        event_id_column="event_id",
        event_vendor_column="event_vendor",
        event_name_column="event_name",
        event_version_column="event_version",
    )
    assert progress.rejected == 0, progress.errors[:3]
    return progress.position


def as_row(profile: Profile) -> dict[str, Any]:
    """A profile as the direct computation gives it."""
    return {profile.attribute_key: profile.key_value, **profile.values}


async def publish(client: AsyncClient) -> None:
    """Publishes the document's group, from the document's JSON, and its service."""
    await client.definitions.apply(GROUP.read_text(), publish=True)
    await client.definitions.apply(SERVICE.read_text())


@pytest.mark.parametrize("published_before", [0, 2], ids=["published first", "published in the middle"])
async def test_profiles_read_by_service_equal_those_computed_in_sql(
    enriched_events: Path, tmp_path: Path, published_before: int
) -> None:
    parts = cut(enriched_events, tmp_path)
    keys = [row["domain_userid"] for row in profiles(GROUP, enriched_events, STOPS[-1])]
    async with running_suite(tmp_path / "data") as suite, client_of(suite, "acceptance") as client:
        await client.project.set(clock="log")
        for number, part in enumerate(parts):
            if number == published_before:
                await publish(client)
            position = await load(client, part)
            if number < published_before:
                continue
            expected = profiles(GROUP, enriched_events, part.t)
            found = await client.profiles.batch_get(keys, service=SERVICE_NAME, min_position=position)
            seen = {row["domain_userid"] for row in expected}
            assert [as_row(profile) for profile in found if profile.key_value in seen] == expected
            assert {profile.as_of_time.replace(tzinfo=None) for profile in found} == {part.t}
            for profile in found:
                if profile.key_value not in seen:
                    assert set(profile.statuses.values()) == {Status.NEVER_SEEN}
            for row in expected[:: len(expected) // 20]:
                one = await client.profiles.get(row["domain_userid"], service=SERVICE_NAME, min_position=position)
                assert as_row(one) == row


async def test_the_real_file_gives_the_real_values(tmp_path: Path) -> None:
    async with running_suite(tmp_path / "data") as suite, client_of(suite, "acceptance") as client:
        await client.project.set(clock="log")
        await publish(client)
        for part in cut(EVENTS, tmp_path):
            position = await load(client, part)
            expected = profiles(GROUP, EVENTS, part.t)
            keys = [row["domain_userid"] for row in expected]
            found = await client.profiles.batch_get(keys, service=SERVICE_NAME, min_position=position)
            assert list(map(as_row, found)) == expected
