"""Erases a subject, in steps that can be done again.

1. Its events are found, deletions of their ids are appended to the log, then a marker. What came in between is found
   and deleted after the marker. How many there were is noted.
2. The records are emptied where they stand in the log, and taken out of the archive, until a whole search finds none.
3. Dead letters that carry the subject are deleted.
4. The log's and the database's own files are scrubbed, and the receipt takes the place of the value.

A crash anywhere is repaired by beginning again at the last noted step. Nothing is emptied before its deletion is in the
log: a follower that applied a record learns that it is gone, whatever it reads next.
"""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.ingest.archive.erasing import ArchiveEraser
from services.ingest.dead_letters import DeadLetters
from services.ingest.erasure.letters import carries
from services.ingest.erasure.scan import Found, Scanner, rows_of
from services.ingest.erasure.subject import Subject
from services.ingest.log.base import EventLog, LogBatch
from services.ingest.projects import ProjectClock, Projects
from services.kernel.columns import EventBatch, to_ipc
from services.kernel.erasing import deletions, emptied, marker
from services.runtime.clocks import Clock
from services.runtime.erasures import Erased, Erasure, ErasureStore, Receipt

Report = Callable[[str], Awaitable[None]]
"""Told the stage that begins."""
_CHUNK = 10_000
_LETTERS = 500


