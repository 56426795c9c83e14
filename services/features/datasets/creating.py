"""Training sets as long-running operations: pinned, computed, kept; taken up again after a restart."""

import asyncio
import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from google.longrunning import operations_pb2
from google.protobuf.message import Message

from inkling.features.v1 import dataset_pb2 as datasets_pb2
from inkling.features.v1 import dataset_service_pb2 as messages
from services.features.archive import ArchiveChangedError, ArchiveListing, Listings
from services.features.datasets.build import MANIFEST, RayWorkers, Stage, ThreadWorkers, Workers, build
from services.features.datasets.checks import check_spec, refuse
from services.features.datasets.goals import InsightLabels, InsightQuestion
from services.features.datasets.messages import dataset_message, from_text, pinned_message, spec_from_proto, to_document
from services.features.datasets.messages import to_text as spec_text
from services.features.datasets.pinning import (
    Resolved,
    Segments,
    input_of,
    make_job,
    pin,
    records_of,
    resolve,
)
from services.features.datasets.spec import DatasetSpec, InsightGoal, SegmentKeys
from services.features.datasets.store import DatasetStore, State, StoredDataset
from services.features.datasets.tables import of_keys, to_bytes
from services.features.projects import Projects
from services.features.proto import duration, timestamp
from services.features.settings import FeaturesSettings
from services.following.feed import Feed
from services.runtime.blobs import BlobStore
from services.runtime.clocks import Clock
from services.runtime.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InklingError,
    InvalidArgument,
    Violation,
)
from services.runtime.operations import OperationRunner, Progress
from services.runtime.ray_session import RaySession

KIND = "dataset"
_TRIES = 3


def folder(project: str) -> str:
    """Where the files of a project's training sets are in the blob store."""
    return f"datasets/{project}"


def input_key(project: str, input_id: str) -> str:
    """Where an uploaded table is."""
    return f"{folder(project)}/inputs/{input_id}.parquet"


@dataclass(frozen=True)
class Surroundings:
    """What training sets are made of and kept in."""

    projects: Projects
    store: DatasetStore
    blobs: BlobStore
    archive_root: Path
    listings: Listings
    feed: Feed
    settings: FeaturesSettings
    clock: Clock
    ray: RaySession
    segments: Segments | None = None
    insights: InsightLabels | None = None


