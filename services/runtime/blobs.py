"""Named bytes: packages, results, Parquet files, snapshots. A folder when embedded, object storage on a cluster."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class BlobInfo:
    """What a listing tells of one blob: size in bytes, time of the last write."""

    key: str
    size: int
    modified_us: int


class BlobStore(Protocol):
    """Keys are `/`-separated names such as `archive/shop/1998-01-01/part-0.parquet`."""

    async def put(self, key: str, data: bytes | Path) -> None:
        """Writes the blob whole or not at all; durable when this returns. A path is read, not moved."""
        ...

    async def get(self, key: str) -> bytes:
        """The bytes; raises NotFound."""
        ...

    async def open_path(self, key: str) -> Path | None:
        """A local file with the content to read (map) in place, or None where there is none."""
        ...

    async def list(self, prefix: str) -> list[BlobInfo]:
        """The blobs whose key starts with `prefix`, by key."""
        ...

    async def delete(self, key: str) -> None:
        """Removes the blob; nothing happens when it is not there."""
        ...

    async def exists(self, key: str) -> bool:
        """Whether it is there."""
        ...


class FolderBlobStore:
    """BlobStore in a folder."""

    def __init__(self, root: Path) -> None:
        raise NotImplementedError


class MemoryBlobStore:
    """BlobStore in memory: for tests."""
