"""What was refused, kept until it is repaired or thrown away."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from services.ingest.compiled.faults import Refusal
from services.ingest.store import DeadLetterRow, DeadLetterStore
from services.runtime.clocks import Clock
from services.runtime.errors import NotFound

_MAX_TEXT = 400


@dataclass(frozen=True)
class Refused:
    """One refused event or line, with what was sent."""

    index: int
    """Its place in the request, or its line."""
    refusal: Refusal
    event_id: str = ""
    event: bytes | None = None
    """The bytes of the event as they were sent."""
    csv_line: bytes | None = None

    @property
    def letter_id(self) -> str:
        """Derived from what was sent: sending it again adds no second letter."""
        kind, content = (b"event", self.event) if self.event is not None else (b"line", self.csv_line or b"")
        return hashlib.blake2b(content or b"", digest_size=16, person=kind).hexdigest()


@dataclass(frozen=True)
class DeadLetter:
    """One kept letter."""

    letter_id: str
    refusal: Refusal
    create_time_us: int
    event_id: str
    event: bytes | None = None
    csv_line: bytes | None = None


class DeadLetters:
    """The dead letters of all projects."""

    def __init__(self, store: DeadLetterStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def keep(self, project: str, refused: Iterable[Refused]) -> None:
        """Keeps what was refused; what is kept already gets its new reason."""
        now_us = self._clock.now_us()
        rows = {each.letter_id: _values(project, each, now_us) for each in refused}
        if rows:
            await self._store.put(list(rows.values()))

    async def renew(self, project: str, letters: Mapping[str, tuple[DeadLetter, Refusal]]) -> None:
        """Gives letters new reasons."""
        rows = [
            _values(project, Refused(0, refusal, letter.event_id, letter.event, letter.csv_line), letter.create_time_us)
            | {"letter_id": letter_id}
            for letter_id, (letter, refusal) in letters.items()
        ]
        if rows:
            await self._store.put(rows)

    async def page(
        self, project: str, size: int, before: tuple[int, str] | None, reason: str | None
    ) -> list[DeadLetter]:
        """Letters without their payloads, newest first, older than `before` (time, id)."""
        return [_letter(row) for row in await self._store.page(project, size, before, reason)]

    async def get(self, project: str, letter_ids: Sequence[str]) -> dict[str, DeadLetter]:
        """Letters with their payloads, by id; raises NotFound when one is not there."""
        found = await self._store.get(project, letter_ids)
        if len(found) < len(set(letter_ids)):
            raise NotFound("there is no such dead letter: it may have been replayed or purged", reason="NOT_FOUND")
        return {letter_id: _letter(row, payload=True) for letter_id, row in found.items()}

    async def payloads(self, project: str, letter_ids: Sequence[str]) -> list[DeadLetter]:
        """Letters with their payloads; those that are not there any more are left out."""
        return [_letter(row, payload=True) for row in (await self._store.get(project, letter_ids)).values()]

    async def delete(self, project: str, letter_ids: Iterable[str]) -> int:
        """Deletes letters: how many were there."""
        return await self._store.delete(project, letter_ids)

    async def delete_before(self, project: str, before_us: int | None) -> int:
        """Deletes the letters refused before an instant, or all: how many there were."""
        return await self._store.delete_before(project, before_us)

    async def projects(self) -> list[str]:
        """The projects that have dead letters."""
        return await self._store.projects()


def _values(project: str, refused: Refused, create_time_us: int) -> dict[str, object]:
    return {
        "project": project,
        "letter_id": refused.letter_id,
        "reason": refused.refusal.reason,
        "field": refused.refusal.field[:_MAX_TEXT].replace("\0", ""),
        "message": refused.refusal.message[:_MAX_TEXT],
        "create_time_us": create_time_us,
        # PostgreSQL's text takes no NUL.
        "event_id": refused.event_id[:_MAX_TEXT].replace("\0", ""),
        "event": refused.event,
        "csv_line": refused.csv_line,
    }


def _letter(row: DeadLetterRow, *, payload: bool = False) -> DeadLetter:
    return DeadLetter(
        letter_id=row.letter_id,
        refusal=Refusal(row.reason, row.field, row.message),
        create_time_us=row.create_time_us,
        event_id=row.event_id,
        event=row.event if payload else None,
        csv_line=row.csv_line if payload else None,
    )
