"""A project's snapshots in the blob store: the newest two, named by their positions."""

import asyncio
import logging
import time

from services.features.projection import Projection
from services.kernel import snapshots
from services.kernel.fold import Fold
from services.runtime.blobs import BlobStore

_LOGGER = logging.getLogger(__name__)
KEPT = 2


class SnapshotShelf:
    """Where one project's snapshots are."""

    def __init__(self, blobs: BlobStore, project: str) -> None:
        self._blobs = blobs
        self._prefix = f"snapshots/{project}/"
        self._project = project

    async def newest(self) -> Fold | None:
        """The newest fold that can be read whole, or None: then there is only the log."""
        for key in reversed(await self._keys()):
            try:
                data = await self._blobs.get(key)
                fold = await asyncio.to_thread(snapshots.decode, data)
            except Exception as error:
                # Whatever is wrong with it: an older one, or the log, tells the same.
                _LOGGER.warning("a snapshot is left out: %s", type(error).__name__, extra={"fields": {"key": key}})
                continue
            _LOGGER.info("recovered a snapshot", extra={"fields": {"key": key, "position": fold.position}})
            return fold
        return None

    async def save(self, projection: Projection) -> int:
        """Writes the fold as it is now, and forgets all but the newest two. Returns its position.

        While its arrays are copied the projection is read, but not changed; they are encoded beside the changes.
        """
        started = time.perf_counter()
        with projection.freezing() as fold:
            manifest, arrays = await asyncio.to_thread(snapshots.freeze, fold)
        frozen = time.perf_counter()
        data = await asyncio.to_thread(snapshots.encode, manifest, arrays)
        key = f"{self._prefix}{manifest['position']:020d}.snap"
        await self._blobs.put(key, data)
        _LOGGER.info(
            "wrote a snapshot",
            extra={
                "fields": {
                    "key": key,
                    "bytes": len(data),
                    "freeze_ms": round((frozen - started) * 1000, 1),
                    "total_ms": round((time.perf_counter() - started) * 1000, 1),
                }
            },
        )
        for old in (await self._keys())[:-KEPT]:
            await self._blobs.delete(old)
        return int(manifest["position"])

    async def drop_before(self, position: int) -> int:
        """Forgets the snapshots of earlier positions; returns how many."""
        old = [key for key in await self._keys() if _position(key) < position]
        for key in old:
            await self._blobs.delete(key)
        return len(old)

    async def clear(self) -> None:
        """Forgets all of them: they belong to a log that is no more."""
        for key in await self._keys():
            await self._blobs.delete(key)

    async def _keys(self) -> list[str]:
        return sorted(info.key for info in await self._blobs.list(self._prefix) if info.key.endswith(".snap"))


def _position(key: str) -> int:
    return int(key.rpartition("/")[2].removesuffix(".snap"))
