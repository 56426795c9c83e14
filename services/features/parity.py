"""Proof in production: some of the profiles served are recomputed from the archive, and must come out the same.

What is served comes from the incremental engine, which followed the log event by event; what it is compared with comes
from the as-of engine over the archive's files, at the same instant and up to the same position. A difference is a fault
of ours: it is counted and logged, by names of attributes, never by anything of a person.
"""

import asyncio
import logging
import math
import random
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from services.features.archive import ArchiveChangedError, ArchiveListing
from services.features.history import compiled_then
from services.features.past import Past, PastReader, ask
from services.features.past_pairs import Pair
from services.features.projects import Projects
from services.features.selections import Selection
from services.features.vectors import Difference, Verdict, compare, instant_of, position_of
from services.kernel.asof import AsOf, Column
from services.kernel.columns import shard_of
from services.runtime.errors import InklingError

_LOGGER = logging.getLogger(__name__)
_NEVER = 2**62
_STEPS = 32
"""Positions looked at in one pass: at each the events are sorted anew."""


class Served(NamedTuple):
    """A profile as it was served."""

    project: str
    selection: Selection
    attribute_key: str
    revision: int
    """Of the catalog: names may mean something else in another one."""
    key_value: str
    profile: bytes


@dataclass(slots=True)
class Counts:
    """What became of the samples of one project."""

    checked: int = 0
    """Values compared."""
    mismatches: int = 0
    """Values that differed."""
    skipped: int = 0
    """Values that cannot be compared: not served yet, or older than the log."""
    dropped: int = 0
    """Profiles left out: the queue was full, or definitions changed before their turn."""


class ParitySampler:
    """Chooses profiles as they are served, at next to no cost, and holds them until they are checked."""

    def __init__(self, rate: float, capacity: int, chance: random.Random | None = None) -> None:
        """`rate` is the part of all profiles that is chosen, from 0 to 1; at most `capacity` are held."""
        self.counts: defaultdict[str, Counts] = defaultdict(Counts)
        """By project."""
        self._rate = rate
        self._capacity = capacity
        self._chance = chance or random.Random()
        self._held: deque[Served] = deque()
        self._left = self._gap()

    def chosen(self, count: int) -> Sequence[int]:
        """Which of the next `count` profiles to offer; mostly none."""
        if self._left > count:
            self._left -= count
            return ()
        found = []
        place = self._left
        while place <= count:
            found.append(place - 1)
            place += self._gap()
        self._left = place - count
        return found

    def _gap(self) -> int:
        """How many profiles until the next one that is chosen."""
        if self._rate <= 0:
            return _NEVER
        if self._rate >= 1:
            return 1
        return 1 + int(math.log(1.0 - self._chance.random()) / math.log1p(-self._rate))

    def offer(self, served: Served) -> None:
        """Holds a profile until it is checked; when there is no room it is left out, and counted."""
        if len(self._held) >= self._capacity:
            self.counts[served.project].dropped += 1
        else:
            self._held.append(served)

    def take(self) -> list[Served]:
        """All that are held, which are not held any more."""
        taken = list(self._held)
        self._held.clear()
        return taken

    # Forgetting, as `services.features.erasure.Forgets` asks for it.

    @property
    def store(self) -> str:
        """The name in receipts."""
        return "parity_samples"

    @property
    def unit(self) -> str:
        """What is counted."""
        return "profiles"

    async def forget(self, project: str, attribute_key: str, value: str) -> int:
        """Drops the samples of a key value; returns how many there were."""
        kept = [each for each in self._held if (each.project, each.key_value) != (project, value)]
        forgotten = len(self._held) - len(kept)
        self._held = deque(kept)
        self.counts[project].dropped += forgotten
        return forgotten

    def put_back(self, served: Iterable[Served]) -> None:
        """Holds profiles again whose turn has not come."""
        self._held.extendleft(reversed(list(served)))


