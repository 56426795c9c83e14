"""Keys and policies, on both databases and through a server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import sqlalchemy as sa

from services.runtime.auth import KeyStore, Role
from services.runtime.clocks import ManualClock
from services.runtime.database import Database
from services.runtime.errors import FailedPrecondition, InvalidArgument, NotFound, Unauthenticated, Unavailable
from services.runtime.server import Server
from services.runtime.settings import Settings
from tests.runtime.conftest import NOW_US
from tests.runtime.echo import METHODS, EchoServicer, echo_service, send

SERVICE_KEY = "s" * 40


@pytest.fixture
def store(database: Database, clock: ManualClock) -> KeyStore:
    return KeyStore(database, clock=clock)


async def test_a_key_verifies_as_its_project_and_roles(store: KeyStore) -> None:
    key_id, secret = await store.create("shop", [Role.READ, Role.INGEST])
    for _ in range(2):
        caller = await store.verify(secret)
        assert (caller.project, caller.roles, caller.key_id) == ("shop", {Role.READ, Role.INGEST}, key_id)


async def test_the_secret_is_nowhere_in_the_database(store: KeyStore, database: Database) -> None:
    _, secret = await store.create("shop", [Role.READ], description="for tests")
    async with database.session() as session:
        rows = str((await session.execute(sa.text("SELECT * FROM api_keys"))).all())
    assert secret not in rows
    assert secret.removeprefix("ink_") not in rows


async def test_unknown_and_misshapen_secrets_are_refused(store: KeyStore) -> None:
    for secret in ("", "ink_", "ink_" + "a" * 43, "x" * 10_000, "é"):
        with pytest.raises(Unauthenticated):
            await store.verify(secret)


async def test_a_key_ends_at_the_instant_of_its_expiry(store: KeyStore, clock: ManualClock) -> None:
    _, secret = await store.create("shop", [Role.READ], expires_at_us=NOW_US + 1_000)
    clock.advance(999)
    await store.verify(secret)
    clock.advance(1)
    with pytest.raises(Unauthenticated):
        await store.verify(secret)


async def test_a_revoked_key_is_refused_at_once_here_and_soon_elsewhere(database: Database, clock: ManualClock) -> None:
    now = 0.0
    here = KeyStore(database, clock=clock, cache_seconds=15)
    elsewhere = KeyStore(database, clock=clock, cache_seconds=15, monotonic=lambda: now)
    key_id, secret = await here.create("shop", [Role.READ])
    await here.verify(secret)
    await elsewhere.verify(secret)
    await here.revoke(key_id)
    with pytest.raises(Unauthenticated):
        await here.verify(secret)
    now = 14.9
    await elsewhere.verify(secret)
    now = 15.0
    with pytest.raises(Unauthenticated):
        await elsewhere.verify(secret)


async def test_revoking_again_keeps_the_first_time_and_an_unknown_key_is_not_found(
    store: KeyStore, clock: ManualClock
) -> None:
    key_id, _ = await store.create("shop", [Role.READ])
    await store.revoke(key_id)
    clock.advance(5)
    await store.revoke(key_id)
    [info] = await store.list()
    assert info.revoked_at_us == NOW_US
    with pytest.raises(NotFound):
        await store.revoke("nothing")


async def test_rotation_makes_an_equal_key_and_ends_the_old_one_after_the_overlap(
    store: KeyStore, clock: ManualClock
) -> None:
    old_id, old = await store.create("shop", [Role.READ, Role.DEFINE], description="backend")
    new_id, new = await store.rotate(old_id, overlap_seconds=60)
    assert (await store.verify(new)).roles == {Role.READ, Role.DEFINE}
    await store.verify(old)
    clock.advance(60_000_000)
    with pytest.raises(Unauthenticated):
        await store.verify(old)
    assert (await store.verify(new)).key_id == new_id
    with pytest.raises(FailedPrecondition):
        await store.rotate(old_id)
    with pytest.raises(NotFound):
        await store.rotate("nothing")


async def test_keys_are_listed_by_project_in_the_order_of_their_making(store: KeyStore, clock: ManualClock) -> None:
    made = []
    for project in ("shop", "bank", "shop"):
        made.append((await store.create(project, [Role.READ]))[0])
        clock.advance(1)
    assert [info.key_id for info in await store.list("shop")] == [made[0], made[2]]
    assert [info.key_id for info in await store.list()] == made


@pytest.mark.parametrize("project", ["", "Shop", "1shop", "shop/a", "s" * 64, "shop\n"])
async def test_a_project_must_have_a_projects_name(store: KeyStore, project: str) -> None:
    with pytest.raises(InvalidArgument):
        await store.create(project, [Role.READ])


async def test_a_key_without_roles_is_refused(store: KeyStore) -> None:
    with pytest.raises(InvalidArgument):
        await store.create("shop", [])


async def test_of_several_processes_one_makes_the_first_key(store: KeyStore, database: Database) -> None:
    others = [KeyStore(database) for _ in range(4)]
    made = await asyncio.gather(*(other.create_first("default", [Role.READ]) for other in others))
    [(_, secret)] = [key for key in made if key is not None]
    assert (await store.verify(secret)).project == "default"
    assert len(await store.list()) == 1


async def test_callers_that_come_at_once_ask_the_database_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = KeyStore(database)
    _, secret = await store.create("shop", [Role.READ])
    sessions = 0
    session = database.session

    def counted(**options: Any) -> Any:
        nonlocal sessions
        sessions += 1
        return session(**options)

    monkeypatch.setattr(database, "session", counted)
    await asyncio.gather(*(store.verify(secret) for _ in range(50)))
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            await store.verify("ink_" + "b" * 43)
    assert sessions == 2


async def test_without_the_database_nobody_new_gets_in(tmp_path: Path) -> None:
    async with Database.open(f"sqlite:///{tmp_path / 'auth.db'}") as empty:
        with pytest.raises((Unavailable, sa.exc.OperationalError)):
            await KeyStore(empty).verify("ink_" + "a" * 43)


# Through a server.


@pytest.fixture
async def server(keys: KeyStore, tmp_path: Path) -> AsyncIterator[Server]:
    async with Server.open(Settings(data_dir=tmp_path), [echo_service(EchoServicer())], keys=keys) as opened:
        yield opened


@pytest.fixture
async def channel(server: Server) -> AsyncIterator[grpc.aio.Channel]:
    """A channel without credentials."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as opened:
        yield opened


