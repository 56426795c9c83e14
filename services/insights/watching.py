"""Follows insights: the journal's entries of their streams, after a place that the client remembers."""

import json
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass

from services.insights.project import Project
from services.runtime.journal import Change, ChangeJournal

CHUNK = 500
"""Changes in one message, at most."""
_LOOK_SECONDS = 2.0
PRESENT = "present"


@dataclass(frozen=True, slots=True)
class Seen:
    """A change as a watcher sees it."""

    insight_id: str
    customer: str
    change: str
    """applied, withdrawn, failed or present."""
    instant_us: int | None
    position: int
    version: int


@dataclass(frozen=True, slots=True)
class Message:
    """Some changes, and the place to go on after them; None while the present is being sent."""

    changes: tuple[Seen, ...]
    sequence: int | None


async def watch(
    project: Project,
    journal: ChangeJournal,
    insight_ids: Collection[str],
    customers: Collection[str],
    resume: int | None,
    *,
    send_initial: bool,
) -> AsyncGenerator[Message, None]:
    """The changes, without end. The first message tells at least where to go on.

    Raises OutOfRange when the place to go on from is not kept any more.
    """
    if resume is None:
        async with project.changing():
            # One step, in which nothing is told: who it applies to, and the sequence that this is.
            place = project.told_sequence
            present = _present(project, insight_ids, customers) if send_initial else []
        if place is None:
            place = await journal.newest(project.name)
        for start in range(0, max(len(present), 1), CHUNK):
            last = start + CHUNK >= len(present)
            yield Message(tuple(present[start : start + CHUNK]), place if last else None)
    else:
        place = resume
    while True:
        streams = list(insight_ids) or project.catalog.streams()
        page = await journal.read(project.name, streams, place, CHUNK)
        place = page.reached
        changes = tuple(
            seen_of(each)
            for each in (entry.change for entry in page.entries)
            if not customers or each.key_value in customers
        )
        if changes:
            yield Message(changes, place)
        if page.complete:
            await journal.wait(project.name, place, _LOOK_SECONDS)


def seen_of(change: Change) -> Seen:
    """A change as the journal has it."""
    version = int(json.loads(change.detail or "{}").get("version", 0))
    return Seen(change.stream, change.key_value, change.change, change.instant_us, change.position, version)


def _present(project: Project, insight_ids: Collection[str], customers: Collection[str]) -> list[Seen]:
    insights = project.serving()
    found = []
    for insight_id, held in sorted(insights.held.items()):
        if insight_ids and insight_id not in insight_ids:
            continue
        for customer, since_us in insights.applied(insight_id):
            if not customers or customer in customers:
                found.append(Seen(insight_id, customer, PRESENT, since_us, 0, held.insight.version))
    return found
