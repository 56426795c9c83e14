"""Profiles as of other instants: recomputed from the archive, written by what writes them when they are served.

A selection is compiled as for serving, but against a `Past`, which stands where the projection does: it notes which
aggregations are needed and then answers with columns of the as-of engine. So what is said of the past is in the same
words as what is said of the present.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from services.features.archive import ArchiveChangedError, ArchiveListing, Listings, columns_of, read_events
from services.features.past_members import PastIndex, PastReferences, chosen, pairs_of, writers
from services.features.past_pairs import Pair
from services.features.profiles import CompiledSelection
from services.features.projection import Projection, Slot
from services.kernel.aggregations import Aggregation
from services.kernel.asof import AsOf, Column
from services.kernel.columns import EventBatch
from services.kernel.engine import Engine, Reading
from services.kernel.erasing import marks
from services.runtime.errors import Unavailable

MARKER_COLUMNS = ("d.attribute_key", "d.subject")
_READERS = 2
_TRIES = 3


class Past:
    """In place of a projection: values of some pairs, once they are answered."""

    def __init__(self) -> None:
        self.engines: dict[str, PastEngine] = {}
        """By attribute key."""
        self.place = 0
        """Which pair is read now."""
        self.instant_us = 0
        """Its instant."""
        self.references = PastReferences()

    def slot(self, attribute_key: str, aggregation: Aggregation) -> Slot:
        """Where an aggregation will be; there is nothing that is not computed."""
        engine = self.engines.setdefault(attribute_key, PastEngine(self))
        return Slot(cast("Engine", engine), engine.place_of(aggregation))

    def as_projection(self) -> Projection:
        """Itself, as what compiles selections takes it."""
        return cast("Projection", self)


class PastEngine:
    """In place of an engine: the columns of one attribute key."""

    def __init__(self, past: Past) -> None:
        self.aggregations: list[Aggregation] = []
        self.columns: list[Column] = []
        self.complete_since_us: int | None = None
        self.key_codes = self
        self.past = past

    def place_of(self, aggregation: Aggregation) -> int:
        """The place of an aggregation, a new one when it is new."""
        if aggregation not in self.aggregations:
            self.aggregations.append(aggregation)
        return self.aggregations.index(aggregation)

    def find(self, key_value: str) -> int:
        """The pair that is read now, whatever its key."""
        return self.past.place

    def reading(self, place: int, code: int) -> Reading:
        """The reading of an aggregation for a pair."""
        return self.columns[place].reading(code)

    def column(self, place: int, codes: NDArray[np.int32]) -> Column:
        """The same of some pairs."""
        return chosen(self.columns[place], codes.tolist())


class Question(NamedTuple):
    """Some values of one attribute key, at some pairs."""

    attribute_key: str
    aggregations: Sequence[Aggregation]
    pairs: Sequence[Pair]


class Recomputed(NamedTuple):
    """The answer: a column for each aggregation, with an entry for each pair."""

    columns: list[Column]
    position: int
    """The position of the log up to which they hold."""


class PastReader:
    """Recomputes values from the archive, in threads, a few at a time."""

    def __init__(self, listings: Listings, blobs_root: Path) -> None:
        self._listings = listings
        self._root = blobs_root
        self._slots = asyncio.Semaphore(_READERS)

    async def listing(self, project: str, *, settle: bool = True) -> ArchiveListing:
        """What the archive holds."""
        return await self._listings.listing(project, settle=settle)

    async def reaching(self, project: str, position: int) -> ArchiveListing:
        """What the archive holds, at least up to a position of the log; 0: all that is in the log now.

        What is in the log is only archived first when it is needed: each time makes files of its own.
        """
        if position:
            listing = await self.listing(project, settle=False)
            if listing.position >= position:
                return listing
        return await self.listing(project)

    async def answer(self, project: str, question: Question, position: int = 0, known: int = 0) -> Recomputed:
        """The values at the pairs, by the records up to a position; see `compute`."""

        def compute(listing: ArchiveListing, until: int) -> list[Column]:
            engine = AsOf(question.attribute_key, question.aggregations, 0, listing.complete_since_us)
            keys = {pair.key_value for pair in question.pairs}
            for batch in self.events(listing, question.attribute_key, question.aggregations, keys, until):
                engine.add(batch)
            return ask(engine, question.pairs)

        return await self.compute(project, position, compute, known)

    async def writers(
        self, project: str, indexes: Sequence[PastIndex], targets: Collection[str], position: int, known: int
    ) -> tuple[set[str], int]:
        """Who may ever have referred to the targets, and the position up to which that holds; see `compute`."""
        found: set[str] = set()

        def search(listing: ArchiveListing, until: int) -> list[Column]:
            found.update(writers(self._root, listing, indexes, targets, until))
            return []

        return found, (await self.compute(project, position, search, known)).position

    async def compute(
        self, project: str, position: int, work: Callable[[ArchiveListing, int], list[Column]], known: int = 0
    ) -> Recomputed:
        """Does work over the archive in a thread; again when a file went away meanwhile.

        The records up to `position` count; with 0 all that are archived, those up to `known` at least, and with 0 for
        that too all that are in the log now.
        """
        async with self._slots:
            for _ in range(_TRIES):
                listing = await self.reaching(project, position or known)
                until = min(position or listing.position, listing.position)
                try:
                    return Recomputed(await asyncio.to_thread(work, listing, until), until)
                except ArchiveChangedError:
                    continue
        raise Unavailable("the archive changes too fast to be read: try again", reason="ARCHIVE_UNAVAILABLE")

    def events(
        self,
        listing: ArchiveListing,
        attribute_key: str,
        aggregations: Iterable[Aggregation],
        keys: Collection[str],
        until: int,
        after: int = 0,
    ) -> Iterator[EventBatch]:
        """The records of keys that aggregations look at, in the order of the log, after one position until another."""
        return read_events(
            self._root,
            listing,
            columns=columns_of(aggregations),
            attribute_key=attribute_key,
            key_values=keys,
            after_position=after,
            up_to_position=until,
        )

    def tells_of_erasure(self, listing: ArchiveListing, after: int) -> bool:
        """Whether there is the marker of an erasure after a position."""
        batches = read_events(self._root, listing, columns=MARKER_COLUMNS, after_position=after)
        return any(marks(batch) for batch in batches)


def ask(engine: AsOf, pairs: Sequence[Pair]) -> list[Column]:
    """The columns of an engine at some pairs."""
    instants: NDArray[np.int64] = np.array([pair.instant_us for pair in pairs], np.int64)
    return engine.answer([pair.key_value for pair in pairs], instants)


async def profiles_at(
    reader: PastReader,
    project: str,
    compiled: Callable[[Past], CompiledSelection],
    pairs: Sequence[Pair],
    position: int = 0,
    known: int = 0,
) -> tuple[list[bytes], int]:
    """The fields of `Profile` with values for each pair, and the position up to which they hold.

    For position and what is known see `PastReader.compute`.
    `compiled` compiles the selection against what stands for a projection.
    """
    past = Past()
    selection = compiled(past)
    reached = position
    for attribute_key, engine in past.engines.items():
        asked, indexes = pairs, past.references.of(attribute_key)
        if indexes:
            keys, reached = await reader.writers(project, indexes, {pair.key_value for pair in pairs}, reached, known)
            asked = pairs_of(keys, dict.fromkeys(pair.instant_us for pair in pairs))
        if asked:
            found = await reader.answer(project, Question(attribute_key, engine.aggregations, asked), reached, known)
            engine.columns, reached = found.columns, found.position
        for index in indexes:
            index.take_in(asked)
    if not past.engines:
        reached = min(position or 2**63 - 1, (await reader.reaching(project, position or known)).position)
    written = []
    for past.place, pair in enumerate(pairs):
        past.instant_us = pair.instant_us
        written.append(selection.values(pair.key_value))
        if past.place % 100 == 99:
            await asyncio.sleep(0)
    return written, reached
