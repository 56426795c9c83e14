"""A real gRPC server that speaks the ingest and features protos and fails as a test tells it to."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from inkling.features.v1 import profile_pb2, profile_service_pb2, profile_service_pb2_grpc
from inkling.ingest.v1 import error_reason_pb2, event_pb2, ingest_service_pb2, ingest_service_pb2_grpc
from inkling.types.v1.value_pb2 import Value


@dataclass
class Failure:
    """How one call fails."""

    code: grpc.StatusCode
    message: str = "injected"
    reason: str = ""
    retry_after: float | None = None
    violations: tuple[tuple[str, str], ...] = ()
    request_id: str = ""
    after_storing: bool = False
    """The work is done, but the answer is lost."""

    async def abort(self, context: grpc.aio.ServicerContext) -> None:
        """Ends the call with the rich status."""
        details = []
        if self.reason:
            info = error_details_pb2.ErrorInfo(reason=f"ERROR_REASON_{self.reason}", domain="ingest.inkling")
            details.append(info)
        if self.retry_after is not None:
            delay = Duration()
            delay.FromNanoseconds(round(self.retry_after * 1e9))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        if self.violations:
            bad = error_details_pb2.BadRequest()
            for place, description in self.violations:
                bad.field_violations.add(field=place, description=description)
            details.append(bad)
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        trailing = [("grpc-status-details-bin", status.SerializeToString())]
        if self.request_id:
            trailing.append(("x-request-id", self.request_id))
        await context.abort(self.code, self.message, tuple(trailing))


@dataclass
class Store:
    """What arrived, and how the next calls fail."""

    failures: deque[Failure] = field(default_factory=deque)
    events: dict[str, event_pb2.Event] = field(default_factory=dict)
    sends: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    refused_ids: set[str] = field(default_factory=set)
    metadata: list[dict[str, str]] = field(default_factory=list)
    gate: asyncio.Event | None = None
    break_stream_after: deque[int] = field(default_factory=deque)
    watched: list[profile_service_pb2.WatchProfilesRequest] = field(default_factory=list)
    csv: list[bytes] = field(default_factory=list)
    csv_options: list[ingest_service_pb2.CsvOptions] = field(default_factory=list)

    def store(self, events: list[event_pb2.Event]) -> ingest_service_pb2.IngestResponse:
        """Keeps each id once and answers as ingest does."""
        self.batches.append(len(events))
        response = ingest_service_pb2.IngestResponse()
        for index, event in enumerate(events):
            self.sends.append(event.event_id)
            if event.event_id in self.refused_ids:
                response.rejected.add(
                    index=index,
                    reason=error_reason_pb2.ERROR_REASON_BAD_KEY,
                    field=f"events[{index}].keys",
                    message="no attribute key",
                    dead_letter="deadLetters/1",
                )
            else:
                self.events.setdefault(event.event_id, event)
                response.accepted_count += 1
        response.position = len(self.events)
        return response


class Ingest(ingest_service_pb2_grpc.IngestServiceServicer):
    """Ingest over a Store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def Ingest(self, request, context):  # noqa: N802
        self.store.metadata.append({key: str(value) for key, value in context.invocation_metadata()})
        if self.store.gate is not None:
            await self.store.gate.wait()
        failure = self.store.failures.popleft() if self.store.failures else None
        if failure and not failure.after_storing:
            await failure.abort(context)
        response = self.store.store(list(request.events))
        if failure:
            await failure.abort(context)
        return response

    async def IngestStream(self, request_iterator, context):  # noqa: N802
        limit = self.store.break_stream_after.popleft() if self.store.break_stream_after else None
        last = 0
        async for request in request_iterator:
            assert request.sequence > last
            last = request.sequence
            response = self.store.store(list(request.events))
            if limit == 0:
                await Failure(grpc.StatusCode.UNAVAILABLE).abort(context)
            limit = None if limit is None else limit - 1
            yield ingest_service_pb2.IngestStreamResponse(sequence=request.sequence, result=response)

    async def ImportCsv(self, request_iterator, context):  # noqa: N802
        failure = self.store.failures.popleft() if self.store.failures else None
        content = b""
        async for request in request_iterator:
            if request.HasField("options"):
                self.store.csv_options.append(request.options)
            content += request.chunk
            if failure and content:
                await failure.abort(context)
            lines = max(0, content.count(b"\n") - 1)
            yield ingest_service_pb2.ImportCsvResponse(line_count=lines, accepted_count=lines)
        self.store.csv.append(content)
        error = ingest_service_pb2.CsvError(
            line=3, column="AT", reason=error_reason_pb2.ERROR_REASON_BAD_TIME, message="not a time"
        )
        yield ingest_service_pb2.ImportCsvResponse(
            line_count=lines, accepted_count=lines - 1, rejected_count=1, errors=[error], position=lines, done=True
        )


class Profiles(profile_service_pb2_grpc.ProfileServiceServicer):
    """Profiles of one attribute, the length of the key value."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def GetProfile(self, request, context):  # noqa: N802
        if self.store.failures:
            await self.store.failures.popleft().abort(context)
        return profile(request.key_value)

    async def BatchGetProfiles(self, request, context):  # noqa: N802
        assert len(request.key_values) <= 1_000
        return profile_service_pb2.BatchGetProfilesResponse(profiles=[profile(each) for each in request.key_values])

    async def WatchProfiles(self, request, context):  # noqa: N802
        self.store.watched.append(request)
        start = int(request.resume_token or 0)
        for number in range(start + 1, start + 3):
            yield profile_service_pb2.WatchProfilesResponse(profiles=[profile("x" * number)], resume_token=str(number))
        await Failure(grpc.StatusCode.UNAVAILABLE).abort(context)


def profile(key_value: str) -> profile_pb2.Profile:
    """A profile with a value and a null."""
    answer = profile_pb2.Profile(attribute_key="user_id", key_value=key_value, position=7)
    answer.values.add(name="length", value=Value(int_value=len(key_value)), status=profile_pb2.VALUE_STATUS_PRESENT)
    answer.values.add(name="missing", status=profile_pb2.VALUE_STATUS_NEVER_SEEN)
    return answer


@contextlib.asynccontextmanager
async def serving(store: Store, port: int = 0) -> AsyncIterator[str]:
    """Runs the server and gives its address."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 16 << 20)])
    ingest_service_pb2_grpc.add_IngestServiceServicer_to_server(Ingest(store), server)
    profile_service_pb2_grpc.add_ProfileServiceServicer_to_server(Profiles(store), server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        await server.stop(0)
