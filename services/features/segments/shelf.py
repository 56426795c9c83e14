"""Memberships in the blob store, one for each segment: what the journal's changes are changes of."""

import asyncio
import logging

from services.features.segments.definitions import SegmentDefinition
from services.features.segments.membership import Saved, decode, encode
from services.runtime.blobs import BlobStore
from services.runtime.errors import NotFound

_LOGGER = logging.getLogger(__name__)


class MembershipShelf:
    """Where one project's memberships are."""

    def __init__(self, blobs: BlobStore, project: str) -> None:
        self._blobs = blobs
        self._prefix = f"segments/{project}/"

    async def load(self, definition: SegmentDefinition) -> Saved | None:
        """The membership that was saved last, or None when there is none that can be read."""
        try:
            data = await self._blobs.get(self._key(definition))
            return await asyncio.to_thread(decode, data)
        except NotFound:
            return None
        except (ValueError, KeyError) as error:
            _LOGGER.warning("a membership cannot be read: %s", type(error).__name__)
            return None

    async def save(self, definition: SegmentDefinition, saved: Saved) -> None:
        """Writes a membership over the one before."""
        data = await asyncio.to_thread(encode, saved)
        await self._blobs.put(self._key(definition), data)

    async def delete(self, definition: SegmentDefinition) -> None:
        """Forgets it."""
        await self._blobs.delete(self._key(definition))

    def _key(self, definition: SegmentDefinition) -> str:
        return f"{self._prefix}{definition.segment_id}@{definition.uid}.arrow"
