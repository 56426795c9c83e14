"""Takes a key out of the training sets that hold it: out of their files, their tables of rows and their lists of keys.

What is left has other checksums, which the manifest then tells, with how many rows were erased.
"""

import asyncio
import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from services.features.datasets.build import MANIFEST
from services.features.datasets.creating import folder, input_key
from services.features.datasets.messages import from_text, to_document
from services.features.datasets.messages import to_text as spec_text
from services.features.datasets.partition import write
from services.features.datasets.store import DatasetStore, State, StoredDataset
from services.features.datasets.tables import KEY, to_bytes
from services.runtime.blobs import BlobStore
from services.runtime.clocks import Clock

_PAGE = 100


class DatasetForgetter:
    """See `services.features.erasure.Forgets`."""

    store = "datasets"
    unit = "rows"

    def __init__(self, store: DatasetStore, blobs: BlobStore, clock: Clock) -> None:
        self._datasets = store
        self._blobs = blobs
        self._clock = clock

    async def forget(self, project: str, attribute_key: str, value: str) -> int:
        """Takes a key out of all training sets of its attribute key; returns how many rows there were."""
        total = 0
        before: tuple[int, str] | None = None
        while page := await self._datasets.page(project, _PAGE, before):
            for stored in page:
                if from_text(stored.spec).attribute_key in (attribute_key, ""):
                    total += await self._forget_in(project, stored, value)
            before = (page[-1].create_time_us, page[-1].dataset_id)
        return total

    async def _forget_in(self, project: str, stored: StoredDataset, value: str) -> int:
        manifest = json.loads(stored.manifest) if stored.state is State.READY else None
        erased = 0
        if manifest is not None:
            for file in manifest["files"]:
                erased += await self._clean(f"{folder(project)}/{stored.dataset_id}/{file['name']}", file, value)
        spec = from_text(stored.spec)
        inputs = await self._without(project, stored.inputs, value)
        listed = value in spec.keys.list.values
        if not erased and inputs == stored.inputs and not listed:
            return 0
        if listed:
            spec.keys.list.values.remove(value)
        if stored.inputs and spec.moments.HasField("rows"):
            spec.moments.rows.input = inputs
        elif stored.inputs:
            spec.keys.segment.input = inputs
        changed = replace(stored, spec=spec_text(spec), inputs=inputs, update_time_us=self._clock.now_us())
        if manifest is not None:
            manifest |= {"spec": to_document(spec), "erased_rows": manifest.get("erased_rows", 0) + erased}
            manifest["row_count"] = sum(file["rows"] for file in manifest["files"])
            changed = replace(changed, manifest=await self._put_manifest(project, stored, manifest))
        await self._datasets.replace(project, changed)
        if stored.inputs != inputs and not await self._datasets.stand_on(project, stored.inputs):
            await self._blobs.delete(input_key(project, stored.inputs))
        return erased

    async def _clean(self, key: str, file: dict[str, Any], value: str) -> int:
        """Rewrites a part without the key's rows; the file's entry in the manifest follows."""
        content, erased = await asyncio.to_thread(_without_rows, await self._blobs.get(key), value)
        if erased:
            await self._blobs.put(key, content)
            digest = hashlib.sha256(content).hexdigest()
            file |= {"rows": file["rows"] - erased, "bytes": len(content), "sha256": digest}
        return erased

    async def _without(self, project: str, input_id: str, value: str) -> str:
        """The id of a table of rows without the key."""
        if not input_id or not await self._blobs.exists(input_key(project, input_id)):
            return input_id
        path = await self._blobs.open_path(input_key(project, input_id))
        assert path is not None, "tables of rows are files"
        found = await asyncio.to_thread(_without_key, path, value)
        if found is None:
            return input_id
        await self._blobs.put(input_key(project, found[0]), found[1])
        return found[0]

    async def _put_manifest(self, project: str, stored: StoredDataset, manifest: dict[str, Any]) -> str:
        manifest.pop("manifest_file")
        content = json.dumps(manifest, indent=1, ensure_ascii=False).encode()
        await self._blobs.put(f"{folder(project)}/{stored.dataset_id}/{MANIFEST}", content)
        own = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        return json.dumps(manifest | {"manifest_file": own}, ensure_ascii=False)


def _without_rows(content: bytes, value: str) -> tuple[bytes, int]:
    with pq.ParquetFile(pa.BufferReader(content)) as opened:
        # The first column is the key.
        keys = opened.read(columns=[opened.schema_arrow.names[0]]).column(0)
        kept = pc.fill_null(pc.not_equal(keys, value), True)
        erased = len(keys) - int(pc.sum(kept).as_py() or 0)
        if not erased:
            return content, 0
        table = opened.read().filter(kept)
    sink = io.BytesIO()
    write(sink, table.schema, [table])
    return sink.getvalue(), erased


def _without_key(path: Path, value: str) -> tuple[str, bytes] | None:
    table = pq.read_table(path)
    kept = pc.fill_null(pc.not_equal(table.column(KEY), value), True)
    return None if bool(pc.all(kept).as_py()) else to_bytes(table.filter(kept))
