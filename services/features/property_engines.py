"""Brings declared properties into a project's projection.

A name that was never declared before has no record in the log: its engine begins empty, where the projection stands.
One that was declared before is filled from the log beside the live projection, as published groups are.
"""

import asyncio
import contextvars
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

from services.features.backfill import Backfill, Progress
from services.features.catalog import Catalog
from services.features.projection import Projection
from services.features.properties import aggregations_of
from services.features.property_store import StoredProperty
from services.following.feed import Backoff, Feed
from services.kernel.aggregations import Aggregation
from services.kernel.engine import Engine

_LOGGER = logging.getLogger(__name__)
ENGINE_PROPERTIES = 16
"""Properties of one engine, at most: an event that it holds has room for each of them."""


class PropertyEngines:
    """Those of one project."""

    def __init__(
        self, project: str, catalog: Catalog, feed: Feed, max_bytes: int, filled: Callable[[Projection], None]
    ) -> None:
        """`filled` is called when an engine was filled."""
        self._project = project
        self._catalog = catalog
        self._feed = feed
        self._max_bytes = max_bytes
        self._filled = filled
        self._fillings: dict[tuple[str, Aggregation], asyncio.Task[None]] = {}

    def begin(self, projection: Projection, complete_since_us: int | None) -> None:
        """A projection is there: what it lacks comes. `complete_since_us`: what the log lacks in front."""
        for task in self.tasks():
            task.cancel()
        self._fillings.clear()
        for stored in _parts(projection, self._lacking(projection)):
            if _is_new(projection, stored[0]):
                self._adopt(projection, stored, None)
            elif projection.position == 0:
                self._adopt(projection, stored, complete_since_us)
            else:
                self._fill(projection, stored)

    def declared(self, projection: Projection) -> None:
        """Properties were declared: what the projection lacks of them comes."""
        lacking = [
            stored
            for stored in self._lacking(projection)
            if all((stored.definition.attribute_key, each) not in self._fillings for each in _aggregations([stored]))
        ]
        for part in _parts(projection, lacking):
            if _is_new(projection, part[0]):
                self._adopt(projection, part, None)
            else:
                self._fill(projection, part)

    def complete(self, projection: Projection) -> bool:
        """Whether nothing declared is lacking."""
        return not self._lacking(projection)

    def stop_unneeded(self) -> None:
        """Stops to fill what is not declared any more."""
        needed = set(self._catalog.needed)
        running: dict[asyncio.Task[None], bool] = defaultdict(bool)
        for key, task in self._fillings.items():
            running[task] |= key in needed
        for task, is_needed in running.items():
            if not is_needed:
                task.cancel()

    def tasks(self) -> list[asyncio.Task[None]]:
        """What is being filled."""
        return list(dict.fromkeys(self._fillings.values()))

    def _lacking(self, projection: Projection) -> list[StoredProperty]:
        return [
            stored
            for stored in self._catalog.properties.properties()
            if projection.missing_of(stored.definition.attribute_key, aggregations_of(stored.definition))
        ]

    def _adopt(self, projection: Projection, stored: Iterable[StoredProperty], complete_since_us: int | None) -> None:
        attribute_key, missing = _missing(projection, stored)
        projection.adopt(Engine(attribute_key, missing, complete_since_us))

    def _fill(self, projection: Projection, stored: Iterable[StoredProperty]) -> None:
        attribute_key, missing = _missing(projection, stored)
        task = asyncio.create_task(
            self._fill_from_log(projection, attribute_key, missing),
            name=f"fill properties of {attribute_key}",
            context=contextvars.Context(),
        )
        keys = [(attribute_key, each) for each in missing]
        self._fillings.update(dict.fromkeys(keys, task))
        task.add_done_callback(lambda done: self._ended(keys, done))

    def _ended(self, keys: Iterable[tuple[str, Aggregation]], task: asyncio.Task[None]) -> None:
        for key in keys:
            if self._fillings.get(key) is task:
                del self._fillings[key]

    async def _fill_from_log(self, projection: Projection, attribute_key: str, aggregations: list[Aggregation]) -> None:
        backoff = Backoff()
        while not projection.closed:
            progress = Progress(started=time.monotonic())
            try:
                backfill = Backfill(
                    self._feed, self._project, projection, attribute_key, aggregations, self._max_bytes, progress
                )
                await backfill.run()
            except Exception as error:
                _LOGGER.exception("filling properties failed", extra={"fields": {"project": self._project}})
                await backoff.wait("filling properties again", self._project, error)
            else:
                self._filled(projection)
                return


def _missing(projection: Projection, stored: Iterable[StoredProperty]) -> tuple[str, list[Aggregation]]:
    """The attribute key of properties, and those of their aggregations that are not computed."""
    definitions = [each.definition for each in stored]
    key = definitions[0].attribute_key
    return key, projection.missing_of(key, [each for one in definitions for each in aggregations_of(one)])


def _aggregations(stored: Iterable[StoredProperty]) -> list[Aggregation]:
    return [each for one in stored for each in aggregations_of(one.definition)]


def _is_new(projection: Projection, stored: StoredProperty) -> bool:
    """Whether no record can tell of it yet; one that is computed in part is old: a version before needed no more."""
    definition, aggregations = stored.definition, aggregations_of(stored.definition)
    missing = projection.missing_of(definition.attribute_key, aggregations)
    return stored.generation == 1 and len(missing) == len(aggregations)


def _parts(projection: Projection, stored: Iterable[StoredProperty]) -> list[list[StoredProperty]]:
    """Properties that go into one engine: of one attribute key, all new or none."""
    kinds: defaultdict[tuple[str, bool], list[StoredProperty]] = defaultdict(list)
    for each in stored:
        kinds[each.definition.attribute_key, _is_new(projection, each)].append(each)
    return [
        found[start : start + ENGINE_PROPERTIES]
        for found in kinds.values()
        for start in range(0, len(found), ENGINE_PROPERTIES)
    ]