class DatasetCreator:
    """Creates training sets."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around

    async def check(self, project: str, message: datasets_pb2.DatasetSpec) -> Resolved:
        """What a specification means now; raises everything that is wrong with it."""
        spec, problems = spec_from_proto(message)
        refuse([*problems, *check_spec(spec)])
        resolved = resolve((await self._around.projects.get(project)).catalog, spec, self._around.insights)
        given = message.definitions_sha256
        if given and given != resolved.definitions_sha256:
            raise FailedPrecondition(
                "the definitions are not those that the specification was pinned to",
                reason="DEFINITIONS_CHANGED",
                violations=(Violation("definitions_sha256", "leave it out to take what is defined now"),),
            )
        await self._check_insight(project, resolved)
        if isinstance(spec.keys, SegmentKeys) and not spec.keys.input_id and self._around.segments is None:
            raise FailedPrecondition("this server knows no segments", reason="NO_SEGMENTS")
        input_id = input_of(spec)
        if input_id and not await self._around.blobs.exists(input_key(project, input_id)):
            raise FailedPrecondition(
                "the table of rows is not here: upload it (again)",
                reason="NO_INPUT",
                violations=(Violation("moments.rows.input", "give what UploadDatasetRows answered", "NO_INPUT"),),
            )
        return resolved

    async def _check_insight(self, project: str, resolved: Resolved) -> None:
        goal, insights = resolved.spec.goal, self._around.insights
        if goal is not None and isinstance(goal.achievement, InsightGoal) and insights is not None:
            question = InsightQuestion(project, goal.achievement.insight, resolved.spec.attribute_key)
            await asyncio.to_thread(insights.check, question)

    async def create(
        self, runner: OperationRunner, project: str, request: messages.CreateDatasetRequest
    ) -> operations_pb2.Operation:
        """Starts a training set; a request that came before answers with its operation."""
        around = self._around
        text = spec_text(request.spec)
        fingerprint = hashlib.sha256(request.spec.SerializeToString(deterministic=True)).hexdigest()
        made = await around.store.repeated(project, request.request_id, fingerprint)
        if made is not None:
            return await runner.get(project, made.operation)
        resolved = await self.check(project, request.spec)
        now_us = around.clock.now_us()
        stored = StoredDataset(
            dataset_id=secrets.token_hex(12),
            spec=text,
            create_time_us=now_us,
            update_time_us=now_us,
            inputs=input_of(resolved.spec),
            request_id=request.request_id,
            fingerprint=fingerprint,
        )
        begun = asyncio.Event()

        async def work(progress: Progress) -> Message:
            await begun.wait()
            return await self._work(project, stored.dataset_id, now_us, progress)

        metadata = _metadata(stored.name, Stage("planning"), now_us)
        operation = await runner.start(KIND, project, metadata, work)
        stored = replace(stored, operation=operation.name)
        try:
            await around.store.add(project, stored)
        except AlreadyExists:
            await runner.cancel(project, operation.name)
            made = await around.store.repeated(project, request.request_id, fingerprint)
            if made is None:
                raise
            return await runner.get(project, made.operation)
        except BaseException:
            await runner.cancel(project, operation.name)
            raise
        finally:
            begun.set()
        return operation

    async def resume(self, operation: operations_pb2.Operation, project: str, progress: Progress) -> Message:
        """Goes on with a training set that a restart interrupted: from its beginning, as it was pinned."""
        metadata = messages.DatasetMetadata()
        operation.metadata.Unpack(metadata)
        await self._around.projects.wait_opened()
        start_us = metadata.start_time.seconds * 1_000_000 + metadata.start_time.nanos // 1_000
        return await self._work(project, metadata.name.removeprefix("datasets/"), start_us, progress)

    async def _work(self, project: str, dataset_id: str, start_us: int, progress: Progress) -> Message:
        stored = await self._around.store.get(project, dataset_id)
        try:
            stored = await self._compute(project, stored, start_us, progress)
        except asyncio.CancelledError:
            if not self._around.projects.closing:
                await self._end(project, stored, State.CANCELLED)
            raise
        except InklingError as error:
            await self._end(project, stored, State.FAILED, error.message)
            raise
        except Exception:
            await self._end(project, stored, State.FAILED, "unexpected error")
            raise
        return dataset_message(stored)

    async def _end(self, project: str, stored: StoredDataset, state: State, failure: str = "") -> None:
        now = await self._around.store.get(project, stored.dataset_id)
        ended = replace(now, state=state, failure=failure, update_time_us=self._around.clock.now_us())
        await self._around.store.replace(project, ended)
        await self.remove_files(project, stored.dataset_id)

    async def _compute(self, project: str, stored: StoredDataset, start_us: int, progress: Progress) -> StoredDataset:
        for attempt in range(1, _TRIES + 1):
            try:
                return await self._compute_once(project, stored, start_us, progress)
            except ArchiveChangedError as error:
                if attempt == _TRIES:
                    raise Aborted(
                        "the archive changed while it was read: try again", reason="ARCHIVE_CHANGED"
                    ) from error
        raise AssertionError("the last attempt returns or raises")

    async def _compute_once(
        self, project: str, stored: StoredDataset, start_us: int, progress: Progress
    ) -> StoredDataset:
        around = self._around
        message = from_text(stored.spec)
        resolved = await self.check(project, message)
        listing = await around.listings.listing(project)
        spec = await self._pin(project, resolved, listing)
        pinned = pinned_message(message, spec, resolved.definitions_sha256)
        stored = replace(stored, spec=spec_text(pinned), inputs=input_of(spec))
        await around.store.replace(project, stored)
        path = None
        if stored.inputs:
            path = await around.blobs.open_path(input_key(project, stored.inputs))
        job = make_job(resolved, spec, listing, around.archive_root, path, around.insights)
        records = records_of(listing, spec.up_to_position)

        async def put(name: str, content: bytes) -> None:
            await around.blobs.put(f"{folder(project)}/{stored.dataset_id}/{name}", content)

        async def report(stage: Stage) -> None:
            await progress(_metadata(stored.name, stage, start_us))

        described = {"spec": to_document(pinned), "definitions_sha256": resolved.definitions_sha256}
        manifest = await build(job, self._workers(records), put, report, described=described, records=records)
        content = await around.blobs.get(f"{folder(project)}/{stored.dataset_id}/{MANIFEST}")
        own = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        text = json.dumps(manifest | {"manifest_file": own}, ensure_ascii=False)
        ready = replace(stored, state=State.READY, manifest=text, update_time_us=around.clock.now_us())
        await around.store.replace(project, ready)
        return ready

    async def _pin(self, project: str, resolved: Resolved, listing: ArchiveListing) -> DatasetSpec:
        around, settings = self._around, self._around.settings
        many = records_of(listing, listing.position) >= settings.dataset_ray_events
        spec = await pin(
            resolved,
            listing,
            around.feed,
            around.clock,
            blobs_root=around.archive_root,
            partition_events=settings.dataset_partition_events,
            least_partitions=settings.ray_cpus if many else 1,
        )
        if isinstance(spec.keys, SegmentKeys) and not spec.keys.input_id:
            assert around.segments is not None, "checked before"
            key, members = await around.segments.members(project, spec.keys.segment)
            if key != spec.attribute_key:
                raise InvalidArgument(
                    f"the segment is of {key}, the features are of {spec.attribute_key}", reason="BAD_DATASET"
                )
            input_id = await self.keep_input(project, *await asyncio.to_thread(_table_of, members))
            spec = replace(spec, keys=replace(spec.keys, input_id=input_id))
        return spec

    def _workers(self, records: int) -> Workers:
        settings = self._around.settings
        if records < settings.dataset_ray_events:
            return ThreadWorkers()
        return RayWorkers(self._around.ray, settings.ray_cpus)

    async def keep_input(self, project: str, input_id: str, content: bytes) -> str:
        """Keeps an uploaded table."""
        key = input_key(project, input_id)
        if not await self._around.blobs.exists(key):
            await self._around.blobs.put(key, content)
        return input_id

    async def remove_files(self, project: str, dataset_id: str) -> None:
        """Removes the files of a training set."""
        for blob in await self._around.blobs.list(f"{folder(project)}/{dataset_id}/"):
            await self._around.blobs.delete(blob.key)


def _table_of(keys: Sequence[str]) -> tuple[str, bytes]:
    return to_bytes(of_keys(list(keys)))


def _metadata(name: str, stage: Stage, start_us: int) -> messages.DatasetMetadata:
    metadata = messages.DatasetMetadata(
        name=name,
        stage=stage.name,
        done_count=stage.done,
        total_count=stage.total,
        rate=stage.rate,
        start_time=timestamp(start_us),
    )
    if stage.rate and stage.total > stage.done:
        metadata.eta.CopyFrom(duration(int((stage.total - stage.done) / stage.rate * 1e6)))
    return metadata
