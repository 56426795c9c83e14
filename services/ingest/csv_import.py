"""Imports CSV files: lines become events in a thread, and go the way of all events."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field

from inkling.ingest.v1.ingest_service_pb2 import IngestRequest
from services.ingest.appender import Appender, Outcome
from services.ingest.compiled.faults import Refusal
from services.ingest.csv_columns import CellError, CsvColumns, CsvOptions
from services.ingest.csv_lines import FileError, Inflater, Record, RecordReader
from services.ingest.dead_letters import DeadLetters, Refused
from services.ingest.decode import Part
from services.runtime.errors import InvalidArgument

_BATCH_EVENTS = 1_000
_BATCH_BYTES = 512 * 1024


@dataclass(frozen=True)
class LineError:
    """One refused line."""

    line: int
    column: str
    refusal: Refusal


@dataclass
class Progress:
    """How far an import is."""

    lines: int = 0
    accepted: int = 0
    rejected: int = 0
    position: int = 0
    errors: list[LineError] = field(default_factory=list)
    """Since the last time this was told."""


@dataclass(frozen=True)
class _Batch:
    """Events on their way, with the lines that they come from."""

    request: bytes
    records: list[Record]


@dataclass
class _Step:
    """What one stretch of content gave."""

    batches: list[_Batch] = field(default_factory=list)
    bad: list[tuple[Record, CellError]] = field(default_factory=list)


class CsvImport:
    """One import."""

    def __init__(
        self, project: str, options: CsvOptions, appender: Appender, dead_letters: DeadLetters, executor: Executor
    ) -> None:
        """Raises InvalidArgument when the options do not say how to read a file."""
        self._project = project
        self._options = options.resolved()
        self._appender = appender
        self._dead_letters = dead_letters
        self._executor = executor
        self._inflater = Inflater()
        self._reader = RecordReader(self._options.delimiter)
        self._columns: CsvColumns | None = None
        self._progress = Progress()
        self.done = False
        """Whether the progress told is the last."""

    async def run(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[Progress]:
        """Imports a file; tells the progress after each stretch, and at the end. Memory does not grow with the file.

        Raises InvalidArgument when the file cannot be read at all; what was imported before stays, and importing the
        file again adds nothing to it.
        """
        try:
            async for chunk in chunks:
                for content in self._inflater.feed(chunk):
                    await self._take(self._reader.feed(content))
                    if self._progress.lines:
                        yield self._progress
            await self._take(self._reader.feed(self._inflater.end()))
            await self._take(self._reader.end())
        except FileError as error:
            raise InvalidArgument(f"the file cannot be read: {error}", reason="BAD_LINE") from None
        if self._columns is None:
            raise InvalidArgument("the file has no header", reason="BAD_LINE")
        self.done = True
        yield self._progress

    async def _take(self, records: Iterable[Record]) -> None:
        step = await asyncio.get_running_loop().run_in_executor(self._executor, self._convert, records)
        outcomes = await asyncio.gather(
            *(self._appender.append(self._project, Part(batch.request), keep_refused=False) for batch in step.batches)
        )
        await self._refuse(step, outcomes)
        for batch, outcome in zip(step.batches, outcomes, strict=True):
            self._progress.lines += len(batch.records)
            self._progress.accepted += outcome.accepted
            self._progress.position = max(self._progress.position, outcome.position)
        self._progress.lines += len(step.bad)

    def _convert(self, records: Iterable[Record]) -> _Step:
        """Makes events of records; runs in a thread."""
        step = _Step()
        request, taken, size = IngestRequest(), list[Record](), 0
        for record in records:
            if self._columns is None:
                self._columns = self._header(record)
                continue
            try:
                event = self._columns.event(record)
            except CellError as error:
                step.bad.append((record, error))
                continue
            request.events.append(event)
            taken.append(record)
            size += len(record.raw)
            if len(taken) >= _BATCH_EVENTS or size >= _BATCH_BYTES:
                step.batches.append(_Batch(request.SerializeToString(), taken))
                request, taken, size = IngestRequest(), [], 0
        if taken:
            step.batches.append(_Batch(request.SerializeToString(), taken))
        return step

    def _header(self, record: Record) -> CsvColumns:
        if record.fields is None:
            raise FileError(f"the header: {record.problem}")
        return CsvColumns([record.fields[0].removeprefix("\ufeff"), *record.fields[1:]], self._options)

    async def _refuse(self, step: _Step, outcomes: Iterable[Outcome]) -> None:
        """Keeps the lines that were refused, whatever refused them."""
        letters = [
            Refused(record.line, Refusal("BAD_LINE", error.column, error.message), csv_line=record.raw)
            for record, error in step.bad
        ]
        errors = [LineError(each.index, each.refusal.field, each.refusal) for each in letters]
        columns = self._columns.fields if self._columns is not None else {}
        for batch, outcome in zip(step.batches, outcomes, strict=True):
            for each in outcome.refused:
                record = batch.records[each.index]
                letters.append(Refused(record.line, each.refusal, each.event_id, each.event, record.raw))
                errors.append(LineError(record.line, columns.get(each.refusal.field, ""), each.refusal))
        if letters:
            await self._dead_letters.keep(self._project, letters)
            self._progress.rejected += len(letters)
            self._progress.errors += sorted(errors, key=lambda error: error.line)