class Eraser:
    """Erases subjects of all projects; several subjects of one project one after the other."""

    def __init__(
        self,
        log: EventLog,
        archive: ArchiveEraser,
        dead_letters: DeadLetters,
        projects: Projects,
        store: ErasureStore,
        clock: Clock,
    ) -> None:
        self._log = log
        self._archive = archive
        self._dead_letters = dead_letters
        self._projects = projects
        self._store = store
        self._clock = clock
        self._scanner = Scanner(log, archive)
        # Both rewrite whole files: erasures that wait for it at the same time share it.
        self._scrub_log, self._scrub_store = Shared(log.scrub), Shared(store.scrub)
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def begin(self, subject: Subject, request_id: str) -> Erasure:
        """Stores that a subject is to be erased; `run` does it. A `request_id` that came before gives that erasure."""
        return await self._store.begin(
            subject.project, subject.attribute_key, subject.value, subject.hash, request_id, self._clock.now_us()
        )

    async def get(self, project: str, erasure_id: str) -> Erasure:
        """An erasure as it is now; raises NotFound."""
        return await self._store.get(project, erasure_id)

    async def run(self, project: str, erasure_id: str, report: Report) -> Receipt:
        """Erases, or goes on with it; gives the receipt. Once it is done, it gives the same receipt."""
        erasure = await self._store.get(project, erasure_id)
        if erasure.receipt is None:
            async with self._turns[project]:
                erasure = await self._store.get(project, erasure_id)
                state = await self._erase(erasure, report)
            await report("scrub")
            await self._scrub_log.run()
            if erasure.receipt is None:
                await self._store.finish(erasure, self._receipt(erasure, state))
        # Also after a crash in between: the receipt is there, and what it replaced may still be in a file.
        await self._scrub_store.run()
        receipt = (await self._store.get(project, erasure_id)).receipt
        assert receipt is not None, "it was stored"
        return receipt

    async def _erase(self, erasure: Erasure, report: Report) -> dict[str, Any]:
        state: dict[str, Any] = dict(erasure.state)
        if erasure.value is None:
            return state  # it was done meanwhile
        subject = Subject(erasure.project, erasure.attribute_key, erasure.value)
        if "position" not in state:
            await report("mark")
            state |= await self._mark(subject)
            await self._store.note(erasure, state)
        await report("empty")
        await self._empty(erasure, subject, state)
        await report("dead_letters")
        await self._delete_letters(erasure, subject, state)
        return state

    def _receipt(self, erasure: Erasure, state: dict[str, Any]) -> Receipt:
        stores = (
            Erased("events", state["events"], "events"),
            Erased("log", state["log_records"], "records"),
            Erased("archive", state.get("archive_rows", 0), "rows"),
            Erased("archive_files", state.get("archive_files", 0), "files written anew"),
            Erased("dead_letters", state.get("dead_letters", 0), "letters"),
        )
        notes = []
        if state["telling_ids"]:
            notes.append(
                f"{state['telling_ids']} event ids contain the value: ids are kept, so that these events stay deleted"
            )
        return Receipt(
            name=erasure.name,
            attribute_key=erasure.attribute_key,
            subject=erasure.subject,
            stores=stores,
            marker_position=state["marker"],
            position=state["position"],
            start_time_us=erasure.create_time_us,
            finish_time_us=self._clock.now_us(),
            notes=tuple(notes),
        )

    # 1. Deletions and the marker.

    async def _mark(self, subject: Subject) -> dict[str, Any]:
        head = await self._log.head(subject.project)
        if head == 0:
            return {"events": 0, "log_records": 0, "telling_ids": 0, "marker": 0, "position": 0}
        horizon_us = (await self._projects.get(subject.project)).horizon_us
        found = await self._scanner.find(subject, 0, head, horizon_us)
        await self._delete(subject.project, found.owned)
        at_us, now_us = await self._times(subject.project)
        event_id = f"erase_subject:{subject.hash}:{secrets.token_hex(8)}"
        mark = marker(event_id, subject.attribute_key, subject.hash, at_us, now_us)
        marked = position = await self._append(subject.project, mark, at_us, now_us)
        late = await self._scanner.find(subject, head, marked, horizon_us)
        if late.ids:
            position = max(position, await self._delete(subject.project, late.owned - found.owned))
        ids = found.ids | late.ids
        return {
            "events": len(ids),
            "log_records": found.log_records + late.log_records,
            "telling_ids": sum(subject.value in event_id for event_id in ids),
            "marker": marked,
            "position": position,
        }

    async def _delete(self, project: str, event_ids: Collection[str]) -> int:
        """Appends deletions; the position of the last, or 0."""
        ordered, position = sorted(event_ids), 0
        for start in range(0, len(ordered), _CHUNK):
            at_us, now_us = await self._times(project)
            batch = deletions(ordered[start : start + _CHUNK], at_us, now_us)
            position = await self._append(project, batch, at_us, now_us)
        return position

    async def _times(self, project: str) -> tuple[int, int]:
        """The project's own now, and the wall's.

        The records of an erasure are as new as the newest event, so that they are not trimmed before it. Where the log
        is the clock, the marker also keeps it where the erased events may have brought it.
        """
        now_us = self._clock.now_us()
        if (await self._projects.get(project)).clock is ProjectClock.LOG:
            newest = (await self._log.stats(project)).max_occurred_us
            return now_us if newest is None else newest, now_us
        return now_us, now_us

    async def _append(self, project: str, batch: EventBatch, at_us: int, now_us: int) -> int:
        placed = await self._log.append(
            project,
            to_ipc(batch.record_batch, None),
            batch.num_rows,
            min_occurred_us=at_us,
            max_occurred_us=at_us,
            received_us=now_us,
        )
        return placed.last

    # 2. The log and the archive.

    async def _empty(self, erasure: Erasure, subject: Subject, state: dict[str, Any]) -> None:
        horizon_us = (await self._projects.get(subject.project)).horizon_us
        await self._archive.tidy(subject.project)
        while True:
            found = await self._scanner.find(subject, 0, state["marker"], horizon_us)
            if not found.ids:
                return
            # Other versions of its events first: once the records that name it are empty, nobody finds them any more.
            if found.others:
                await self._empty_log(subject, found, state["marker"], others=True)
            await self._empty_log(subject, found, state["marker"], others=False)
            rows = partial(_any_row, subject=subject, owned=found.owned)
            async for taken in self._archive.erase(subject.project, state["marker"], rows):
                if taken.files:
                    state["archive_rows"] = state.get("archive_rows", 0) + taken.rows
                    state["archive_files"] = state.get("archive_files", 0) + taken.files
                    await self._store.note(erasure, state)

    async def _empty_log(self, subject: Subject, found: Found, up_to: int, *, others: bool) -> None:
        async for batches in self._scanner.batches(subject.project, 0, up_to):
            for before in batches:
                after = await asyncio.to_thread(_emptied, before, subject, found.owned, up_to, others)
                # False: somebody else replaced it meanwhile. The next search finds what is left.
                if after is not None:
                    await self._log.replace(subject.project, before, after)

    # 3. Dead letters.

    async def _delete_letters(self, erasure: Erasure, subject: Subject, state: dict[str, Any]) -> None:
        before: tuple[int, str] | None = None
        while page := await self._dead_letters.page(subject.project, _LETTERS, before, None):
            before = (page[-1].create_time_us, page[-1].letter_id)
            kept = await self._dead_letters.payloads(subject.project, [letter.letter_id for letter in page])
            carrying = [letter.letter_id for letter in kept if carries(letter, subject)]
            if carrying:
                deleted = await self._dead_letters.delete(subject.project, carrying)
                state["dead_letters"] = state.get("dead_letters", 0) + deleted
                await self._store.note(erasure, state)


class Shared:
    """Work that is the same for all who want it done now: those who come before it begins share one run."""

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = work
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Returns after a whole run that began after this call; raises what it raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._once())
        await asyncio.shield(self._next)

    async def _once(self) -> None:
        async with self._turn:
            self._next = None
            await self._work()


def _any_row(events: EventBatch, subject: Subject, owned: Collection[str]) -> NDArray[np.bool_]:
    rows = rows_of(events, subject, owned)
    return rows.named | rows.deleted


def _emptied(before: LogBatch, subject: Subject, owned: Collection[str], up_to: int, others: bool) -> LogBatch | None:
    """A batch of the log without the content of some rows; None when there are none."""
    events = EventBatch.from_ipc(before.data)
    rows = rows_of(events, subject, owned)
    chosen = rows.others if others else rows.named
    # What came after the marker, in the same batch, is a new life.
    chosen[max(0, up_to - before.first_position + 1) :] = False
    if not chosen.any():
        return None
    made = emptied(events, chosen, chosen & rows.deleted)
    occurred = made.occurred_at
    return replace(
        before,
        data=to_ipc(made.record_batch, None),
        min_occurred_us=int(occurred.min()),
        max_occurred_us=int(occurred.max()),
    )
