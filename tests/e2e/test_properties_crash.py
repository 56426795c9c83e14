"""Properties set while services are killed: what was acknowledged counts once, whatever was sent again."""

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from inkling.client.properties import PropertySpec, PropertyWrite
from tests.e2e.test_crash import PATIENT, SETTINGS
from tests.running import client_of, running_suite

PROFILES, ROUNDS, CHUNK = 200, 30, 100
SPECS = (PropertySpec("paid", "numeric", merge="sum"), PropertySpec("round", "numeric"))


def writes() -> Iterator[PropertyWrite]:
    """Each profile once in each round."""
    for number in range(ROUNDS):
        for user in range(PROFILES):
            yield PropertyWrite(f"u{user}", {"paid": 0.1 if user % 2 else 1e15, "round": number})


@pytest.mark.slow
async def test_every_acknowledged_write_counts_exactly_once(tmp_path: Path) -> None:
    async with running_suite(tmp_path, **SETTINGS) as suite, client_of(suite, "one", retry=PATIENT) as client:
        await client.properties.declare_many(SPECS, attribute_key="user_id")
        acknowledged = position = 0
        async for result in client.properties.stream(
            writes(), attribute_key="user_id", batch_id="load", chunk_size=CHUNK
        ):
            assert not result.rejected
            acknowledged, position = acknowledged + result.accepted, max(position, result.position)
            if acknowledged in (1_000, 3_000):
                await suite.kill("features")
                await suite.start_one("features", timeout=120)
            elif acknowledged == 2_000:
                await suite.kill("ingest")
                await suite.start_one("ingest", timeout=120)
        assert acknowledged == PROFILES * ROUNDS
        # All of it again: nothing is added.
        again = await client.properties.set_many(writes(), attribute_key="user_id", batch_id="load")
        assert again.accepted == acknowledged
        for restart in (False, True):
            if restart:
                await suite.kill("features")
                await suite.start_one("features", timeout=120)
            async with asyncio.timeout(60):
                found = await client.profiles.batch_get(
                    [f"u{user}" for user in range(PROFILES)],
                    properties=["*"],
                    attribute_key="user_id",
                    min_position=max(position, again.position),
                )
            assert {profile.properties["round"].value for profile in found} == {ROUNDS - 1.0}
            paid = [math.fsum([amount] * ROUNDS) for amount in (1e15, 0.1)]
            assert [profile.properties["paid"].value for profile in found] == paid * (PROFILES // 2)
