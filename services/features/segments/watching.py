"""Follows a segment: the journal's entries of its stream, after a place that the client remembers."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from services.features.segments.live import LiveSegment
from services.features.segments.service import ProjectSegments
from services.runtime.errors import NotFound, OutOfRange, Violation
from services.runtime.journal import TOKEN_EXPIRED, ChangeJournal

CHUNK = 500
"""Changes in one message, at most."""
_LOOK_SECONDS = 2.0
PRESENT = "present"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a watcher stands: all changes of this life of the segment up to this sequence were sent."""

    uid: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A change as a watcher sees it."""

    key_value: str
    change: str
    """entered, left or present."""
    instant_us: int
    position: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """Some changes, and where to go on after them; None while the present members are being sent."""

    changes: tuple[Seen, ...]
    place: Place | None


class SegmentWatcher:
    """One stream of changes."""

    def __init__(
        self, segments: ProjectSegments, journal: ChangeJournal, name: str, key_values: frozenset[str]
    ) -> None:
        self._segments = segments
        self._journal = journal
        self._name = name
        self._wanted = key_values

    async def messages(self, resume: Place | None, *, send_initial: bool) -> AsyncGenerator[Message, None]:
        """The changes, without end. The first message tells at least where to go on.

        Raises OutOfRange when the place to go on from is not kept any more, NotFound once the segment is deleted.
        """
        live = self._segments.get(self._name)
        if resume is None:
            live = await self._segments.current(self._name)
            # One step, in which nothing is published: the members, and the sequence that they hold.
            place = Place(live.definition.uid, self._segments.keeper.sequence)
            present = self._present(live) if send_initial else []
            for start in range(0, max(len(present), 1), CHUNK):
                last = start + CHUNK >= len(present)
                yield Message(tuple(present[start : start + CHUNK]), place if last else None)
        else:
            place = resume
        project, wanted = self._segments.project.name, self._wanted
        while True:
            if self._segments.keeper.live.get(live.definition.segment_id) is not live:
                raise NotFound(f"{self._name} was deleted", reason="NOT_FOUND")
            if live.definition.uid != place.uid:
                hint = "start anew, without a token and with the present state"
                raise OutOfRange(
                    f"the changes of the segment were lost or are of another: {hint}",
                    reason=TOKEN_EXPIRED,
                    violations=(Violation("resume_token", hint, TOKEN_EXPIRED),),
                )
            page = await self._journal.read(project, [live.definition.stream], place.sequence, CHUNK)
            place = Place(place.uid, page.reached)
            changes = tuple(
                Seen(each.key_value, each.change, each.instant_us, each.position)
                for each in (entry.change for entry in page.entries)
                if not wanted or each.key_value in wanted
            )
            if changes:
                yield Message(changes, place)
            if page.complete:
                await self._journal.wait(project, place.sequence, _LOOK_SECONDS)

    def _present(self, live: LiveSegment) -> list[Seen]:
        universe, members = live.universe, live.members
        if self._wanted:
            found = [(key, members.since_us(universe.find(key))) for key in sorted(self._wanted)]
            return [Seen(key, PRESENT, since) for key, since in found if since is not None]
        numbers = members.numbers()
        keys, since_us = universe.texts(numbers).to_pylist(), members.since(numbers).tolist()
        return [Seen(key, PRESENT, since) for key, since in zip(keys, since_us, strict=True)]
