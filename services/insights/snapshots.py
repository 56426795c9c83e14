"""A project's snapshots in the blob store: the newest two, named by their positions; checksummed."""

import asyncio
import hashlib
import json
import logging
from typing import Any

import numpy as np
import pyarrow as pa

from services.insights.evaluators import Arrays
from services.kernel import snapshots
from services.runtime.blobs import BlobStore

_LOGGER = logging.getLogger(__name__)
_KEPT = 2
_DIGEST = 32
Frozen = tuple[dict[str, Any], Arrays]


def decode(data: bytes) -> Frozen:
    """The manifest and arrays of a snapshot, in the kernel's format. Raises ValueError on anything else."""
    body, digest = data[:-_DIGEST], data[-_DIGEST:]
    if not body.startswith(snapshots.MAGIC) or hashlib.sha256(body).digest() != digest:
        raise ValueError("not a whole snapshot of this version")
    start = len(snapshots.MAGIC) + 8
    length = int.from_bytes(body[start - 8 : start], "little")
    manifest = json.loads(body[start : start + length])
    codec, view = pa.Codec("zstd"), memoryview(body)[start + length :]
    arrays: Arrays = {}
    for name, dtype, shape, position, size in manifest["arrays"]:
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raw = codec.decompress(view[position : position + size], count) if size else b""
        arrays[name] = np.frombuffer(raw, dtype).reshape(shape)
    return manifest, arrays


class SnapshotShelf:
    """Where one project's snapshots are."""

    def __init__(self, blobs: BlobStore, project: str) -> None:
        self._blobs = blobs
        self._prefix = f"insights/snapshots/{project}/"

    async def newest(self) -> Frozen | None:
        """The newest that can be read whole, or None: then there is only the log."""
        for key in reversed(await self._keys()):
            try:
                return await asyncio.to_thread(decode, await self._blobs.get(key))
            except Exception as error:
                # Whatever is wrong with it: an older one, or the log, tells the same.
                _LOGGER.warning("a snapshot is left out: %s", type(error).__name__, extra={"fields": {"key": key}})
        return None

    async def save(self, manifest: dict[str, Any], arrays: Arrays, keep: int = _KEPT) -> int:
        """Writes one, and forgets all but the newest `keep`; returns how many it forgot."""
        data = await asyncio.to_thread(snapshots.encode, manifest, arrays)
        await self._blobs.put(f"{self._prefix}{manifest['position']:020d}.snap", data)
        return await self._delete((await self._keys())[:-keep])

    async def clear(self) -> int:
        """Forgets all of them: they belong to a log that is no more. Returns how many there were."""
        return await self._delete(await self._keys())

    async def _delete(self, keys: list[str]) -> int:
        for key in keys:
            await self._blobs.delete(key)
        return len(keys)

    async def _keys(self) -> list[str]:
        return sorted(info.key for info in await self._blobs.list(self._prefix) if info.key.endswith(".snap"))
