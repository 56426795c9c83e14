"""The server as callers meet it: every kind of method, every way to fail, over a real channel."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from prometheus_client import CollectorRegistry, generate_latest

from services.runtime.auth import KeyStore, Role
from services.runtime.channels import open_channel
from services.runtime.server import Server, Service
from services.runtime.settings import Settings
from tests.runtime.echo import METHODS, NAME, READ, SECRET, EchoServicer, echo_service, send


@pytest.fixture
def servicer() -> EchoServicer:
    return EchoServicer()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def server(
    keys: KeyStore, servicer: EchoServicer, registry: CollectorRegistry, tmp_path: Path
) -> AsyncIterator[Server]:
    settings = Settings(data_dir=tmp_path, grace_seconds=0.5)
    async with Server.open(settings, [echo_service(servicer)], keys=keys, registry=registry) as opened:
        yield opened


@pytest.fixture
async def channel(server: Server, keys: KeyStore) -> AsyncIterator[grpc.aio.Channel]:
    """A channel whose key may read."""
    _, secret = await keys.create("shop", [Role.READ])
    async with open_channel(f"127.0.0.1:{server.port}", key=secret) as opened:
        yield opened


def details(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """The details of a status, by the name of their type."""
    status = rpc_status.from_call(error)
    assert status is not None
    found: dict[str, Any] = {}
    for packed in status.details:
        message = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2])()
        assert packed.Unpack(message)
        found[packed.TypeName().rpartition(".")[2]] = message
    return found


async def failure(calling: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await calling
    return caught.value


def test_the_interceptors_stand_in_their_order(server: Server) -> None:
    assert [interceptor.name for interceptor in server.interceptors] == [
        "request_id",
        "tracing",
        "metrics",
        "access_log",
        "errors",
        "auth",
        "quota",
        "deadline",
    ]


@pytest.mark.parametrize(
    ("method", "sent", "answered"),
    [
        ("Echo", ["hello"], ["hello"]),
        ("Expand", ["abc"], ["a", "b", "c"]),
        ("Write", ["abc"], ["a", "b", "c"]),
        ("Collect", ["a", "b"], ["ab"]),
        ("Chat", ["a", "b"], ["A", "B"]),
    ],
)
async def test_every_kind_of_method_answers(
    channel: grpc.aio.Channel, method: str, sent: list[str], answered: list[str]
) -> None:
    assert await send(channel, method, *sent) == answered


async def test_a_method_may_take_and_give_raw_bytes(channel: grpc.aio.Channel) -> None:
    assert await channel.unary_unary(f"/{NAME}/Raw")(b"\x01\x02\xff") == b"\xff\x02\x01"


async def test_the_caller_comes_from_the_key(channel: grpc.aio.Channel) -> None:
    assert await send(channel, "Echo", "who") == ["shop read"]


async def test_an_error_of_the_domain_carries_reason_domain_and_metadata(channel: grpc.aio.Channel) -> None:
    error = await failure(send(channel, "Echo", "missing"))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing")
    info = details(error)["ErrorInfo"]
    assert (info.reason, info.domain, dict(info.metadata)) == ("NO_SUCH_THING", "echo.inkling", {"thing": "a"})


async def test_an_error_tells_when_to_try_again(server: Server, keys: KeyStore) -> None:
    _, secret = await keys.create("shop", [Role.READ])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as plain:
        error = await failure(send(plain, "Echo", "later", metadata=(("authorization", f"Bearer {secret}"),)))
    delay = details(error)["RetryInfo"].retry_delay
    assert (delay.seconds, delay.nanos) == (2, 500_000_000)


async def test_violations_are_cut_to_what_trailers_hold_and_the_rest_is_counted(channel: grpc.aio.Channel) -> None:
    error = await failure(send(channel, "Echo", "violations"))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    found = details(error)
    shown = found["BadRequest"].field_violations
    assert 10 < len(shown) <= 25
    assert shown[0].field == "items[0]"
    assert shown[0].reason == "BAD"
    assert int(found["ErrorInfo"].metadata["omitted_violations"]) == 60 - len(shown)


@pytest.mark.parametrize("request_value", ["secret failure", "panic", "internal", "not a message"])
async def test_what_is_unexpected_tells_nothing_but_a_request_id(
    channel: grpc.aio.Channel, request_value: str, caplog: pytest.LogCaptureFixture
) -> None:
    error = await failure(send(channel, "Echo", request_value, metadata=(("x-request-id", "abc-1"),)))
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error; request id abc-1")
    assert details(error)["RequestInfo"].request_id == "abc-1"
    assert SECRET not in str(error)
    assert any(record.exc_info for record in caplog.records)


async def test_an_abort_by_hand_passes_as_it_is(channel: grpc.aio.Channel) -> None:
    error = await failure(send(channel, "Echo", "abort"))
    assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "by hand")


@pytest.mark.parametrize(
    ("method", "sent", "code"),
    [
        ("Expand", ["ab!"], grpc.StatusCode.OUT_OF_RANGE),
        ("Expand", ["ab?"], grpc.StatusCode.INTERNAL),
        ("Chat", ["a", "!"], grpc.StatusCode.OUT_OF_RANGE),
    ],
)
async def test_streams_map_their_errors_too(
    channel: grpc.aio.Channel, method: str, sent: list[str], code: grpc.StatusCode
) -> None:
    error = await failure(send(channel, method, *sent))
    assert error.code() == code
    assert SECRET not in str(error.details())
    assert details(error)["ErrorInfo"].domain == "echo.inkling"


async def test_a_generator_is_closed_when_its_caller_leaves(channel: grpc.aio.Channel, servicer: EchoServicer) -> None:
    call = channel.unary_stream(f"/{NAME}/Expand", StringValue.SerializeToString, StringValue.FromString)(
        StringValue(value="x" * 200_000)
    )
    await call.read()
    call.cancel()
    async with asyncio.timeout(5):
        await servicer.generator_closed.wait()


@pytest.mark.parametrize("method", ["Echo", "Expand", "Collect", "Chat"])
async def test_malformed_bytes_are_an_invalid_argument(channel: grpc.aio.Channel, method: str) -> None:
    kind = METHODS[method]
    call = getattr(channel, kind)(f"/{NAME}/{method}")
    garbage = b"\x0a\xff\xff"

    async def run() -> None:
        begun = call(iter([garbage]) if kind.startswith("stream") else garbage)
        if kind.endswith("stream"):
            async for _ in begun:
                pass
        else:
            await begun

    error = await failure(run())
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert details(error)["ErrorInfo"].reason == "MALFORMED"


async def test_an_unknown_method_is_unimplemented(channel: grpc.aio.Channel) -> None:
    assert (await failure(send(channel, "Nothing", "x"))).code() == grpc.StatusCode.UNIMPLEMENTED


async def test_a_method_without_a_policy_is_refused_whatever_the_roles(server: Server, keys: KeyStore) -> None:
    _, secret = await keys.create("shop", [role for role in Role if role is not Role.SERVICE])
    async with open_channel(f"127.0.0.1:{server.port}", key=secret) as channel:
        error = await failure(send(channel, "Forgotten", "x"))
    assert error.code() == grpc.StatusCode.PERMISSION_DENIED
    assert details(error)["ErrorInfo"].reason == "NO_POLICY"


async def test_a_service_whose_declared_method_has_no_policy_does_not_start(keys: KeyStore, tmp_path: Path) -> None:
    service = Service(
        name="health",
        domain="x",
        register=lambda server: None,
        health_names=("grpc.health.v1.Health",),
        policies={f"/grpc.health.v1.Health/{method}": READ for method in ("Check", "List")},
        descriptors=(health_pb2.DESCRIPTOR,),
    )
    with pytest.raises(ValueError, match=r"without a policy: /grpc\.health\.v1\.Health/Watch"):
        async with Server.open(Settings(data_dir=tmp_path), [service], keys=keys):
            pass


async def test_health_is_not_serving_until_told_and_needs_no_key(server: Server) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as plain:
        stub = health_pb2_grpc.HealthStub(plain)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=NAME))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", NAME):
            status = (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status
            assert status == health_pb2.HealthCheckResponse.NOT_SERVING
        live = await stub.Check(health_pb2.HealthCheckRequest(service="liveness"))
        assert live.status == health_pb2.HealthCheckResponse.SERVING
        server.set_serving()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        error = await failure(stub.Check(health_pb2.HealthCheckRequest(service="unknown")))
        assert error.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("on", [True, False])
async def test_reflection_is_a_setting(keys: KeyStore, tmp_path: Path, on: bool) -> None:
    settings = Settings(data_dir=tmp_path, reflection=on)
    async with (
        Server.open(settings, [echo_service(EchoServicer())], keys=keys) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as plain,
    ):
        stub = reflection_pb2_grpc.ServerReflectionStub(plain)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        if on:
            response = await call.read()
            assert NAME in [service.name for service in response.list_services_response.service]
        else:
            assert (await failure(call.read())).code() == grpc.StatusCode.UNIMPLEMENTED


async def test_the_deadline_of_the_caller_ends_the_work(channel: grpc.aio.Channel, servicer: EchoServicer) -> None:
    error = await failure(send(channel, "Echo", "sleep", timeout=0.2))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(5):
        await servicer.cancelled.wait()


async def test_calls_are_counted_and_timed_by_method_and_code(
    channel: grpc.aio.Channel, registry: CollectorRegistry
) -> None:
    await send(channel, "Echo", "hello")
    await failure(send(channel, "Echo", "missing"))
    await send(channel, "Expand", "abc")
    text = generate_latest(registry).decode()
    labels = f'grpc_method="Echo",grpc_service="{NAME}",grpc_type="unary"'
    assert f'grpc_server_handled_total{{grpc_code="OK",{labels}}} 1.0' in text
    assert f'grpc_server_handled_total{{grpc_code="NOT_FOUND",{labels}}} 1.0' in text
    assert f"grpc_server_started_total{{{labels}}} 2.0" in text
    assert f"grpc_server_handling_seconds_count{{{labels}}} 2.0" in text
    assert 'grpc_type="server_stream"' in text


async def test_a_sensible_request_id_is_kept_and_any_other_replaced(channel: grpc.aio.Channel) -> None:
    assert await send(channel, "Echo", "request id", metadata=(("x-request-id", "mine-1"),)) == ["mine-1"]
    [made] = await send(channel, "Echo", "request id", metadata=(("x-request-id", "no spaces, please"),))
    assert " " not in made
    assert made


async def test_two_servers_never_share_a_port(keys: KeyStore, server: Server, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        async with Server.open(Settings(data_dir=tmp_path, port=server.port), [], keys=keys):
            pass


async def test_a_message_above_the_limit_is_refused(keys: KeyStore, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, insecure=True, max_receive_bytes=10_000)
    async with (
        Server.open(settings, [echo_service(EchoServicer())], keys=keys) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as plain,
    ):
        assert await send(plain, "Echo", "x" * 9_000) == ["x" * 9_000]
        error = await failure(send(plain, "Echo", "x" * 11_000))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_project_over_its_rate_is_told_when_to_come_back(keys: KeyStore, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, insecure=True, quota_requests_per_second=0.5, quota_burst=2)
    async with (
        Server.open(settings, [echo_service(EchoServicer())], keys=keys) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as plain,
    ):
        for _ in range(2):
            await send(plain, "Echo", "x")
        error = await failure(send(plain, "Echo", "x"))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        found = details(error)
        assert found["ErrorInfo"].reason == "RATE_LIMITED"
        assert 1 <= found["RetryInfo"].retry_delay.seconds <= 2
        assert await send(plain, "Echo", "x", metadata=(("x-inkling-project", "other"),)) == ["x"]
