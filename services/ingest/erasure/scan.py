"""Finds what belongs to a subject, in the log and in the archive.

An event belongs to a subject when its version in effect names it: a correction may have given it to somebody else. Such
an event is not deleted; only the records that still name the subject are emptied.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.ingest.archive.erasing import ArchiveEraser
from services.ingest.erasure.subject import Subject
from services.ingest.log.base import EventLog, LogBatch
from services.kernel.columns import EventBatch, key_column
from services.kernel.dedup import IGNORED, RETRACTED, Deduplicator
from services.kernel.erasing import ERASED_TYPE, has_ids, names_subject, of_type

_READ_BYTES = 16 * 1024 * 1024
_COLUMNS = ("event_id", "received_at", "operation", "revision", "fingerprint")


@dataclass(slots=True)
class Found:
    """What a scan found."""

    ids: set[str] = field(default_factory=set)
    """Of the records that name the subject."""
    owned: set[str] = field(default_factory=set)
    """Those among them whose events are the subject's: they are to be deleted."""
    log_records: int = 0
    """Records of the log that name the subject."""
    others: bool = False
    """Whether records that do not name the subject are versions of its events."""


class Rows(NamedTuple):
    """Which rows of a batch an erasure changes."""

    named: NDArray[np.bool_]
    """They name the subject."""
    others: NDArray[np.bool_]
    """They do not, but are versions of its events."""
    deleted: NDArray[np.bool_]
    """They are versions of its events."""


def rows_of(batch: EventBatch, subject: Subject, owned: Collection[str]) -> Rows:
    """What of a batch belongs to a subject that owns events."""
    named = names_subject(batch, subject.attribute_key, subject.value)
    deleted = has_ids(batch, owned) & ~of_type(batch, ERASED_TYPE)
    return Rows(named, deleted & ~named, deleted)


class Scanner:
    """Looks through a project's log and archive."""

    def __init__(self, log: EventLog, archive: ArchiveEraser) -> None:
        self._log = log
        self._archive = archive

    async def batches(self, project: str, after: int, up_to: int) -> AsyncIterator[list[LogBatch]]:
        """The log's batches that begin in (after, up_to] or reach into it, some at a time."""
        while after < up_to:
            found = await self._log.read(project, after, _READ_BYTES)
            found = [batch for batch in found if batch.first_position <= up_to]
            if not found:
                return
            after = found[-1].last_position
            yield found

    async def find(self, subject: Subject, after: int, up_to: int, horizon_us: int) -> Found:
        """What names the subject after a position, up to another; `owned` is true of the whole log up to there."""
        found = Found()
        async for batches in self.batches(subject.project, after, up_to):
            for ids in await asyncio.to_thread(_named, batches, subject, up_to):
                found.ids.update(ids)
                found.log_records += len(ids)
        if after == 0:
            async for positions, events in self._archive.read(subject.project, subject.attribute_key, up_to):
                named = names_subject(events, subject.attribute_key, subject.value)
                found.ids.update(_ids(events, named & (positions <= up_to)))
        if found.ids:
            await self._judge(found, subject, up_to, horizon_us)
        return found

    async def _judge(self, found: Found, subject: Subject, up_to: int, horizon_us: int) -> None:
        """Says which of the events found are the subject's: by all of their versions."""
        versions: list[_Versions] = []
        async for batches in self.batches(subject.project, 0, up_to):
            versions += await asyncio.to_thread(_versions, batches, subject, found.ids, up_to)
        known = {position for each in versions for position in each.positions.tolist()}
        async for positions, events in self._archive.read(subject.project, subject.attribute_key, up_to):
            kept = ~np.isin(positions, np.array(sorted(known), np.int64)) & (positions <= up_to)
            versions += _select(positions, events, subject, found.ids, kept)
        last = _last_effective(versions, horizon_us)
        found.owned = {event_id for event_id, named in last.items() if named}
        found.others = any(event_id in found.owned for each in versions for event_id in _ids(each.events, ~each.named))


class _Versions(NamedTuple):
    positions: NDArray[np.int64]
    events: EventBatch
    named: NDArray[np.bool_]


def _named(batches: list[LogBatch], subject: Subject, up_to: int) -> list[list[str]]:
    found = []
    for batch in batches:
        events = EventBatch.from_ipc(batch.data)
        mask = names_subject(events, subject.attribute_key, subject.value)
        # What comes after, in the same batch, is not looked for.
        mask[up_to - batch.first_position + 1 :] = False
        if mask.any():
            found.append(_ids(events, mask))
    return found


def _ids(events: EventBatch, mask: NDArray[np.bool_]) -> list[str]:
    if not mask.any():
        return []
    column: pa.Array = events.column("event_id")
    ids: list[str] = column.filter(pa.array(mask)).to_pylist()
    return ids


def _versions(batches: list[LogBatch], subject: Subject, ids: Collection[str], up_to: int) -> list[_Versions]:
    found: list[_Versions] = []
    for batch in batches:
        events = EventBatch.from_ipc(batch.data)
        positions = np.arange(batch.first_position, batch.last_position + 1)
        found += _select(positions, events, subject, ids, positions <= up_to)
    return found


def _select(
    positions: NDArray[np.int64], events: EventBatch, subject: Subject, ids: Collection[str], kept: NDArray[np.bool_]
) -> list[_Versions]:
    """The records of some ids; not those that an erasure itself wrote or emptied."""
    mask = kept & has_ids(events, ids) & ~of_type(events, ERASED_TYPE)
    if not mask.any():
        return []
    wanted = [name for name in (*_COLUMNS, key_column(subject.attribute_key)) if name in events.names]
    slim = EventBatch(events.record_batch.select(wanted)).take(mask)
    return [_Versions(positions[mask], slim, names_subject(slim, subject.attribute_key, subject.value))]


def _last_effective(versions: list[_Versions], horizon_us: int) -> dict[str, bool]:
    """By id, whether the version in effect names the subject; deleted ids are not in it."""
    rows = sorted(
        (position, i, row) for i, each in enumerate(versions) for row, position in enumerate(each.positions.tolist())
    )
    seen = Deduplicator(horizon_us)
    last: dict[str, bool] = {}
    start = 0
    while start < len(rows):
        # Runs of rows that follow each other in one batch are resolved together.
        end, source = start + 1, rows[start][1]
        while end < len(rows) and rows[end][1] == source:
            end += 1
        places = np.array([row for _, _, row in rows[start:end]])
        events = versions[source].events.take(places)
        actions = seen.resolve(events).actions.tolist()
        ids = events.column("event_id")
        for action, event_id, named in zip(
            actions, [] if ids is None else ids.to_pylist(), versions[source].named[places].tolist(), strict=True
        ):
            if action == RETRACTED:
                last.pop(event_id, None)
            elif action != IGNORED:
                last[event_id] = named
        start = end
    return last
