"""Puts a training set together: what must be known of all parts first, then the parts, then the manifest.

The bytes depend on the job alone: not on how many parts are computed at once, nor on where.
"""

import asyncio
import hashlib
import json
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np

from services.features.datasets import partition
from services.features.datasets.events import StoppedError, Watch
from services.features.datasets.job import Job
from services.features.datasets.partition import Part
from services.features.datasets.spec import Percentiles, SinceCreation
from services.runtime.errors import FailedPrecondition
from services.runtime.ray_session import RaySession

MANIFEST = "manifest.json"
FORMAT = 1
_LIBRARIES = ("inkling", "numba", "numpy", "pyarrow")
_REPORT_SECONDS = 0.5

Put = Callable[[str, bytes], Awaitable[None]]
"""Keeps a file of the training set under its name."""


@dataclass
class Stage:
    """How far a computation is, in records read."""

    name: str = "reading"
    done: int = 0
    total: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def rate(self) -> float:
        """Records a second, since the start."""
        elapsed = time.monotonic() - self.started
        return self.done / elapsed if elapsed > 0 else 0.0


Report = Callable[[Stage], Awaitable[None]]


class Workers(Protocol):
    """Where parts are computed."""

    at_once: int

    async def run(self, function: Callable[..., Any], *args: Any, watch: Watch) -> Any:
        """Computes one function of `partition`; cancelled, it ends soon."""
        ...


class ThreadWorkers:
    """A thread of this process: one part at a time, beside the event loop."""

    at_once = 1

    async def run(self, function: Callable[..., Any], *args: Any, watch: Watch) -> Any:
        """See Workers."""
        work = asyncio.ensure_future(asyncio.to_thread(function, *args, watch=watch))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            # A thread cannot be ended from outside: it is told, and waited for.
            watch.stop()
            await asyncio.gather(work, return_exceptions=True)
            raise


class RayWorkers:
    """Ray tasks, one for each part."""

    def __init__(self, session: RaySession, at_once: int) -> None:
        self.at_once = at_once
        self._session = session

    async def run(self, function: Callable[..., Any], *args: Any, watch: Watch) -> Any:
        """See Workers. How many records were read is told at the end."""
        return await self._session.run(function, *args)


async def build(
    job: Job, workers: Workers, put: Put, report: Report, *, described: Mapping[str, Any], records: int
) -> dict[str, Any]:
    """Computes and keeps all files; returns the manifest, which is the last of them.

    `described` goes into the manifest as it is; `records` is how many the archive holds. Raises FailedPrecondition
    when percentiles are asked for and nobody reached the goal.
    """
    builder = _Builder(job, workers, report, records)
    spans_us = await builder.spans_us()
    last_hash = await builder.last_hash(spans_us)
    files: list[dict[str, Any]] = []
    totals: dict[str, dict[str, int]] = {"goal": {}, "left_out": {}}
    skipped = 0
    async for index, part in builder.parts("features", partition.fill, spans_us, last_hash):
        name = f"part-{index:05d}.parquet"
        await put(name, part.content)
        digest = hashlib.sha256(part.content).hexdigest()
        files.append({"name": name, "rows": part.rows, "bytes": len(part.content), "sha256": digest})
        _add(totals["goal"], part.labels)
        _add(totals["left_out"], part.left_out)
        skipped += part.skipped_terms
    manifest = {
        "format": FORMAT,
        **described,
        "attribute_key": job.spec.attribute_key,
        "columns": [{"name": each.name, "type": str(each.type)} for each in partition.schema(job)],
        "features": [
            {
                "id": feature.feature_id,
                "column": feature.column,
                "type": str(feature.attribute.type),
                "aggregation": str(feature.aggregation.function),
            }
            for feature in job.features
        ]
        + [
            {
                "id": each.feature_id,
                "column": each.column,
                "type": str(each.type),
                "aggregation": str(each.rollup.definition.function),
            }
            for each in job.rollups
        ],
        "position": job.spec.up_to_position,
        "as_of_us": job.as_of_us,
        "complete_since_us": job.complete_since_us,
        "spans_since_creation_us": list(spans_us),
        "seed": job.spec.sampling.seed,
        "row_count": sum(file["rows"] for file in files),
        "goal": totals["goal"],
        "left_out": dict(sorted(totals["left_out"].items())),
        "values_of_another_type": skipped,
        "files": files,
        "versions": {name: version(name) for name in _LIBRARIES},
    }
    await put(MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False).encode())
    return manifest


class _Builder:
    def __init__(self, job: Job, workers: Workers, report: Report, records: int) -> None:
        self._job = job
        self._workers = workers
        self._report = report
        passes = 1 + isinstance(job.spec.moments, Percentiles) + (job.spec.sampling.max_rows is not None)
        self._records = records
        self._before = 0
        self._stage = Stage(total=passes * records)

    async def spans_us(self) -> tuple[int, ...]:
        """The spans since creation that make the moments."""
        moments = self._job.spec.moments
        if isinstance(moments, SinceCreation):
            return tuple(sorted(set(moments.spans_us)))
        if not isinstance(moments, Percentiles):
            return ()
        found = [spans async for _, spans in self.parts("time to convert", partition.conversion_spans)]
        spans = np.sort(np.concatenate(found))
        if not len(spans):
            raise FailedPrecondition(
                "nobody reached the goal: there is no time to convert to take percentiles of", reason="NO_CONVERSIONS"
            )
        # The nearest rank: always a span that somebody took.
        return tuple(sorted({int(spans[math.ceil(p / 100 * len(spans)) - 1]) for p in moments.percents}))

    async def last_hash(self, spans_us: tuple[int, ...]) -> int | None:
        """The hash up to which rows are taken when there may be only so many; None when all are."""
        bound = self._job.spec.sampling.max_rows
        if bound is None:
            return None
        found = [hashes async for _, hashes in self.parts("sampling", partition.first_hashes, spans_us)]
        hashes = np.sort(np.concatenate(found))
        return int(hashes[bound - 1]) if len(hashes) >= bound else None

    async def parts(self, stage: str, function: Callable[..., Any], *args: Any) -> AsyncIterator[tuple[int, Any]]:
        """The results of all parts in their order; some are computed ahead."""
        self._stage.name = stage
        count = self._job.partitions
        watches = [Watch() for _ in range(count)]
        running: dict[int, asyncio.Task[Any]] = {}
        try:
            for index in range(count):
                for ahead in range(index, min(index + self._workers.at_once, count)):
                    if ahead not in running:
                        work = self._workers.run(function, self._job, ahead, *args, watch=watches[ahead])
                        running[ahead] = asyncio.ensure_future(work)
                yield index, await self._waited(running[index], watches)
                watches[index].records = self._records // count
                del running[index]
            self._before += self._records
        finally:
            for task in running.values():
                task.cancel()
            await asyncio.gather(*running.values(), return_exceptions=True)

    async def _waited(self, task: "asyncio.Task[Any]", watches: list[Watch]) -> Any:
        while not task.done():
            await asyncio.wait((task,), timeout=_REPORT_SECONDS)
            share = sum(min(watch.records, self._records // len(watches)) for watch in watches)
            self._stage.done = min(self._before + share, self._stage.total)
            await self._report(self._stage)
        try:
            return task.result()
        except StoppedError:
            raise asyncio.CancelledError from None


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count


__all__ = ["MANIFEST", "Part", "RayWorkers", "Stage", "ThreadWorkers", "Workers", "build"]
