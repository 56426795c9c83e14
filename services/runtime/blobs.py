"""Named bytes: packages, results, Parquet files, snapshots. A folder when embedded, object storage on a cluster."""

import asyncio
import os
import re
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from services.runtime.errors import InvalidArgument, NotFound, Unavailable, Violation

_PART = re.compile(r"[A-Za-z0-9_=@+,-][A-Za-z0-9_.=@+,-]{0,199}")
_MAX_KEY = 900
_SCRATCH = ".inkling-"
_STALE_SCRATCH_SECONDS = 24 * 3600


@dataclass(frozen=True)
class BlobInfo:
    """What a listing tells of one blob: size in bytes, time of the last write."""

    key: str
    size: int
    modified_us: int


class BlobStore(Protocol):
    """Keys are names of one or more parts, such as `archive/shop/1998-01-01/part-0.parquet` (see `check_key`).

    All raise InvalidArgument for other keys, and Unavailable when the storage fails (nothing is half-written then).
    """

    async def put(self, key: str, data: bytes | Path) -> None:
        """Writes the blob whole or not at all, over an older one; durable when this returns. A path is copied."""
        ...

    async def get(self, key: str) -> bytes:
        """The bytes; raises NotFound."""
        ...

    async def open_path(self, key: str) -> Path | None:
        """A local file to read or map in place, or None where the store has none; raises NotFound."""
        ...

    async def list(self, prefix: str = "") -> list[BlobInfo]:
        """The blobs whose key starts with `prefix`, by key."""
        ...

    async def delete(self, key: str) -> None:
        """Removes the blob; nothing happens when it is not there."""
        ...

    async def exists(self, key: str) -> bool:
        """Whether it is there."""
        ...


def check_key(key: str) -> str:
    """The key, when it is one: parts of A-Z a-z 0-9 and `_.=@+,-`, none beginning with a dot, joined with `/`.

    So no key leaves its store (`..`, absolute names), and none is hidden or odd on any file system.
    """
    if len(key) > _MAX_KEY or not all(_PART.fullmatch(part) for part in key.split("/")):
        hint = "a blob key is parts of A-Z a-z 0-9 and _.=@+,- joined with /, none beginning with a dot"
        raise InvalidArgument(hint, reason="BAD_KEY", violations=(Violation("key", hint),))
    return key


class FolderBlobStore:
    """BlobStore in a folder of a local file system. Files are written beside their place, synced, then renamed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def put(self, key: str, data: bytes | Path) -> None:
        """Writes the blob atomically and durably."""
        await asyncio.to_thread(self._put, self._path(key), data)

    async def get(self, key: str) -> bytes:
        """The bytes."""
        return await asyncio.to_thread(_read, self._path(key))

    async def open_path(self, key: str) -> Path | None:
        """The file itself. A later `put` replaces the name, not the content of an open file."""
        path = self._path(key)
        if not await asyncio.to_thread(path.is_file):
            raise _not_found()
        return path

    async def list(self, prefix: str = "") -> list[BlobInfo]:
        """The blobs by key."""
        return await asyncio.to_thread(_scan, self._root, prefix)

    async def delete(self, key: str) -> None:
        """Removes the blob."""
        await asyncio.to_thread(_delete, self._path(key))

    async def exists(self, key: str) -> bool:
        """Whether it is there."""
        return await asyncio.to_thread(self._path(key).is_file)

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _put(self, path: Path, data: bytes | Path) -> None:
        scratch = path.with_name(f"{_SCRATCH}{secrets.token_hex(8)}")
        try:
            _make_folder(path.parent)
            try:
                with scratch.open("wb") as file:
                    if isinstance(data, Path):
                        with data.open("rb") as source:
                            shutil.copyfileobj(source, file, 1 << 20)
                    else:
                        file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                scratch.replace(path)
                _sync_folder(path.parent)
            finally:
                scratch.unlink(missing_ok=True)
        except OSError as error:
            raise _storage_error(error) from error


class MemoryBlobStore:
    """BlobStore in memory: for tests."""

    def __init__(self) -> None:
        self._blobs: dict[str, tuple[bytes, int]] = {}

    async def put(self, key: str, data: bytes | Path) -> None:
        """Keeps the bytes."""
        content = await asyncio.to_thread(data.read_bytes) if isinstance(data, Path) else bytes(data)
        self._blobs[check_key(key)] = (content, time.time_ns() // 1_000)

    async def get(self, key: str) -> bytes:
        """The bytes."""
        if check_key(key) not in self._blobs:
            raise _not_found()
        return self._blobs[key][0]

    async def open_path(self, key: str) -> Path | None:
        """None: there are no files."""
        await self.get(key)
        return None

    async def list(self, prefix: str = "") -> list[BlobInfo]:
        """The blobs by key."""
        return [
            BlobInfo(key, len(content), modified_us)
            for key, (content, modified_us) in sorted(self._blobs.items())
            if key.startswith(prefix)
        ]

    async def delete(self, key: str) -> None:
        """Forgets the bytes."""
        self._blobs.pop(check_key(key), None)

    async def exists(self, key: str) -> bool:
        """Whether it is there."""
        return check_key(key) in self._blobs


def _scan(root: Path, prefix: str) -> list[BlobInfo]:
    found = []
    # Only the folder that the prefix names can hold matches.
    start = root / check_key(prefix.rpartition("/")[0]) if "/" in prefix else root
    for folder, _, names in os.walk(start):
        for name in names:
            path = Path(folder) / name
            key = path.relative_to(root).as_posix()
            try:
                status = path.stat()
                if name.startswith(_SCRATCH):
                    # Half-written by a process that is gone.
                    if time.time() - status.st_mtime > _STALE_SCRATCH_SECONDS:
                        path.unlink()
                elif key.startswith(prefix):
                    found.append(BlobInfo(key, status.st_size, status.st_mtime_ns // 1_000))
            except FileNotFoundError:
                continue  # deleted meanwhile
    return sorted(found, key=lambda blob: blob.key)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise _not_found() from None
    except OSError as error:
        raise _storage_error(error) from error


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            _sync_folder(path.parent)
    except NotADirectoryError:
        return
    except OSError as error:
        raise _storage_error(error) from error


def _make_folder(folder: Path) -> None:
    """Makes a folder and those above it, each durable: a file is only as safe as the entries that lead to it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_found() -> NotFound:
    return NotFound("there is no such blob", reason="NOT_FOUND")


def _storage_error(error: OSError) -> Unavailable | InvalidArgument:
    if isinstance(error, NotADirectoryError | IsADirectoryError | FileExistsError):
        return InvalidArgument(
            "a part of this key is itself the key of a blob, or the other way round", reason="BAD_KEY"
        )
    return Unavailable("the blob store cannot be written or read now", reason="STORAGE")
