"""Which event ids the archive has seen: a fold of the log, saved now and then so that a restart need not read it all.

A saved state belongs to a position; reading the log on from there gives any later one. So it need not be saved together
with the archive's progress, and a lost or damaged one costs time, not correctness.
"""

import asyncio
import io
import logging
import zipfile
from dataclasses import dataclass

import numpy as np

from services.ingest.archive.files import remember
from services.ingest.log.base import EventLog
from services.kernel.dedup import Deduplicator
from services.runtime.blobs import BlobStore
from services.runtime.errors import NotFound

_LOGGER = logging.getLogger(__name__)
_READ_BYTES = 16 * 1024 * 1024
_KEPT_STATES = 2
_SAVE_EVENTS = 100_000


@dataclass(slots=True)
class Sightings:
    """The ids of a project's events up to a position."""

    seen: Deduplicator
    position: int
    saved_position: int

    def worth_saving(self) -> bool:
        """Whether so much was seen since it was saved that saving costs less than reading that again."""
        return self.position - self.saved_position > max(_SAVE_EVENTS, len(self.seen) // 2)


class SightingsStore:
    """Keeps the sightings of projects at `archive/{project}/_state/{position}.npz`."""

    def __init__(self, log: EventLog, blobs: BlobStore) -> None:
        self._log = log
        self._blobs = blobs

    async def load(self, project: str, position: int, horizon_us: int) -> Sightings:
        """The sightings up to a position: the newest saved before, and what the log holds since."""
        sightings = Sightings(Deduplicator(horizon_us), 0, 0)
        for key in reversed(await self._keys(project)):
            saved_position = _position(key)
            if saved_position > position:
                continue
            try:
                seen = _parse(await self._blobs.get(key))
            except (NotFound, ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
                _LOGGER.warning("a saved state of the archive cannot be read: %s", type(error).__name__)
                continue
            sightings = Sightings(seen, saved_position, saved_position)
            break
        await self.follow(project, sightings, position)
        return sightings

    async def follow(self, project: str, sightings: Sightings, position: int) -> None:
        """Brings sightings up to a position, by reading the log."""
        while sightings.position < position:
            batches = await self._log.read(project, sightings.position, _READ_BYTES)
            batches = [batch for batch in batches if batch.last_position <= position]
            if not batches:
                break  # what is between was trimmed
            await asyncio.to_thread(remember, batches, sightings.seen)
            sightings.position = batches[-1].last_position
        sightings.position = position

    async def save(self, project: str, sightings: Sightings) -> None:
        """Saves sightings, and drops older states but the last."""
        content = await asyncio.to_thread(_format, sightings.seen)
        await self._blobs.put(f"{_folder(project)}{sightings.position:019d}.npz", content)
        sightings.saved_position = sightings.position
        for key in (await self._keys(project))[:-_KEPT_STATES]:
            await self._blobs.delete(key)

    async def _keys(self, project: str) -> list[str]:
        return [blob.key for blob in await self._blobs.list(_folder(project)) if blob.key.endswith(".npz")]


def _folder(project: str) -> str:
    return f"archive/{project}/_state/"


def _position(key: str) -> int:
    return int(key.rpartition("/")[2].removesuffix(".npz"))


def _format(seen: Deduplicator) -> bytes:
    sink = io.BytesIO()
    np.savez(sink, **seen.dump())  # type: ignore[arg-type]
    return sink.getvalue()


def _parse(content: bytes) -> Deduplicator:
    # The container's checksums are checked as its members are read.
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return Deduplicator.load({name: arrays[name] for name in arrays.files})
