"""Ingest and features as real processes: what is acknowledged is read, whatever is killed."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from inkling.features.v1 import definition_service_pb2, profile_pb2, profile_service_pb2
from inkling.features.v1 import profile_service_pb2 as profiles
from inkling.ingest.v1 import event_pb2, ingest_service_pb2
from inkling.ingest.v1.ingest_service_pb2_grpc import IngestServiceStub
from inkling.types.v1.value_pb2 import Value
from services.runtime.auth import Role
from services.runtime.clocks import SystemClock
from tests.features.processes import ServiceProcess, Suite, create_key, running_suite
from tests.features.reading import read_values
from tests.features.serving import GROUP, Client, create

USERS = 50
SELECTION = profile_pb2.Selection(attribute_groups=[GROUP])


@asynccontextmanager
async def client_of(process: ServiceProcess, key: str) -> AsyncIterator[grpc.aio.Channel]:
    """A channel that shows a key with every call."""
    options = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100))
    interceptors = [_WithKey(key)]
    async with grpc.aio.insecure_channel(process.target, options=options, interceptors=interceptors) as channel:
        yield channel


class _WithKey(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, key: str) -> None:
        self._key = key

    async def intercept_unary_unary(self, continuation, client_call_details, request):  # type: ignore[no-untyped-def]
        metadata = grpc.aio.Metadata(("authorization", f"Bearer {self._key}"))
        details = client_call_details._replace(metadata=metadata, wait_for_ready=True)
        return await continuation(details, request)


def buy(number: int, price: float = 0.25) -> event_pb2.Event:
    """An event of one of the users, a moment ago."""
    now_us = SystemClock().now_us()
    return event_pb2.Event(
        event_id=f"e{number}",
        type=event_pb2.EventType(vendor="shop", name="buy"),
        occurred_at=Timestamp(seconds=now_us // 1_000_000 - 1),
        keys={"user_id": f"u{number % USERS}"},
        properties={"price": Value(double_value=price)},
    )


async def send(ingest: IngestServiceStub, first: int, count: int) -> int:
    """Sends events until they are acknowledged; returns their position."""
    request = ingest_service_pb2.IngestRequest(events=[buy(number) for number in range(first, first + count)])
    while True:
        try:
            answer = await ingest.Ingest(request, timeout=10)
        except grpc.aio.AioRpcError as error:
            assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)  # noqa: PT017
            await asyncio.sleep(0.05)
            continue
        assert not answer.rejected, answer.rejected[0]
        return int(answer.position)


async def counts(client: Client, position: int) -> list[int]:
    """How often each user bought, once a position is applied."""
    request = profiles.BatchGetProfilesRequest(
        key_values=[f"u{i}" for i in range(USERS)],
        selection=SELECTION,
        min_position=position,
        wait_timeout=Duration(seconds=30),
    )
    answer = await client.profiles.BatchGetProfiles(request, timeout=40)
    return [int(read_values(profile)["buys"][0] or 0) for profile in answer.profiles]


async def test_what_is_acknowledged_is_read_at_its_position(tmp_path: Path) -> None:
    async with (
        running_suite(tmp_path) as suite,
        client_of(suite.ingest, suite.keys["main"]) as to_ingest,
        client_of(suite.features, suite.keys["main"]) as to_features,
    ):
        ingest, client = IngestServiceStub(to_ingest), Client(to_features)
        await send(ingest, 0, 1_000)
        await create(client)
        await client.publish(GROUP)
        position = 0
        for start in range(1_000, 3_000, 100):
            position = await send(ingest, start, 100)
            request = profiles.GetProfileRequest(key_value="u7", selection=SELECTION, min_position=position)
            profile = await client.profiles.GetProfile(request)
            assert profile.position >= position
            assert read_values(profile)["buys"][0] == (start + 100) // USERS
        assert await counts(client, position) == [3_000 // USERS] * USERS


@pytest.mark.slow
async def test_after_features_is_killed_at_any_time_every_event_counts_once(tmp_path: Path) -> None:
    async with (
        running_suite(tmp_path, snapshot_events=1_000, snapshot_seconds=0.3) as suite,
        client_of(suite.ingest, suite.keys["main"]) as to_ingest,
        client_of(suite.features, suite.keys["main"]) as to_features,
    ):
        ingest, client = IngestServiceStub(to_ingest), Client(to_features)
        await create(client)
        await client.publish(GROUP)
        sent = 0
        position = 0
        going = asyncio.Event()

        async def load() -> None:
            nonlocal sent, position
            while not going.is_set():
                # Every batch twice: as a client does that heard no answer.
                await send(ingest, sent, 200)
                position = await send(ingest, sent, 200)
                sent += 200

        loading = asyncio.create_task(load())
        for pause in (0.2, 0.7, 0.4):
            await asyncio.sleep(pause)
            await suite.features.end(signal.SIGKILL)
            await suite.features.start()
        await suite.ingest.end(signal.SIGKILL)
        await suite.ingest.start()
        await asyncio.sleep(0.2)
        going.set()
        await loading
        assert sum(await counts(client, position)) == sent


async def test_projects_do_not_see_each_other(tmp_path: Path) -> None:
    async with running_suite(tmp_path) as suite:
        other = await create_key(tmp_path, "other", Role.INGEST, Role.READ, Role.DEFINE)
        async with (
            client_of(suite.ingest, suite.keys["main"]) as to_ingest,
            client_of(suite.features, suite.keys["main"]) as to_features,
            client_of(suite.ingest, other) as others_ingest,
            client_of(suite.features, other) as others_features,
        ):
            client, others_client = Client(to_features), Client(others_features)
            await create(client)
            await client.publish(GROUP)
            position = await send(IngestServiceStub(to_ingest), 0, 100)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await others_client.profiles.GetProfile(profiles.GetProfileRequest(key_value="u1", selection=SELECTION))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            await create(others_client)
            await others_client.publish(GROUP)
            others_position = await send(IngestServiceStub(others_ingest), 0, 50)
            assert await counts(client, position) == [2] * USERS
            assert await counts(others_client, others_position) == [1] * USERS


async def test_every_method_refuses_callers_without_a_key_or_without_the_role(tmp_path: Path) -> None:
    async with running_suite(tmp_path) as suite:
        reader = await create_key(tmp_path, "shop", Role.INGEST)
        async with grpc.aio.insecure_channel(suite.features.target) as channel:
            for file in (definition_service_pb2.DESCRIPTOR, profile_service_pb2.DESCRIPTOR):
                for service in file.services_by_name.values():
                    for method in service.methods:
                        path = f"/{service.full_name}/{method.name}"
                        for key, code in _wrong_keys(suite, reader):
                            assert await _code(channel, path, key, method.server_streaming) is code, (path, key)


def _wrong_keys(suite: Suite, reader: str) -> list[tuple[str, grpc.StatusCode]]:
    return [
        ("", grpc.StatusCode.UNAUTHENTICATED),
        ("Bearer wrong", grpc.StatusCode.UNAUTHENTICATED),
        (f"Bearer {reader}", grpc.StatusCode.PERMISSION_DENIED),
    ]


async def _code(channel: grpc.aio.Channel, path: str, key: str, streaming: bool) -> grpc.StatusCode:
    metadata = (("authorization", key),) if key else ()
    if streaming:
        stream = channel.unary_stream(path)(b"", metadata=metadata, timeout=10)
        return await stream.code()
    call = channel.unary_unary(path)(b"", metadata=metadata, timeout=10)
    return await call.code()
