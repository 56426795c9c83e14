"""Compares what the services answer with the direct computation: every customer, every value, to the last bit."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime

from examples.demo.attributes import SERVICE, compute
from examples.demo.cdnow import Purchase
from inkling import AsyncClient
from inkling.client import Profile

SHOWN_DIFFERENCES = 5


class DifferenceError(Exception):
    """The services say something else than the direct computation, or than before."""


async def read_all(client: AsyncClient, customers: Sequence[str], min_position: int) -> dict[str, Profile]:
    """All customers' profiles, through BatchGetProfiles."""
    profiles = await client.profiles.batch_get(customers, service=SERVICE, min_position=min_position)
    return {profile.key_value: profile for profile in profiles}


async def compare(
    profiles: Mapping[str, Profile], purchases: Mapping[str, Sequence[Purchase]], instant: datetime
) -> int:
    """How many values are equal; DifferenceError, with some of them, when any is not."""
    compared = 0
    differences: list[str] = []
    for number, (customer, bought) in enumerate(purchases.items()):
        if number % 500 == 0:
            await asyncio.sleep(0)
        expected = compute(bought, instant)
        answered = profiles[customer].values
        compared += len(expected)
        differences += [
            f"customer {customer}, {name}: {answered.get(name)!r}, computed directly {value!r}"
            for name, value in expected.items()
            if name not in answered or answered[name] != value
        ]
    if differences:
        shown = "\n  ".join(differences[:SHOWN_DIFFERENCES])
        raise DifferenceError(f"{len(differences):,} of {compared:,} values differ:\n  {shown}")
    return compared


def same(before: Mapping[str, Profile], after: Mapping[str, Profile]) -> int:
    """How many readings are the same, values, statuses and times; DifferenceError when any is not."""
    changed = [customer for customer in before if before[customer].readings != after[customer].readings]
    if changed:
        first = changed[0]
        raise DifferenceError(
            f"{len(changed):,} profiles changed, such as {first}:\n"
            f"  before {before[first].values}\n  after  {after[first].values}"
        )
    return sum(len(profile.readings) for profile in before.values())