def bearer(secret: str, **more: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {secret}"), *((key.replace("_", "-"), value) for key, value in more.items()))


async def refusal(calling: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await calling
    return caught.value.code().name


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_refuses_who_has_no_wrong_an_ended_or_an_unfit_key(
    channel: grpc.aio.Channel, keys: KeyStore, clock: ManualClock, method: str
) -> None:
    _, expired = await keys.create("shop", [Role.READ], expires_at_us=NOW_US - 1)
    revoked_id, revoked = await keys.create("shop", [Role.READ])
    await keys.revoke(revoked_id)
    _, unfit = await keys.create("shop", [Role.INGEST, Role.DEFINE])
    for metadata in (
        (),
        (("authorization", ""),),
        (("authorization", "Basic c2hvcDpzaG9w"),),
        bearer(""),
        bearer("ink_" + "a" * 43),
        bearer(expired),
        bearer(revoked),
    ):
        assert await refusal(send(channel, method, "x", metadata=metadata)) == "UNAUTHENTICATED"
    assert await refusal(send(channel, method, "x", metadata=bearer(unfit))) == "PERMISSION_DENIED"


async def test_a_stranger_cannot_tell_which_methods_lack_a_policy(channel: grpc.aio.Channel) -> None:
    assert await refusal(send(channel, "Forgotten", "x")) == "UNAUTHENTICATED"


async def test_bytes_of_strangers_are_not_parsed(channel: grpc.aio.Channel) -> None:
    assert await refusal(channel.unary_unary("/test.v1.EchoService/Echo")(b"\x0a\xff")) == "UNAUTHENTICATED"


async def test_a_caller_may_not_choose_a_project(channel: grpc.aio.Channel, keys: KeyStore) -> None:
    _, secret = await keys.create("shop", [Role.READ])
    metadata = bearer(secret, x_inkling_project="bank")
    assert await refusal(send(channel, "Echo", "who", metadata=metadata)) == "PERMISSION_DENIED"


async def test_a_service_names_its_project_and_needs_a_policy_too(keys: KeyStore, tmp_path: Path) -> None:
    service = echo_service(EchoServicer())
    policies = dict(service.policies) | {"/test.v1.EchoService/Echo": frozenset({Role.SERVICE})}
    opened = type(service)(**{**vars(service), "policies": policies})
    async with (
        Server.open(Settings(data_dir=tmp_path), [opened], keys=keys) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        named = bearer(SERVICE_KEY, x_inkling_project="shop")
        assert await send(channel, "Echo", "who", metadata=named) == ["shop service"]
        assert await refusal(send(channel, "Echo", "who", metadata=bearer(SERVICE_KEY))) == "PERMISSION_DENIED"
        assert await refusal(send(channel, "Expand", "abc", metadata=named)) == "PERMISSION_DENIED"
        wrong = bearer(SERVICE_KEY, x_inkling_project="../bank")
        assert await refusal(send(channel, "Echo", "who", metadata=wrong)) == "INVALID_ARGUMENT"


async def test_insecure_serves_strangers_as_the_default_project(keys: KeyStore, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, insecure=True)
    async with (
        Server.open(settings, [echo_service(EchoServicer())], keys=keys) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        [who] = await send(channel, "Echo", "who")
        assert who.startswith("default ")
        [who] = await send(channel, "Echo", "who", metadata=(("x-inkling-project", "bank"),))
        assert who.startswith("bank ")
        assert await refusal(send(channel, "Echo", "who", metadata=bearer("wrong"))) == "UNAUTHENTICATED"
        assert await refusal(send(channel, "Forgotten", "x")) == "PERMISSION_DENIED"
