"""One conformance suite for the stores of blobs, and what is the folder's own."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from services.runtime.blobs import BlobStore, FolderBlobStore, MemoryBlobStore
from services.runtime.errors import InvalidArgument, NotFound, Unavailable


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return FolderBlobStore(tmp_path / "blobs") if request.param == "folder" else MemoryBlobStore()


async def test_what_was_put_is_there_until_it_is_deleted(store: BlobStore) -> None:
    assert not await store.exists("a/b")
    await store.put("a/b", b"one")
    assert await store.get("a/b") == b"one"
    assert await store.exists("a/b")
    await store.put("a/b", b"two")
    assert await store.get("a/b") == b"two"
    await store.delete("a/b")
    await store.delete("a/b")
    assert not await store.exists("a/b")
    for attempt in (store.get, store.open_path):
        with pytest.raises(NotFound):
            await attempt("a/b")


async def test_a_file_is_put_by_its_path(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 3_000_000)
    await store.put("big", tmp_path / "source")
    assert await store.get("big") == b"x" * 3_000_000
    assert (tmp_path / "source").exists()


async def test_a_listing_is_by_prefix_and_ordered(store: BlobStore) -> None:
    for key in ("shop/b", "shop/a/1", "shop/a/2", "shopping", "bank/a"):
        await store.put(key, b"12345")
    assert [blob.key for blob in await store.list("shop/")] == ["shop/a/1", "shop/a/2", "shop/b"]
    assert [blob.key for blob in await store.list("shop/a/")] == ["shop/a/1", "shop/a/2"]
    assert [blob.key for blob in await store.list("shop")] == ["shop/a/1", "shop/a/2", "shop/b", "shopping"]
    assert len(await store.list("")) == 5
    assert await store.list("nothing/") == []
    [blob] = await store.list("bank")
    assert blob.size == 5
    assert abs(blob.modified_us - time.time_ns() // 1000) < 60_000_000


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../x", "a/../b", "a/./b", "a//b", "a/", ".hidden", "a\\b", "a\0b", "a b", "é", "x" * 1000],
)
async def test_a_key_that_could_leave_the_store_is_refused(store: BlobStore, key: str) -> None:
    with pytest.raises(InvalidArgument):
        await store.put(key, b"")
    for attempt in (store.get, store.delete, store.exists, store.open_path):
        with pytest.raises(InvalidArgument):
            await attempt(key)


async def test_a_folder_gives_paths_whose_content_stays_when_replaced(tmp_path: Path) -> None:
    store = FolderBlobStore(tmp_path)
    await store.put("a", b"old")
    path = await store.open_path("a")
    assert path is not None
    with path.open("rb") as file:
        await store.put("a", b"new")
        assert file.read() == b"old"


async def test_readers_never_see_a_half_written_blob(tmp_path: Path) -> None:
    store = FolderBlobStore(tmp_path)
    contents = {bytes([number]) * 200_000 for number in range(20)}
    await store.put("a", next(iter(contents)))

    async def read() -> None:
        for _ in range(50):
            assert await store.get("a") in contents

    await asyncio.gather(read(), read(), *(store.put("a", content) for content in contents))
    assert [blob.key for blob in await store.list("")] == ["a"]


async def test_a_failed_write_leaves_the_old_blob_and_no_rubbish(tmp_path: Path) -> None:
    store = FolderBlobStore(tmp_path)
    await store.put("a", b"old")
    with pytest.raises(Unavailable):
        await store.put("a", tmp_path / "no such file")
    assert await store.get("a") == b"old"
    assert os.listdir(tmp_path) == ["a"]


async def test_what_a_crash_left_half_written_is_not_listed_and_goes_after_a_day(tmp_path: Path) -> None:
    store = FolderBlobStore(tmp_path)
    young, old = tmp_path / ".inkling-young", tmp_path / ".inkling-old"
    for path in (young, old):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert await store.list("") == []
    assert (young.exists(), old.exists()) == (True, False)


async def test_a_key_below_another_key_is_refused(tmp_path: Path) -> None:
    store = FolderBlobStore(tmp_path)
    await store.put("a", b"")
    with pytest.raises(InvalidArgument):
        await store.put("a/b", b"")
    with pytest.raises(NotFound):
        await store.get("a/b")
    await store.put("b/c", b"")
    with pytest.raises(InvalidArgument):
        await store.put("b", b"")
