"""Channels between services: timeouts, retries, health, and what goes along with a call."""

import asyncio
import importlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from services.runtime.auth import KeyStore, Role
from services.runtime.call_rules import CALL_RULES, service_config
from services.runtime.calls import current_call
from services.runtime.channels import open_channel
from services.runtime.errors import Unavailable
from services.runtime.server import Server, Service
from services.runtime.settings import Settings

PROTOS = Path(__file__).parent.parent.parent / "protos"
INGEST = "inkling.ingest.v1.IngestService"
COLLECTIONS = "inkling.ingest.v1.CollectionService"
SERVICE_KEY = "s" * 40


def declared_methods() -> set[str]:
    """Every method of our protos, as `service/Method`."""
    found = set()
    for path in PROTOS.rglob("*_service.proto"):
        module = ".".join(path.relative_to(PROTOS).with_suffix("").parts) + "_pb2"
        for service in importlib.import_module(module).DESCRIPTOR.services_by_name.values():
            found |= {f"{service.full_name}/{method.name}" for method in service.methods}
    return found


def test_every_method_has_a_rule_and_every_rule_a_method() -> None:
    rules = {f"{service}/{method}" for service, methods in CALL_RULES.items() for method in methods}
    assert declared_methods() == {rule for rule in rules if rule.startswith("inkling.")}


def test_the_service_config_says_what_the_table_says() -> None:
    config = json.loads(service_config("some.Service"))
    assert config["loadBalancingConfig"] == [{"round_robin": {}}]
    assert config["healthCheckConfig"] == {"serviceName": "some.Service"}
    said = {
        (name["service"], name["method"]): (entry.get("timeout"), "retryPolicy" in entry)
        for entry in config["methodConfig"]
        for name in entry["name"]
    }
    for service, methods in CALL_RULES.items():
        for method, rule in methods.items():
            timeout = None if rule.timeout_seconds is None else f"{rule.timeout_seconds:g}s"
            assert said.pop((service, method)) == (timeout, rule.idempotent)
    assert not said
    for entry in config["methodConfig"]:
        if "retryPolicy" in entry:
            assert entry["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
            assert entry["retryPolicy"]["maxAttempts"] == 3


@asynccontextmanager
async def serving(keys: KeyStore, folder: Path, methods: dict[str, Any], **settings: Any) -> AsyncIterator[Server]:
    """A server whose methods take and give bytes, open to services."""

    def register(server: grpc.aio.Server) -> None:
        for name, behavior in methods.items():
            service, method = name.split("/")
            handlers = {method: grpc.unary_unary_rpc_method_handler(behavior)}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    service = Service(
        name="fake",
        domain="fake.inkling",
        register=register,
        health_names=tuple({name.split("/")[0] for name in methods}),
        policies={f"/{name}": frozenset({Role.SERVICE}) for name in methods},
    )
    options = Settings(data_dir=folder, grace_seconds=0.2, **settings)
    async with Server.open(options, [service], keys=keys) as server:
        server.set_serving()
        yield server


def opened(server: Server, **options: Any) -> grpc.aio.Channel:
    return open_channel(f"127.0.0.1:{server.port}", **{"key": SERVICE_KEY, "project": "shop", **options})


async def another_key(keys: KeyStore) -> str:
    _, secret = await keys.create("shop", [Role.SERVICE])
    return secret


@pytest.mark.parametrize(("method", "tries"), [(f"{INGEST}/Ingest", 3), (f"{COLLECTIONS}/CreateCollection", 1)])
async def test_only_idempotent_methods_are_tried_again(keys: KeyStore, tmp_path: Path, method: str, tries: int) -> None:
    seen = 0

    async def fail(request: bytes, context: Any) -> bytes:
        nonlocal seen
        seen += 1
        raise Unavailable("not now")

    async with serving(keys, tmp_path, {method: fail}) as server, opened(server) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await channel.unary_unary(f"/{method}")(b"")
    assert failed.value.code() == grpc.StatusCode.UNAVAILABLE
    assert seen == tries


async def test_a_call_has_the_timeout_of_its_method(keys: KeyStore, tmp_path: Path) -> None:
    async def remaining(request: bytes, context: Any) -> bytes:
        return str(context.time_remaining()).encode()

    async with serving(keys, tmp_path, {f"{INGEST}/Ingest": remaining}) as server, opened(server) as channel:
        call = channel.unary_unary(f"/{INGEST}/Ingest")
        assert 10 < float(await call(b"")) < 15.5  # the wire rounds
        assert 0 < float(await call(b"", timeout=3)) < 3.5


async def test_the_request_id_and_the_deadline_of_a_call_go_along_but_not_its_credential(
    keys: KeyStore, tmp_path: Path
) -> None:
    async def inner(request: bytes, context: Any) -> bytes:
        metadata = dict(context.invocation_metadata())
        call = current_call()
        assert call is not None
        shown = {"id": call.request_id, "left": context.time_remaining(), "key": metadata["authorization"]}
        return json.dumps(shown).encode()

    async with serving(keys, tmp_path, {f"{INGEST}/Ingest": inner}) as back, opened(back) as behind:

        async def outer(request: bytes, context: Any) -> bytes:
            answer: bytes = await behind.unary_unary(f"/{INGEST}/Ingest")(b"")
            return answer

        async with (
            serving(keys, tmp_path, {"front.Front/Call": outer}) as front,
            opened(front, key=await another_key(keys)) as channel,
        ):
            metadata = (("x-request-id", "mine-1"),)
            answer = await channel.unary_unary("/front.Front/Call")(b"", timeout=4, metadata=metadata)
    shown = json.loads(answer)
    assert shown["id"] == "mine-1"
    assert 0 < shown["left"] < 4.5
    assert shown["key"] == f"Bearer {SERVICE_KEY}"


async def test_replicas_that_are_not_serving_get_no_calls(keys: KeyStore, tmp_path: Path) -> None:
    def named(name: bytes) -> Callable[..., Any]:
        async def answer(request: bytes, context: Any) -> bytes:
            return name

        return answer

    method = f"{INGEST}/Ingest"
    async with (
        serving(keys, tmp_path, {method: named(b"one")}) as one,
        serving(keys, tmp_path, {method: named(b"two")}) as two,
        open_channel(
            f"ipv4:127.0.0.1:{one.port},127.0.0.1:{two.port}", key=SERVICE_KEY, project="shop", health_service=INGEST
        ) as channel,
    ):
        call = channel.unary_unary(f"/{method}")

        async def answering(expected: set[bytes]) -> None:
            async with asyncio.timeout(10):
                while {await call(b"", wait_for_ready=True) for _ in range(10)} != expected:
                    pass

        await answering({b"one", b"two"})
        one.set_serving(False)
        await answering({b"two"})
        one.set_serving()
        await answering({b"one", b"two"})
