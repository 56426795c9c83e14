"""Sets properties: checks and encodes writes, and makes them durable in the log."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

from inkling.features.v1.property_service_pb2 import PropertyWrite
from services.features.project import Project
from services.features.projects import Projects
from services.features.property_events import MAX_WRITE_ID, Encoded, Refusal, WriteEncoder, ticks
from services.features.property_sink import EventSink, RefusedEvent
from services.kernel.windows import MIN_US
from services.runtime.clocks import Clock
from services.runtime.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
    Violation,
)

API_SOURCE = "api"
LOOP_WRITES = 200
"""Larger chunks are encoded in a thread, so that the event loop goes on."""
MAX_SOURCE = 128
_SOURCE = re.compile(r"[a-z][a-z0-9_]{0,31}(:[^\x00-\x1f\x7f-\x9f]+)?")
_TIMES = frozenset({"BAD_TIME", "TOO_EARLY", "TOO_LATE"})


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a chunk of writes."""

    position: int
    """Of the last accepted one in the log; 0 when none was."""
    accepted: int
    refused: tuple[Refusal, ...]


class PropertyWriter:
    """Writes properties of all projects."""

    def __init__(self, projects: Projects, sink: EventSink, clock: Clock) -> None:
        self._projects = projects
        self._sink = sink
        self._clock = clock
        self._encoders: dict[tuple[str, str, str], tuple[int, WriteEncoder]] = {}
        self._last_us: dict[str, int] = {}
        """By project: the last event time given to a write that came without one."""

    async def write(
        self, project_name: str, attribute_key: str, source: str, writes: Sequence[PropertyWrite], chunk_id: str
    ) -> Written:
        """Appends writes of one attribute key; returns when the accepted ones are durable.

        Raises NotFound when nothing is declared for the key, FailedPrecondition when the clock of the log has not begun
        and a write has no event time, Unavailable.
        """
        return await self.append(project_name, await self.encode(project_name, attribute_key, source, writes, chunk_id))

    async def encode(
        self, project_name: str, attribute_key: str, source: str, writes: Sequence[PropertyWrite], chunk_id: str
    ) -> Encoded:
        """The first half of `write`: what is appended stands, with its event times, but is not durable."""
        if len(chunk_id) > MAX_WRITE_ID:
            raise _invalid("write_id", f"has at most {MAX_WRITE_ID} characters", "OUT_OF_RANGE")
        project = await self._projects.get(project_name)
        encoder = self._encoder(project, attribute_key, source)
        now_us = self._reserve(project, ticks(writes))
        if len(writes) <= LOOP_WRITES:
            return encoder.encode(writes, chunk_id, now_us)
        return await asyncio.to_thread(encoder.encode, writes, chunk_id, now_us)

    async def append(self, project: str, encoded: Encoded) -> Written:
        """The second half of `write`."""
        if not encoded.places:
            return Written(0, 0, tuple(encoded.refused))
        stored = await self._sink.append(project, encoded.request)
        refused = [*encoded.refused, *(_refusal(encoded.places, each) for each in stored.refused)]
        return Written(stored.position, stored.accepted, tuple(sorted(refused, key=lambda each: each.index)))

    def _encoder(self, project: Project, attribute_key: str, source: str) -> WriteEncoder:
        catalog = project.catalog
        key = (project.name, attribute_key, source)
        known = self._encoders.get(key)
        if known is not None and known[0] == catalog.revision:
            return known[1]
        definitions = [stored.definition for stored in catalog.properties.properties(attribute_key)]
        if not definitions:
            raise NotFound(
                f"no properties are declared for {attribute_key[:64]!r}: declare them first",
                reason="NOT_FOUND",
                metadata={"name": attribute_key[:64]},
            )
        if len(self._encoders) >= 256:
            self._encoders.clear()
        encoder = WriteEncoder(definitions, attribute_key, source)
        self._encoders[key] = (catalog.revision, encoder)
        return encoder

    def _reserve(self, project: Project, count: int) -> int:
        """The event time of the first of so many writes without one: later than all that were given before."""
        if not count:
            return 0
        projection = project.projection
        if projection is None:
            raise Unavailable("the project is being recovered: try again", reason="NOT_READY")
        if projection.fold.clock == "log":
            now_us = project.serving().fold.as_of_us
            if now_us == MIN_US:
                raise FailedPrecondition(
                    "the project's clock is that of its log, which is empty: give event_time",
                    reason="CLOCK_NOT_BEGUN",
                )
        else:
            now_us = self._clock.now_us()
        first_us = max(now_us, self._last_us.get(project.name, 0) + 1)
        self._last_us[project.name] = first_us + count - 1
        return first_us


def check_source(source: str, *, by_service: bool) -> str:
    """The source to write down: `api` when none is given.

    Raises InvalidArgument, and PermissionDenied when somebody else names the source of a service.
    """
    if not source:
        return API_SOURCE
    if len(source) > MAX_SOURCE or not _SOURCE.fullmatch(source):
        raise _invalid("source", f"is not of the form kind:name, at most {MAX_SOURCE} characters", "BAD_SOURCE")
    if not by_service and source.partition(":")[0] != API_SOURCE:
        raise PermissionDenied("only services name another source than api or api:{label}", reason="BAD_SOURCE")
    return source


def _refusal(places: Sequence[int], event: RefusedEvent) -> Refusal:
    """What the log refused of an event, told of its write."""
    field = event.field
    if field == "occurred_at":
        field = "event_time"
    elif field.startswith("keys"):
        field = "key_value"
    elif field.startswith("properties"):
        field = field.replace("properties", "values", 1)
    reason = "BAD_TIME" if event.reason in _TIMES else "OUT_OF_RANGE" if field == "key_value" else "BAD_VALUE"
    return Refusal(places[event.index], reason, field, event.message)


def _invalid(field: str, text: str, reason: str) -> InvalidArgument:
    return InvalidArgument(f"{field} {text}", reason=reason, violations=(Violation(field, text, reason),))
