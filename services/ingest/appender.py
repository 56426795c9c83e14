"""Appends requests to the log: calls that wait together are scanned, admitted and stored together.

    call ─┐
    call ─┼▶ one scan, one admission, one Arrow batch, one row of the log ─▶ each call's own answer
    call ─┘

A project has at most two groups on their way: one is being scanned while the other becomes durable. Calls that come
meanwhile wait and make the next group; when too much waits, calls are refused, to be sent again.
"""

import asyncio
import contextvars
import logging
from collections import defaultdict, deque
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np

from services.ingest.admission import TimeRules, judge, refuse_reserved
from services.ingest.asked import Asked, asked_of
from services.ingest.collections import Collections, Declaration
from services.ingest.conformity import refuse_misfits
from services.ingest.dead_letters import DeadLetters, Refused
from services.ingest.decode import MAX_BYTES, MAX_EVENTS, Decoder, Part
from services.ingest.log import EventLog
from services.ingest.metrics import IngestMetrics
from services.ingest.pivot import Batch, pivot
from services.ingest.projects import Projects
from services.ingest.schemas import Schemas
from services.runtime.clocks import Clock
from services.runtime.errors import InklingError, Internal, InvalidArgument, ResourceExhausted, Unavailable

_LOGGER = logging.getLogger(__name__)
_GROUPS = 2
_RETRY_AFTER = timedelta(milliseconds=250)


@dataclass(frozen=True)
class Limits:
    """Bytes, all of them."""

    group_bytes: int = 1024 * 1024
    """Calls are put together up to this."""
    waiting_bytes: int = 64 * 1024 * 1024
    """What may wait in all projects together,"""
    waiting_bytes_of_project: int = 32 * 1024 * 1024
    """and in one."""
    loop_bytes: int = 256 * 1024
    """Larger groups are prepared in a thread, so that the event loop goes on."""


@dataclass(frozen=True)
class Outcome:
    """What became of one call."""

    position: int
    """Of its last accepted event; 0 when none was."""
    accepted: int
    refused: tuple[Refused, ...] = ()
    first_position: int = 0
    """Of its first accepted event, when it asks for insights."""
    asked: Asked | None = None
    """What it asks of insights, if anything."""


@dataclass(eq=False, slots=True)
class _Call:
    part: Part
    keep_refused: bool
    done: asyncio.Future[Outcome]


@dataclass(frozen=True)
class _Answer:
    """One call's share of a group: `last` is the place of its last accepted event in the group, -1 for none."""

    accepted: int
    last: int
    refused: tuple[Refused, ...] = ()
    error: InklingError | None = None
    asked: Asked | None = None