class ParityChecker:
    """Recomputes what was sampled, once the archive has come as far."""

    def __init__(self, sampler: ParitySampler, projects: Projects, reader: PastReader, every_seconds: float) -> None:
        self._sampler = sampler
        self._projects = projects
        self._reader = reader
        self._every_seconds = every_seconds

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ParityChecker"]:
        """Checks beside the block."""
        task = asyncio.create_task(self.run(), name="parity")
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def run(self) -> None:
        """Checks for ever."""
        while True:
            await asyncio.sleep(self._every_seconds)
            try:
                await self.check()
            except Exception:
                _LOGGER.exception("samples could not be checked")

    async def check(self) -> None:
        """Checks what can be checked now."""
        groups: defaultdict[tuple[str, Selection, str, int], list[Served]] = defaultdict(list)
        for served in self._sampler.take():
            groups[served[:4]].append(served)
        listings: dict[str, ArchiveListing] = {}
        for (project, *_), samples in groups.items():
            try:
                if project not in listings:
                    listings[project] = await self._reader.listing(project, settle=False)
                self._sampler.put_back(await self._check_group(samples, listings[project]))
            except ArchiveChangedError:
                self._sampler.put_back(samples)
            except InklingError as error:
                self._sampler.counts[project].dropped += len(samples)
                _LOGGER.warning(
                    "samples could not be checked: %s", error.message, extra={"fields": {"project": project}}
                )

    async def _check_group(self, samples: list[Served], listing: ArchiveListing) -> list[Served]:
        """Checks samples of one question; returns those that must wait for the archive."""
        first = samples[0]
        project = await self._projects.get(first.project)
        if project.catalog.revision != first.revision:
            self._sampler.counts[first.project].dropped += len(samples)
            return []
        by_position: defaultdict[int, list[Served]] = defaultdict(list)
        for served in samples:
            by_position[position_of(served.profile)].append(served)
        positions = sorted(position for position in by_position if position <= listing.position)[:_STEPS]
        past = Past()
        # Roll-ups are made of values that are sampled themselves.
        compiled = compiled_then(project, first.selection, first.attribute_key, past, rollups=False)
        pairs = {
            position: [Pair(served.key_value, instant_of(served.profile)) for served in by_position[position]]
            for position in positions
        }
        recomputed = await asyncio.to_thread(self._recompute, past, pairs, listing)
        verdicts: list[tuple[Served, Verdict]] = []
        for position in positions:
            for attribute_key, engine in past.engines.items():
                engine.columns = recomputed[attribute_key, position]
            for past.place, served in enumerate(by_position[position]):
                verdicts.append((served, compare(served.profile, compiled.values(served.key_value))))
            await asyncio.sleep(0)
        await self._judge(first.project, verdicts)
        return [served for position in by_position.keys() - set(positions) for served in by_position[position]]

    def _recompute(
        self, past: Past, pairs: dict[int, list[Pair]], listing: ArchiveListing
    ) -> dict[tuple[str, int], list[Column]]:
        """The columns for the pairs of each position, by attribute key and position."""
        keys = {pair.key_value for each in pairs.values() for pair in each}
        found = {}
        for attribute_key, place in past.engines.items():
            engine = AsOf(attribute_key, place.aggregations, 0, listing.complete_since_us)
            after = 0
            for position, asked in pairs.items():
                for batch in self._reader.events(listing, attribute_key, place.aggregations, keys, position, after):
                    engine.add(batch)
                found[attribute_key, position] = ask(engine, asked)
                after = position
        return found

    async def _judge(self, project: str, verdicts: list[tuple[Served, Verdict]]) -> None:
        """Counts what was found. Where somebody was erased after a profile was served, it cannot be recomputed."""
        suspects = [position_of(served.profile) for served, verdict in verdicts if verdict.differences]
        erased = await self._last_erasure(project, min(suspects)) if suspects else 0
        counts = self._sampler.counts[project]
        for served, verdict in verdicts:
            if verdict.differences and position_of(served.profile) < erased:
                counts.dropped += 1
                continue
            counts.checked += verdict.checked
            counts.skipped += verdict.skipped
            counts.mismatches += len(verdict.differences)
            for difference in verdict.differences:
                _log(served, difference)

    async def _last_erasure(self, project: str, after: int) -> int:
        """The end of the archive when it tells of an erasure after a position, else 0."""
        listing = await self._reader.listing(project)
        return listing.position if await asyncio.to_thread(self._reader.tells_of_erasure, listing, after) else 0


def _log(served: Served, difference: Difference) -> None:
    fields = {
        "project": served.project,
        "value": difference.name,
        "selection": repr(served.selection),
        "attribute_key": served.attribute_key,
        "shard": shard_of(served.key_value),
        "position": position_of(served.profile),
        "as_of_us": instant_of(served.profile),
        "served_status": difference.served_status,
        "recomputed_status": difference.recomputed_status,
    }
    _LOGGER.error("a value was served that the archive does not give", extra={"fields": fields})
