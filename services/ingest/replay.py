"""Sends dead letters again, as they are or repaired."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.ingest.appender import Appender
from services.ingest.compiled.faults import Refusal
from services.ingest.dead_letters import DeadLetter, DeadLetters
from services.ingest.decode import MAX_BYTES, Part, framed

_CHUNK_BYTES = MAX_BYTES // 2
_NO_EVENT = Refusal(
    "BAD_LINE", "", "A line of a file cannot be sent as it is: repair it, with the event that it means."
)


@dataclass
class Replayed:
    """What became of them."""

    accepted: int = 0
    position: int = 0
    rejected: list[tuple[int, str, Refusal]] = field(default_factory=list)
    """(index in the request, letter, why)"""


@dataclass(frozen=True)
class _Item:
    index: int
    letter: DeadLetter
    event: bytes


class Replayer:
    """Replays for all projects."""

    def __init__(self, appender: Appender, dead_letters: DeadLetters) -> None:
        self._appender = appender
        self._dead_letters = dead_letters

    async def replay(self, project: str, letter_ids: Sequence[str], repairs: Mapping[str, bytes]) -> Replayed:
        """Sends letters as they are, then repairs (letter to event) in the order of their letters.

        What is accepted is deleted; what is refused again is kept with its new reason. Raises NotFound.
        """
        replayed = Replayed()
        letters = await self._dead_letters.get(project, [*letter_ids, *repairs])
        wanted = [(letter_id, letters[letter_id].event) for letter_id in letter_ids]
        wanted += [(letter_id, repairs[letter_id]) for letter_id in sorted(repairs)]
        items = []
        for index, (letter_id, event) in enumerate(wanted):
            if event is None:
                replayed.rejected.append((index, letter_id, _NO_EVENT))
            else:
                items.append(_Item(index, letters[letter_id], event))
        for chunk in _chunks(items):
            await self._send(project, chunk, replayed)
        replayed.rejected.sort()
        return replayed

    async def _send(self, project: str, items: Sequence[_Item], replayed: Replayed) -> None:
        request = b"".join(framed(item.event, Part(b"").events_field) for item in items)
        outcome = await self._appender.append(project, Part(request), keep_refused=False)
        refused = {items[each.index].letter.letter_id: each for each in outcome.refused}
        accepted = [item.letter.letter_id for item in items if item.letter.letter_id not in refused]
        letters = {item.letter.letter_id: item for item in items}
        await self._dead_letters.delete(project, accepted)
        renewed = {letter_id: (letters[letter_id].letter, each.refusal) for letter_id, each in refused.items()}
        await self._dead_letters.renew(project, renewed)
        replayed.accepted += outcome.accepted
        replayed.position = max(replayed.position, outcome.position)
        replayed.rejected += [
            (letters[letter_id].index, letter_id, refusal) for letter_id, (_, refusal) in renewed.items()
        ]


def _chunks(items: Sequence[_Item]) -> list[list[_Item]]:
    chunks: list[list[_Item]] = []
    size = 0
    for item in items:
        size += len(item.event)
        if not chunks or size > _CHUNK_BYTES:
            chunks.append([])
            size = len(item.event)
        chunks[-1].append(item)
    return chunks
