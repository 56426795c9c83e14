"""Sends events: one by one in the background, in lists, as a stream, or from a CSV file."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from inkling.client.batching import Batcher, BatchOptions, Delivery
from inkling.client.csv_import import ColumnType, CsvProgress, import_file, make_options
from inkling.client.streaming import ResumingStream, StreamRequest, cut, in_batches, numbered
from inkling.client.transport import Transport
from inkling.events import BatchResult, CustomerEvent, IngestResult, read_result
from inkling.ingest.v1 import event_pb2, ingest_service_pb2
from inkling.ingest.v1.ingest_service_pb2_grpc import IngestServiceStub
from inkling.values import duration

if TYPE_CHECKING:
    from inkling.ingest.v1.ingest_service_pb2_grpc import IngestServiceAsyncStub


class AsyncEvents:
    """Writes to the project's log. Ids are given before the first attempt, so that a retried event counts once."""

    def __init__(self, transport: Transport, batching: BatchOptions) -> None:
        self._transport = transport
        self._batching = batching
        self._batcher: Batcher | None = None

    async def send(self, event: CustomerEvent) -> Delivery:
        """Puts an event into the background buffer and returns at once, or when the full buffer has room again.

        Await the delivery, or call `flush`, to know what became of it.
        """
        if self._batcher is None:
            self._batcher = Batcher(self._deliver, self._batching)
        return await self._batcher.send(event)

    async def flush(self) -> IngestResult:
        """Waits until everything sent so far is durable or refused; tells what became of it since the last flush."""
        return IngestResult() if self._batcher is None else await self._batcher.flush()

    async def ingest(
        self,
        events: Sequence[CustomerEvent],
        *,
        wait_for_insights: timedelta | None = None,
        timeout: timedelta | None = None,
    ) -> IngestResult:
        """Appends events and waits until they are durable; more than 10,000 or 8 MiB go in several calls.

        Refused events are in the result; the others are not held up by them. With `wait_for_insights` (up to 10
        seconds) each call waits until insights were evaluated too, and the result has what changed for the events'
        customers. The events are accepted whatever insights do.
        """
        result = IngestResult()
        for start in range(0, len(events), 10_000):
            for request in cut([event.to_message() for event in events[start : start + 10_000]]):
                if wait_for_insights is not None:
                    request.wait_for_insights.CopyFrom(duration(wait_for_insights))
                response = await self._transport.call(self._stub.Ingest, request, timeout=timeout)
                result += read_result(response, request.events, waited=wait_for_insights is not None)
        return result

    async def stream(
        self,
        events: Iterable[CustomerEvent] | AsyncIterable[CustomerEvent],
        *,
        batch_size: int = 1_000,
        window: int = 8,
    ) -> AsyncIterator[BatchResult]:
        """Appends any number of events over one stream and yields each batch's acknowledgement, in order.

        At most `window` batches travel unacknowledged. After a break it connects again and repeats those.
        """
        stub = self._stub
        stream = ResumingStream(
            lambda: stub.IngestStream(metadata=self._transport.metadata()),
            self._transport.retry,
            window,
            lambda request, response: BatchResult(request.sequence, read_result(response.result, request.events)),
        )
        requests: AsyncIterator[StreamRequest] = numbered(in_batches(events, batch_size))
        async for acknowledged in stream.run(requests):
            yield acknowledged

    async def import_csv(
        self,
        path: Path | str,
        *,
        occurred_at_column: str = "",
        key_columns: Mapping[str, str] | None = None,
        event_name: str = "",
        event_vendor: str = "",
        event_version: str = "",
        event_id_column: str = "",
        collection: str = "",
        column_types: Mapping[str, ColumnType] | None = None,
        event_name_column: str = "",
        event_vendor_column: str = "",
        event_version_column: str = "",
        delimiter: str = ",",
        on_progress: Callable[[CsvProgress], None] | None = None,
        timeout: timedelta | None = None,
    ) -> CsvProgress:
        """Imports a CSV file (plain or gzip) whose first line names the columns; refused lines become dead letters.

        `key_columns` maps attribute key to column, `column_types` column to type (others are strings), or `collection`
        names a declared collection that says both. Without `event_id_column` ids come from line content and number, so
        that importing again adds nothing. FileNotFoundError when there is no such file.
        """
        options = make_options(
            occurred_at_column=occurred_at_column,
            key_columns=key_columns or {},
            event_type=event_pb2.EventType(vendor=event_vendor, name=event_name, version=event_version),
            event_type_columns=ingest_service_pb2.EventTypeColumns(
                vendor=event_vendor_column, name=event_name_column, version=event_version_column
            ),
            event_id_column=event_id_column,
            collection=collection,
            column_types=column_types or {},
            delimiter=delimiter,
        )
        return await import_file(self._transport, self._stub, Path(path), options, on_progress, timeout)

    async def close(self) -> None:
        """Delivers what waits in the buffer. Raises when something could not be delivered."""
        if self._batcher is not None:
            await self._batcher.close()

    async def _deliver(self, messages: Sequence[event_pb2.Event]) -> IngestResult:
        request = ingest_service_pb2.IngestRequest(events=messages)
        response = await self._transport.call(self._stub.Ingest, request)
        return read_result(response, messages)

    @cached_property
    def _stub(self) -> "IngestServiceAsyncStub":
        return IngestServiceStub(self._transport.channel("ingest"))
