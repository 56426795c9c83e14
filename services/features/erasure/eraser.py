"""Erases a subject: asks ingest, waits until what it wrote is applied, then clears what features keeps beside the log.

Ingest appends deletions and a marker; the projection forgets the key when it applies the marker, live or whenever it
reads the log again (`services.following.erasing`). What is done here is the rest, and all of it can be done again: a
restart goes on at the stage it had reached.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from services.features.erasure.forgetting import Forgets
from services.features.erasure.insights_client import Elsewhere
from services.features.project import Project
from services.features.projects import Projects
from services.kernel.erasing import subject_hash
from services.runtime.blobs import BlobStore
from services.runtime.clocks import Clock
from services.runtime.erasures import Erased, Erasure, ErasureStore, Receipt
from services.runtime.errors import FailedPrecondition

Report = Callable[[str], Awaitable[None]]
"""Told the stage that begins."""
_POLL_SECONDS = 0.1
_MADE_FOR_OTHERS = ("exports/{project}/",)
"""Where files are that name keys and are not changed."""


class LogErasures(Protocol):
    """Ingest's part."""

    async def erase(self, project: str, attribute_key: str, value: str, request_id: str) -> Receipt:
        """Erases a subject from the log, the archive and the dead letters; the same request gives the same receipt."""
        ...


class NoLogErasures:
    """Where there is no ingest to ask."""

    async def erase(self, project: str, attribute_key: str, value: str, request_id: str) -> Receipt:
        """Refuses."""
        raise FailedPrecondition("there is no log to erase from", reason="NOT_READY")


class FeaturesEraser:
    """Erases subjects of all projects."""

    def __init__(
        self,
        projects: Projects,
        log: LogErasures,
        forgets: Sequence[Forgets],
        blobs: BlobStore,
        store: ErasureStore,
        clock: Clock,
        insights: Elsewhere | None = None,
    ) -> None:
        self._projects = projects
        self._log = log
        self._forgets = tuple(forgets)
        self._blobs = blobs
        self._store = store
        self._clock = clock
        self._insights = insights

    async def begin(self, project: str, attribute_key: str, value: str, request_id: str) -> Erasure:
        """Stores that a subject is to be erased; `run` does it. A `request_id` that came before gives that erasure."""
        subject = subject_hash(project, attribute_key, value)
        return await self._store.begin(project, attribute_key, value, subject, request_id, self._clock.now_us())

    async def get(self, project: str, erasure_id: str) -> Erasure:
        """An erasure as it is now; raises NotFound."""
        return await self._store.get(project, erasure_id)

    async def run(self, project: str, erasure_id: str, report: Report) -> Receipt:
        """Erases, or goes on with it; gives the receipt. Once it is done, it gives the same receipt."""
        await self._projects.wait_opened()
        erasure = await self._store.get(project, erasure_id)
        if erasure.receipt is None:
            await self._erase(erasure, report)
        await self._store.scrub()
        receipt = (await self._store.get(project, erasure_id)).receipt
        assert receipt is not None, "it was stored"
        return receipt

    async def _erase(self, erasure: Erasure, report: Report) -> None:
        value = erasure.value
        assert value is not None, "the value is kept until there is a receipt"
        project = await self._projects.get(erasure.project)
        state: dict[str, Any] = dict(erasure.state)
        if "ingest" not in state:
            if self._insights is not None:
                await report("hold")
                held = await self._insights.hold(erasure.project, erasure.attribute_key, value)
                await self._note_parts(erasure, state, held)
            await report("ingest")
            # The marker may be applied before ingest has answered.
            self._expect(project, erasure.subject, value)
            # The same id again after a restart: ingest goes on, or gives its receipt.
            done = await self._log.erase(
                erasure.project, erasure.attribute_key, value, f"features:{erasure.erasure_id}"
            )
            state["ingest"] = done.to_json()
            await self._store.note(erasure, state)
        ingest = Receipt.from_json(state["ingest"])
        await report("apply")
        keys = await self._applied(project, erasure.subject, value, ingest.position)
        await report("forget")
        stores = [Erased("state", keys, "projections that forgot the key")]
        for each in self._forgets:
            count = await each.forget(erasure.project, erasure.attribute_key, value)
            # What a run before a crash has forgotten counts too.
            state[each.store] = state.get(each.store, 0) + count
            await self._store.note(erasure, state)
            stores.append(Erased(each.store, state[each.store], each.unit))
        if self._insights is not None:
            await report("insights")
            parts = await self._insights.forget(erasure.project, erasure.attribute_key, value, ingest.position)
            await self._note_parts(erasure, state, parts)
            stores += [Erased(part.store, state[part.store], part.unit) for part in parts]
        await report("snapshot")
        state["snapshots"] = state.get("snapshots", 0) + await project.renew_snapshots(ingest.position)
        await self._store.note(erasure, state)
        stores.append(Erased("snapshots", state["snapshots"], "snapshots of before, deleted"))
        files = await self._files(erasure.project)
        notes = list(ingest.notes)
        if files:
            notes.append("the files listed were made before: delete those that may hold the subject")
        await self._store.finish(
            erasure,
            Receipt(
                name=erasure.name,
                attribute_key=erasure.attribute_key,
                subject=erasure.subject,
                stores=(*ingest.stores, *stores),
                marker_position=ingest.marker_position,
                position=ingest.position,
                start_time_us=erasure.create_time_us,
                finish_time_us=self._clock.now_us(),
                files=tuple(files),
                notes=tuple(notes),
                ingest_digest=ingest.digest,
            ),
        )
        if project.projection is not None:
            project.projection.erasing.pop(erasure.subject, None)

    async def _note_parts(self, erasure: Erasure, state: dict[str, Any], parts: Sequence[Erased]) -> None:
        """What a run before a crash has forgotten counts too."""
        for part in parts:
            state[part.store] = state.get(part.store, 0) + part.count
        await self._store.note(erasure, state)

    def _expect(self, project: Project, subject: str, value: str) -> None:
        if project.projection is not None:
            project.projection.erasing[subject] = value

    async def _applied(self, project: Project, subject: str, value: str, position: int) -> int:
        """Waits until the project's projection has applied a position; gives 1, or 0 when it has none."""
        while project.projection is not None or project.catalog.published:
            self._expect(project, subject, value)
            if project.position >= position:
                return 1
            await asyncio.sleep(_POLL_SECONDS)
        return 0

    async def _files(self, project: str) -> list[str]:
        prefixes = [prefix.format(project=project) for prefix in _MADE_FOR_OTHERS]
        found = [await self._blobs.list(prefix) for prefix in prefixes]
        return sorted(blob.key for blobs in found for blob in blobs)
