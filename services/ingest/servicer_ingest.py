"""IngestService: takes raw requests, calls the appender, the import and the subscriptions, formats what they say."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from typing import Any

import grpc
import grpc.aio

from inkling.ingest.v1 import ingest_service_pb2 as messages
from services.ingest.appender import Appender, Outcome
from services.ingest.collections import Collections
from services.ingest.csv_import import CsvImport
from services.ingest.dead_letters import DeadLetters
from services.ingest.decode import Part
from services.ingest.insights_client import InsightChanges
from services.ingest.messages import (
    changed_message,
    csv_options_from,
    outcome_message,
    part_message,
    progress_messages,
    resource_id,
)
from services.ingest.metrics import IngestMetrics
from services.ingest.subscriptions import Shards, Subscription, Subscriptions
from services.runtime.auth import Role, current_caller
from services.runtime.errors import InvalidArgument

# The names of the methods are the protocol's.

SERVICE_NAME = "inkling.ingest.v1.IngestService"
SUBSCRIBE = f"/{SERVICE_NAME}/Subscribe"
POLICIES = {
    f"/{SERVICE_NAME}/Ingest": frozenset({Role.INGEST, Role.SERVICE}),
    f"/{SERVICE_NAME}/IngestStream": frozenset({Role.INGEST}),
    f"/{SERVICE_NAME}/ImportCsv": frozenset({Role.INGEST}),
    SUBSCRIBE: frozenset({Role.SERVICE, Role.OPERATE}),
}
_COMPRESSIONS = {
    messages.COMPRESSION_UNSPECIFIED: "lz4",
    messages.COMPRESSION_NONE: None,
    messages.COMPRESSION_LZ4: "lz4",
    messages.COMPRESSION_ZSTD: "zstd",
}
_CONSUMERS = 100

Context = grpc.aio.ServicerContext[Any, Any]


class IngestServicer:
    """Takes events in, and hands them on. Batches of events arrive here as bytes, unread."""

    def __init__(
        self,
        appender: Appender,
        collections: Collections,
        dead_letters: DeadLetters,
        subscriptions: Subscriptions,
        metrics: IngestMetrics,
        executor: Executor,
        stream_window: int,
        insights: InsightChanges | None = None,
    ) -> None:
        self._appender = appender
        self._collections = collections
        self._dead_letters = dead_letters
        self._subscriptions = subscriptions
        self._metrics = metrics
        self._executor = executor
        self._stream_window = stream_window
        self._insights = insights
        self._consumers: set[str] = set()

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the methods; those without a deserialiser get bytes."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Ingest": grpc.unary_unary_rpc_method_handler(self.Ingest, None, messages.IngestResponse.SerializeToString),
            "IngestStream": grpc.stream_stream_rpc_method_handler(
                self.IngestStream, None, messages.IngestStreamResponse.SerializeToString
            ),
            "ImportCsv": grpc.stream_stream_rpc_method_handler(
                self.ImportCsv, messages.ImportCsvRequest.FromString, messages.ImportCsvResponse.SerializeToString
            ),
            "Subscribe": grpc.unary_stream_rpc_method_handler(
                self.Subscribe, messages.SubscribeRequest.FromString, messages.SubscribeResponse.SerializeToString
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))

    async def Ingest(self, request: bytes, context: Context) -> messages.IngestResponse:
        """Appends a batch."""
        caller = current_caller()
        part = Part(request, by_service=Role.SERVICE in caller.roles)
        outcome = await self._appender.append(caller.project, part)
        answer = outcome_message(outcome)
        if outcome.asked is not None and self._insights is not None:
            remaining = context.time_remaining()
            changes = await self._insights.changes(
                caller.project, outcome.first_position, outcome.position, outcome.asked, remaining
            )
            if changes is not None:
                answer.insights_evaluated = True
                answer.changed_insights.extend(changed_message(each) for each in changes)
        return answer

    async def IngestStream(
        self, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[messages.IngestStreamResponse]:
        """Appends batches, several at a time, and acknowledges them in their order.

        The first that fails ends the stream with its error; the client sends again what was not acknowledged.
        """
        project = current_caller().project
        pending: asyncio.Queue[tuple[int, asyncio.Task[Outcome]] | None] = asyncio.Queue(self._stream_window)
        reader = asyncio.create_task(self._read_stream(project, requests, pending))
        try:
            while (acknowledged := await pending.get()) is not None:
                sequence, task = acknowledged
                yield messages.IngestStreamResponse(sequence=sequence, result=outcome_message(await task))
            await reader
        finally:
            reader.cancel()
            await asyncio.wait((reader,))
            while not pending.empty():
                left = pending.get_nowait()
                if left is not None:
                    left[1].cancel()

    async def _read_stream(
        self,
        project: str,
        requests: AsyncIterator[bytes],
        pending: "asyncio.Queue[tuple[int, asyncio.Task[Outcome]] | None]",
    ) -> None:
        last = None
        try:
            async for request in requests:
                sequence = sequence_of(request)
                if last is not None and sequence <= last:
                    raise InvalidArgument("sequence must rise within a stream", reason="OUT_OF_RANGE")
                last = sequence
                task = asyncio.create_task(self._appender.append(project, Part(request, streamed=True)))
                await pending.put((sequence, task))
        finally:
            await pending.put(None)

    async def ImportCsv(
        self, requests: AsyncIterator[messages.ImportCsvRequest], context: Context
    ) -> AsyncIterator[messages.ImportCsvResponse]:
        """Imports a file."""
        project = current_caller().project
        first = await anext(aiter(requests), None)
        if first is None or not first.HasField("options"):
            raise InvalidArgument("the first message must carry the options", reason="BAD_LINE")
        declaration = None
        if first.options.collection:
            collection_id = resource_id(first.options.collection, "collections")
            declaration = (await self._collections.get(project, collection_id)).declaration
        options = csv_options_from(first.options, declaration)

        async def chunks() -> AsyncIterator[bytes]:
            yield first.chunk
            async for request in requests:
                yield request.chunk

        importing = CsvImport(project, options, self._appender, self._dead_letters, self._executor)
        async for progress in importing.run(chunks()):
            for message in progress_messages(progress, done=importing.done):
                yield message

    async def Subscribe(
        self, request: messages.SubscribeRequest, context: Context
    ) -> AsyncIterator[messages.SubscribeResponse]:
        """Follows the log."""
        if request.compression not in _COMPRESSIONS:
            raise InvalidArgument("there is no such compression", reason="OUT_OF_RANGE")
        shards = None
        if request.HasField("shards"):
            shards = Shards(request.shards.attribute_key, request.shards.first, request.shards.last)
        subscription = Subscription(
            request.after_position, shards, _COMPRESSIONS[request.compression], request.max_bytes, request.stop_at_head
        )
        with self._metrics.subscribers.labels(self._consumer(request.consumer)).track_inprogress():
            async for part in self._subscriptions.follow(current_caller().project, subscription):
                yield part_message(part)

    def _consumer(self, name: str) -> str:
        """The name for metrics, of which there may not be too many."""
        name = name[:64]
        if len(self._consumers) < _CONSUMERS:
            self._consumers.add(name)
        return name if name in self._consumers else "other"


def sequence_of(request: bytes) -> int:
    """The sequence of an IngestStreamRequest, without reading the rest where it stands first, as it does."""
    if request[:1] == b"\x08":
        value = 0
        for place, byte in enumerate(request[1:10]):
            value |= (byte & 127) << (7 * place)
            if byte < 128:
                return value
    if request[:1] == b"\x12" or not request:
        # Ordinary encoders leave out a sequence of 0.
        return 0
    try:
        return messages.IngestStreamRequest.FromString(request).sequence
    except Exception:
        raise InvalidArgument("the request is not a well-formed message", reason="MALFORMED") from None
