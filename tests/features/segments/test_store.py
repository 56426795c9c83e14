"""Segments in both databases."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.features.segments.definitions import SegmentDefinition
from services.features.segments.store import MIGRATIONS, SegmentStore
from services.features.store import Request
from services.runtime.database import Database
from services.runtime.errors import AlreadyExists, InvalidArgument, NotFound

VIPS = SegmentDefinition("vips", "user_id", "spent > 100", "who spend", "sales", "0123", False, 5, 6)


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SegmentStore]:
    url = f"sqlite:///{tmp_path / 'f.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    async with Database.open(url, MIGRATIONS) as database:
        yield SegmentStore(database)


async def test_segments_are_stored_by_project_and_id(store: SegmentStore) -> None:
    await store.add("shop", VIPS, Request("r", "f"))
    with pytest.raises(AlreadyExists):
        await store.add("shop", VIPS, None)
    await store.add("other", VIPS, None)
    changed = replace(VIPS, condition="spent > 200", evaluated=True)
    await store.replace("shop", changed)
    assert await store.segments("shop") == [changed]
    assert await store.segments("other") == [VIPS]
    assert await store.projects() == ["other", "shop"]
    assert await store.repeated("shop", Request("r", "f")) == "vips"
    assert await store.repeated("shop", None) is await store.repeated("other", Request("r", "f")) is None
    with pytest.raises(InvalidArgument):
        await store.repeated("shop", Request("r", "another"))
    await store.delete("shop", "vips")
    assert await store.repeated("shop", Request("r", "f")) is None
    with pytest.raises(NotFound):
        await store.replace("shop", changed)
    assert await store.projects() == ["other"]
