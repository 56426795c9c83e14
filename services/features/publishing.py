"""Publishing as a long-running operation, which waits until the project serves the version and tells how far it is."""

import asyncio

from google.longrunning import operations_pb2
from google.protobuf.message import Message

from inkling.features.v1 import definition_service_pb2 as messages
from services.features.definitions import GroupState
from services.features.messages import stored_group_message
from services.features.project import Filling
from services.features.projects import Projects
from services.features.proto import duration, timestamp
from services.runtime.clocks import Clock
from services.runtime.errors import Aborted, NotFound
from services.runtime.operations import OperationRunner, Progress

KIND = "publish"
REPORT_SECONDS = 0.5


class Publisher:
    """Publishes groups."""

    def __init__(self, projects: Projects, clock: Clock) -> None:
        self._projects = projects
        self._clock = clock

    async def publish(self, runner: OperationRunner, project_name: str, name: str) -> operations_pb2.Operation:
        """Marks a draft as published and starts to fill it; returns the operation that tells when it is served.

        Raises FailedPrecondition when it is published already.
        """
        project = await self._projects.get(project_name)
        await project.catalog.set_state(name, GroupState.BACKFILLING)
        project.fill(project.catalog.group(name))
        return await self.follow(runner, project_name, name)

    async def follow(self, runner: OperationRunner, project_name: str, name: str) -> operations_pb2.Operation:
        """Another operation that waits for a version that is published already."""
        start_us = self._clock.now_us()

        async def work(progress: Progress) -> Message:
            return await self._work(project_name, name, start_us, progress)

        operation = await runner.start(KIND, project_name, self._metadata(name, None, start_us), work)
        # Let the work begin: one that is cancelled before cannot undo what it would have undone.
        await asyncio.sleep(0)
        return operation

    async def resume(self, operation: operations_pb2.Operation, project_name: str, progress: Progress) -> Message:
        """Goes on with a publication that a restart interrupted."""
        metadata = messages.PublishMetadata()
        operation.metadata.Unpack(metadata)
        await self._projects.wait_opened()
        start_us = metadata.start_time.seconds * 1_000_000 + metadata.start_time.nanos // 1_000
        return await self._work(project_name, metadata.name, start_us, progress)

    async def _work(self, project_name: str, name: str, start_us: int, progress: Progress) -> Message:
        project = await self._projects.get(project_name)
        try:
            stored = project.catalog.group(name)
        except NotFound as error:
            raise Aborted(f"{name} was deleted", reason="DELETED") from error
        if stored.state is GroupState.BACKFILLING:
            filling = project.filling(name) or project.fill(stored)
            try:
                await self._wait(filling, start_us, progress)
            except asyncio.CancelledError:
                if self._projects.closing:
                    raise
                # Cancelled by somebody: that it was published is undone, unless it is served by now.
                if project.catalog.group(name).state is not GroupState.SERVING:
                    await project.catalog.set_state(name, GroupState.DRAFT)
                    await project.abandon(name)
                    raise
        return stored_group_message(project.catalog.group(name))

    async def _wait(self, filling: Filling, start_us: int, progress: Progress) -> None:
        while not filling.ended.is_set():
            try:
                async with asyncio.timeout(REPORT_SECONDS):
                    await filling.ended.wait()
            except TimeoutError:
                await progress(self._metadata(filling.name, filling, start_us))
        if filling.error is not None:
            raise filling.error
        await progress(self._metadata(filling.name, filling, start_us))

    def _metadata(self, name: str, filling: Filling | None, start_us: int) -> messages.PublishMetadata:
        metadata = messages.PublishMetadata(name=name, stage="backfill", start_time=timestamp(start_us))
        if filling is not None:
            done = filling.progress
            metadata.stage = done.stage
            metadata.done_count, metadata.total_count = done.done, max(done.total, done.done)
            metadata.rate = done.rate
            if done.rate:
                metadata.eta.CopyFrom(duration(int((metadata.total_count - done.done) / done.rate * 1e6)))
        return metadata