class Appender:
    """Takes calls of all projects."""

    def __init__(
        self,
        log: EventLog,
        decoder: Decoder,
        projects: Projects,
        collections: Collections,
        dead_letters: DeadLetters,
        metrics: IngestMetrics,
        clock: Clock,
        executor: Executor,
        limits: Limits,
    ) -> None:
        self._log = log
        self._decoder = decoder
        self._schemas = Schemas()
        self._projects = projects
        self._collections = collections
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._clock = clock
        self._executor = executor
        self._limits = limits
        self._waiting: defaultdict[str, deque[_Call]] = defaultdict(deque)
        self._waiting_bytes: defaultdict[str, int] = defaultdict(int)
        self._total_bytes = 0
        self._groups: defaultdict[str, set[asyncio.Task[None]]] = defaultdict(set)
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._received_us = 0

    async def append(self, project: str, part: Part, *, keep_refused: bool = True) -> Outcome:
        """Appends a request; returns when the accepted events are durable and the refused ones kept.

        Raises InvalidArgument for bytes that are no request and for too large ones, ResourceExhausted when too much
        waits, Unavailable when the log cannot be written.
        """
        size = len(part.data)
        if size > MAX_BYTES:
            raise InvalidArgument(
                "a request has at most 8 MiB: send smaller batches",
                reason="TOO_LARGE",
                metadata={"limit_bytes": str(MAX_BYTES)},
            )
        limits = self._limits
        if (
            self._total_bytes + size > limits.waiting_bytes
            or self._waiting_bytes[project] + size > limits.waiting_bytes_of_project
        ):
            self._metrics.overloads.inc()
            raise ResourceExhausted("too much is waiting to be stored: send it again", retry_after=_RETRY_AFTER)
        call = _Call(part, keep_refused, asyncio.get_running_loop().create_future())
        self._count(project, size)
        self._waiting[project].append(call)
        self._start(project)
        try:
            return await call.done
        finally:
            self._count(project, -size)

    def _count(self, project: str, size: int) -> None:
        self._total_bytes += size
        self._waiting_bytes[project] += size
        if not self._waiting_bytes[project]:
            del self._waiting_bytes[project]

    def _start(self, project: str) -> None:
        groups = self._groups[project]
        if self._waiting[project] and len(groups) < _GROUPS:
            # A context of its own: a group belongs to all of its calls, not to the one that happens to start it.
            task = asyncio.create_task(self._run(project, self._take(project)), context=contextvars.Context())
            groups.add(task)
            task.add_done_callback(lambda done: self._ended(project, done))
        elif not groups and not self._waiting[project]:
            del self._groups[project], self._waiting[project]
            self._turns.pop(project, None)

    def _ended(self, project: str, task: asyncio.Task[None]) -> None:
        self._groups[project].discard(task)
        self._start(project)

    def _take(self, project: str) -> list[_Call]:
        """The next group: calls in their order, as many as go together."""
        waiting = self._waiting[project]
        group: list[_Call] = []
        size = 0
        while waiting and (not group or size + len(waiting[0].part.data) <= self._limits.group_bytes):
            group.append(waiting.popleft())
            size += len(group[-1].part.data)
        return group

    async def _run(self, project: str, group: list[_Call]) -> None:
        try:
            async with self._turns[project]:
                rules = await self._projects.time_rules(project)
                strict = await self._collections.strict(project)
                prepared = await self._prepare([call.part for call in group], rules, strict)
                await self._keep_refused(project, group, prepared.answers)
                # Tasks start in the order in which they are made: groups enter the log in their order.
                storing = [
                    asyncio.create_task(self._store(project, batch, prepared.received_us)) for batch in prepared.batches
                ]
            positions = await asyncio.gather(*storing)
        except InklingError as error:
            for call in group:
                _fail(call, error)
        except asyncio.CancelledError:
            for call in group:
                _fail(call, Unavailable("the server is going away"))
            raise
        except Exception:
            _LOGGER.exception("a group of requests could not be stored")
            for call in group:
                _fail(call, Internal("a group of requests could not be stored"))
        else:
            self._metrics.group_calls.observe(len(group))
            self._answer(group, prepared, positions)

    async def _prepare(self, parts: list[Part], rules: TimeRules, strict: Sequence[Declaration]) -> "Prepared":
        self._received_us = max(self._received_us, self._clock.now_us())
        arguments = (self._decoder, self._schemas, parts, rules, strict, self._received_us)
        if sum(len(part.data) for part in parts) <= self._limits.loop_bytes:
            return prepare(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._executor, prepare, *arguments)

    async def _keep_refused(self, project: str, group: list[_Call], answers: Sequence[_Answer]) -> None:
        refused = [
            each for call, answer in zip(group, answers, strict=True) if call.keep_refused for each in answer.refused
        ]
        if refused:
            await self._dead_letters.keep(project, refused)
        for answer in answers:
            for each in answer.refused:
                self._metrics.refused.labels(each.refusal.reason).inc()

    async def _store(self, project: str, batch: Batch, received_us: int) -> int:
        """Appends a batch: the position before its first event."""
        stored = await self._log.append(
            project,
            batch.to_ipc(),
            batch.count,
            min_occurred_us=batch.min_occurred_us,
            max_occurred_us=batch.max_occurred_us,
            received_us=received_us,
        )
        self._metrics.accepted.inc(batch.count)
        return stored.first - 1

    def _answer(self, group: list[_Call], prepared: "Prepared", positions: list[int]) -> None:
        starts = np.cumsum([0, *(batch.count for batch in prepared.batches)])

        def position_of(place: int) -> int:
            batch = int(np.searchsorted(starts, place, side="right")) - 1
            return positions[batch] + place - int(starts[batch]) + 1

        for call, answer in zip(group, prepared.answers, strict=True):
            if answer.error is not None:
                _fail(call, answer.error)
                continue
            position = position_of(answer.last) if answer.last >= 0 else 0
            outcome = Outcome(position, answer.accepted, answer.refused)
            if answer.asked is not None and position:
                first = position_of(answer.last - answer.accepted + 1)
                outcome = replace(outcome, first_position=first, asked=answer.asked)
            if not call.done.done():
                call.done.set_result(outcome)

    async def close(self) -> None:
        """Waits for the groups on their way."""
        while running := [task for groups in self._groups.values() for task in groups]:
            await asyncio.wait(running)


@dataclass(frozen=True)
class Prepared:
    """A group, ready for the log."""

    batches: list[Batch]
    answers: list[_Answer]
    received_us: int


def prepare(
    decoder: Decoder,
    schemas: Schemas,
    parts: list[Part],
    rules: TimeRules,
    strict: Sequence[Declaration],
    received_us: int,
) -> Prepared:
    """Scans, admits and pivots the requests of a group. Runs in the event loop or in a thread."""
    scanned = decoder.scan(parts)
    verdicts = judge(scanned, rules)
    refuse_reserved(scanned, parts, verdicts)
    refuse_misfits(scanned, strict, verdicts)
    kept = verdicts.admitted
    errors: dict[int, InklingError] = {
        segment: InvalidArgument("the request is not a well-formed message", reason="MALFORMED")
        for segment in scanned.malformed_segments
    }
    for segment in range(len(parts)):
        rows = scanned.rows_of(segment)
        if rows.stop - rows.start > MAX_EVENTS:
            kept[rows] = False
            errors[segment] = InvalidArgument(
                "a request has at most 10,000 events: send smaller batches",
                reason="TOO_LARGE",
                metadata={"limit_events": str(MAX_EVENTS)},
            )
    accepted_before = np.concatenate(([0], np.cumsum(kept)))
    answers = []
    for segment in range(len(parts)):
        if segment in errors:
            answers.append(_Answer(0, -1, error=errors[segment]))
            continue
        rows = scanned.rows_of(segment)
        end = int(accepted_before[rows.stop])
        accepted = end - int(accepted_before[rows.start])
        refused: tuple[Refused, ...] = ()
        if accepted < rows.stop - rows.start:
            refused = tuple(
                Refused(
                    row - rows.start, verdicts.explain(scanned, row), scanned.event_id(row), scanned.event_bytes(row)
                )
                for row in (np.flatnonzero(~kept[rows]) + rows.start).tolist()
            )
        answers.append(_Answer(accepted, end - 1 if accepted else -1, refused))
    batches = pivot(scanned, kept, received_us, schemas)
    for segment, wait_us in scanned.waits_us.items():
        answer = answers[segment]
        asked = asked_of(wait_us, batches, answer.last - answer.accepted + 1, answer.accepted)
        answers[segment] = replace(answer, asked=asked)
    return Prepared(batches, answers, received_us)


def _fail(call: _Call, error: InklingError) -> None:
    if not call.done.done():
        call.done.set_exception(error)
