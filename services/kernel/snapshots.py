"""Snapshots: a fold in one file, with its position inside, so that state and position can never disagree.

    8 bytes   magic "INKSNAP1" (the digit is the version of this format)
    8 bytes   length of the manifest, little-endian
    manifest  JSON: position, instants, definitions, and for each array its name, type, shape, place and size
    arrays    each one Zstandard-compressed
    32 bytes  SHA-256 of all before it

A snapshot is written beside its place and moved there when it is complete and on disk. Reading checks everything before
it believes anything; whatever is wrong is `SnapshotCorrupt`, and the caller goes on to an older one, or to the log.
"""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.kernel.dedup import Deduplicator
from services.kernel.definitions import from_json, to_json
from services.kernel.engine import Engine
from services.kernel.fold import Fold

MAGIC = b"INKSNAP1"
Arrays = dict[str, NDArray[np.generic]]


class SnapshotCorrupt(Exception):  # noqa: N818 (says what is the case)
    """The file is not a whole snapshot of this version."""


def freeze(fold: Fold) -> tuple[dict[str, Any], Arrays]:
    """The fold as a manifest and copies of its arrays, at memory speed: then it may go on while they are encoded."""
    arrays: Arrays = {f"ids.{name}": array for name, array in fold.deduplicator.dump().items()}
    engines = []
    for i, engine in enumerate(fold.engines):
        arrays |= {f"engine{i}.{name}": array for name, array in engine.dump().items()}
        engines.append(
            {
                "attribute_key": engine.attribute_key,
                "complete_since_us": engine.complete_since_us,
                "aggregations": [to_json(aggregation) for aggregation in engine.aggregations],
            }
        )
    manifest = {
        "clock": fold.clock,
        "position": fold.position,
        "as_of_us": fold.as_of_us,
        "events": fold.events,
        "engines": engines,
    }
    return manifest, {name: array.copy() for name, array in arrays.items()}


def encode(manifest: dict[str, Any], arrays: Arrays) -> bytes:
    """The bytes of a snapshot; may run in another thread than the fold."""
    codec = pa.Codec("zstd", compression_level=1)
    places, parts, position = [], [], 0
    for name, array in arrays.items():
        raw = np.ascontiguousarray(array)
        part = codec.compress(raw.tobytes(), asbytes=True) if raw.nbytes else b""
        places.append([name, raw.dtype.str, list(raw.shape), position, len(part)])
        parts.append(part)
        position += len(part)
    head = json.dumps(manifest | {"arrays": places}, separators=(",", ":")).encode()
    body = b"".join([MAGIC, len(head).to_bytes(8, "little"), head, *parts])
    return body + hashlib.sha256(body).digest()


def decode(data: bytes) -> Fold:
    """The fold back from the bytes of a snapshot. Raises SnapshotCorrupt."""
    body, digest = data[:-32], data[-32:]
    if len(data) < 48 or not body.startswith(MAGIC) or hashlib.sha256(body).digest() != digest:
        raise SnapshotCorrupt("not a whole snapshot of this version")
    length = int.from_bytes(body[8:16], "little")
    # The bytes are those that were written; what fails from here on was written by another version of the kernel.
    try:
        manifest = json.loads(body[16 : 16 + length])
        return thaw(manifest, _arrays(manifest["arrays"], memoryview(body)[16 + length :]))
    except (KeyError, TypeError, ValueError, AssertionError, pa.ArrowException) as error:
        raise SnapshotCorrupt("written by another version of the kernel") from error


def _arrays(places: list[list[Any]], data: memoryview) -> Arrays:
    codec = pa.Codec("zstd")
    arrays: Arrays = {}
    for name, dtype, shape, position, size in places:
        count = int(np.prod(shape))
        raw = codec.decompress(data[position : position + size], count * np.dtype(dtype).itemsize) if size else b""
        arrays[name] = np.frombuffer(raw, dtype).reshape(shape)
    return arrays


def thaw(manifest: dict[str, Any], arrays: Arrays) -> Fold:
    """A fold from what `freeze` gave: read back, or as a copy that stands still while the first one goes on."""

    def named(prefix: str) -> Arrays:
        return {name[len(prefix) + 1 :]: a for name, a in arrays.items() if name.startswith(f"{prefix}.")}

    fold = Fold(manifest["clock"])
    fold.deduplicator = Deduplicator.load(named("ids"))
    fold.position, fold.as_of_us = manifest["position"], manifest["as_of_us"]
    fold.events = manifest["events"]
    for i, described in enumerate(manifest["engines"]):
        aggregations = [from_json(aggregation) for aggregation in described["aggregations"]]
        engine = Engine(described["attribute_key"], aggregations, described["complete_since_us"])
        engine.load(named(f"engine{i}"))
        fold.engines.append(engine)
    return fold


def write(fold: Fold, path: Path) -> None:
    """Writes a snapshot to a file, atomically and durably."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(encode(*freeze(fold)))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def read(path: Path) -> Fold:
    """Reads a snapshot. Raises SnapshotCorrupt, or OSError when the file cannot be read."""
    return decode(path.read_bytes())
