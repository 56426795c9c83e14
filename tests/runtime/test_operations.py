"""Long-running operations on both databases: through a server, across restarts, and between owners."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from services.runtime.auth import KeyStore, Role, current_caller
from services.runtime.calls import current_call
from services.runtime.channels import open_channel
from services.runtime.clocks import ManualClock
from services.runtime.database import Database
from services.runtime.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from services.runtime.operations import OperationRunner, Progress, Resumer
from services.runtime.operations_service import operations_service
from services.runtime.paging import PageTokens
from services.runtime.server import Server
from services.runtime.settings import Settings

CODES = {name: code.value[0] for name, code in grpc.StatusCode.__members__.items()}


def opened(database: Database, **options: Any) -> AbstractAsyncContextManager[OperationRunner]:
    return OperationRunner.open(database, **{"owner": "one", "domain": "echo.inkling", **options})


@pytest.fixture
async def runner(database: Database) -> AsyncIterator[OperationRunner]:
    async with opened(database) as runner:
        yield runner


async def start(runner: OperationRunner, work: Any, project: str = "shop") -> str:
    operation = await runner.start("count", project, Int64Value(value=0), work)
    return str(operation.name)


async def at_once(progress: Progress) -> Message:
    return StringValue(value="done")


async def endless(progress: Progress) -> Message:
    await progress(Int64Value(value=7))
    await asyncio.Event().wait()
    raise AssertionError


def metadata(operation: operations_pb2.Operation) -> int:
    value = Int64Value()
    assert operation.metadata.Unpack(value)
    return int(value.value)


def response(operation: operations_pb2.Operation) -> str:
    value = StringValue()
    assert operation.response.Unpack(value)
    return str(value.value)


async def test_work_ends_with_a_response_and_its_last_metadata(runner: OperationRunner) -> None:
    async def work(progress: Progress) -> Message:
        for done in range(100):
            await progress(Int64Value(value=done))
        return StringValue(value="done")

    operation = await runner.wait("shop", await start(runner, work), 10)
    assert (operation.done, response(operation), metadata(operation)) == (True, "done", 99)


async def test_progress_is_seen_while_the_work_goes_on(runner: OperationRunner) -> None:
    name = await start(runner, endless)
    async with asyncio.timeout(5):
        while metadata(await runner.get("shop", name)) != 7:  # noqa: ASYNC110  (what is polled is a table)
            await asyncio.sleep(0.01)
    assert not (await runner.wait("shop", name, 0.05)).done


async def test_an_error_of_the_domain_is_the_operations_error(runner: OperationRunner) -> None:
    async def work(progress: Progress) -> Message:
        raise FailedPrecondition("the log was trimmed", reason="TRIMMED")

    operation = await runner.wait("shop", await start(runner, work), 10)
    assert (operation.error.code, operation.error.message) == (CODES["FAILED_PRECONDITION"], "the log was trimmed")


async def test_an_unexpected_error_tells_nothing_but_the_operations_name(runner: OperationRunner) -> None:
    async def work(progress: Progress) -> Message:
        raise ValueError("the secret is swordfish")

    name = await start(runner, work)
    operation = await runner.wait("shop", name, 10)
    assert operation.error.code == CODES["INTERNAL"]
    assert name in operation.error.message
    assert "swordfish" not in str(operation)


async def test_the_work_knows_its_caller_but_not_the_call(runner: OperationRunner) -> None:
    async def work(progress: Progress) -> Message:
        assert current_call() is None
        with pytest.raises(LookupError):
            current_caller()
        return StringValue(value="done")

    assert response(await runner.wait("shop", await start(runner, work), 10)) == "done"


async def test_cancelling_ends_the_work_and_a_finished_operation_stays_as_it_is(runner: OperationRunner) -> None:
    name = await start(runner, endless)
    await asyncio.sleep(0)
    await runner.cancel("shop", name)
    await runner.cancel("shop", name)
    operation = await runner.wait("shop", name, 10)
    assert operation.error.code == CODES["CANCELLED"]
    finished = await start(runner, at_once)
    await runner.wait("shop", finished, 10)
    await runner.cancel("shop", finished)
    assert response(await runner.get("shop", finished)) == "done"


async def test_work_cancelled_before_its_first_step_ends_as_well(runner: OperationRunner) -> None:
    name = await start(runner, endless)
    await runner.cancel("shop", name)
    assert (await runner.wait("shop", name, 10)).error.code == CODES["CANCELLED"]


async def test_only_finished_operations_are_deleted(runner: OperationRunner) -> None:
    name = await start(runner, endless)
    with pytest.raises(FailedPrecondition):
        await runner.delete("shop", name)
    await runner.cancel("shop", name)
    await runner.wait("shop", name, 10)
    await runner.delete("shop", name)
    with pytest.raises(NotFound):
        await runner.get("shop", name)


async def test_no_project_reaches_the_operations_of_another(runner: OperationRunner) -> None:
    name = await start(runner, at_once)
    await runner.wait("shop", name, 10)
    for attempt in (runner.get, runner.cancel, runner.delete):
        with pytest.raises(NotFound):
            await attempt("bank", name)
    with pytest.raises(NotFound):
        await runner.wait("bank", name, 1)


@pytest.mark.parametrize("name", ["", "operations/", "operations/a/b", "x", "operations/" + "a" * 65])
async def test_a_name_that_is_none_is_refused(runner: OperationRunner, name: str) -> None:
    with pytest.raises(InvalidArgument):
        await runner.get("shop", name)


async def resume(operation: operations_pb2.Operation, project: str, progress: Progress) -> Message:
    return StringValue(value=f"{project} went on at {metadata(operation)}")


@pytest.mark.parametrize("resumers", [{"count": resume}, {}])
async def test_what_an_ended_process_left_is_resumed_or_failed_with_a_reason(
    database: Database, resumers: dict[str, Resumer]
) -> None:
    async with opened(database) as first:
        name = await start(first, endless)
        async with asyncio.timeout(5):
            while metadata(await first.get("shop", name)) != 7:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    async with opened(database, resumers=resumers) as second:
        operation = await second.wait("shop", name, 10)
    if resumers:
        assert response(operation) == "shop went on at 7"
    else:
        assert operation.error.code == CODES["ABORTED"]
        assert "start it again" in operation.error.message


async def test_after_a_crash_its_owner_takes_up_its_work_at_once_and_others_when_the_lease_is_over(
    database: Database, clock: ManualClock
) -> None:
    """A crash is a runner that is never closed: here, one whose work and heart are simply not asked again."""
    async with opened(database, clock=clock) as crashed:
        crashed_names = [await start(crashed, endless) for _ in range(2)]
        await asyncio.sleep(0.05)
        async with opened(database, owner="two", clock=clock, resumers={"count": resume}) as other:
            assert not (await other.wait("shop", crashed_names[0], 0.1)).done
        clock.advance(16_000_000)
        async with opened(database, owner="two", clock=clock, resumers={"count": resume}) as other:
            assert (await other.wait("shop", crashed_names[0], 5)).done
        third = await start(crashed, endless)
        async with opened(database, owner="one", clock=clock, resumers={"count": resume}) as again:
            assert (await again.wait("shop", third, 5)).done


async def test_of_many_owners_one_takes_an_orphan_up(database: Database, clock: ManualClock) -> None:
    taken = []

    async def count(operation: operations_pb2.Operation, project: str, progress: Progress) -> Message:
        taken.append(operation.name)
        return StringValue(value="done")

    async with opened(database, clock=clock) as crashed:
        name = await start(crashed, endless)
        clock.advance(16_000_000)
        runners = [opened(database, owner=f"{n}", clock=clock, resumers={"count": count}) for n in range(4)]
        others = await asyncio.gather(*(runner.__aenter__() for runner in runners))
        assert (await others[0].wait("shop", name, 5)).done
        await asyncio.gather(*(runner.__aexit__(None, None, None) for runner in runners))
    assert taken == [name]


async def test_an_operation_is_cancelled_from_any_replica(database: Database) -> None:
    async with opened(database, lease_seconds=0.5) as runs, opened(database, owner="two") as asks:
        name = await start(runs, endless)
        await asks.cancel("shop", name)
        assert (await asks.wait("shop", name, 10)).error.code == CODES["CANCELLED"]


async def test_nothing_is_started_while_the_runner_closes(database: Database) -> None:
    async with opened(database) as runner:
        pass
    with pytest.raises(Unavailable):
        await start(runner, at_once)


# Through a server.


@pytest.fixture
async def stubs(
    runner: OperationRunner, keys: KeyStore, tmp_path: Path
) -> AsyncIterator[dict[str, operations_pb2_grpc.OperationsStub]]:
    """A stub for each of two projects."""
    service = operations_service(runner, PageTokens(b"secret"), frozenset({Role.READ}))
    async with Server.open(Settings(data_dir=tmp_path), [service], keys=keys) as server:
        channels = {}
        for project in ("shop", "bank"):
            _, secret = await keys.create(project, [Role.READ])
            channels[project] = open_channel(f"127.0.0.1:{server.port}", key=secret)
        yield {project: operations_pb2_grpc.OperationsStub(channel) for project, channel in channels.items()}
        for channel in channels.values():
            await channel.close()


async def test_the_standard_service_lists_pages_newest_first(runner: OperationRunner, stubs: dict[str, Any]) -> None:
    names = [await start(runner, at_once) for _ in range(5)]
    running = await start(runner, endless)
    await start(runner, at_once, project="bank")
    for name in names:
        await stubs["shop"].WaitOperation(operations_pb2.WaitOperationRequest(name=name))
    found: list[str] = []
    token = ""
    while True:
        page = await stubs["shop"].ListOperations(
            operations_pb2.ListOperationsRequest(filter="done=true", page_size=2, page_token=token)
        )
        assert len(page.operations) <= 2
        found += [operation.name for operation in page.operations]
        token = page.next_page_token
        if not token:
            break
    assert sorted(found) == sorted(names)
    page = await stubs["shop"].ListOperations(operations_pb2.ListOperationsRequest(filter="done=false"))
    assert [operation.name for operation in page.operations] == [running]
    assert len((await stubs["bank"].ListOperations(operations_pb2.ListOperationsRequest())).operations) == 1


async def test_the_standard_service_waits_cancels_and_deletes(runner: OperationRunner, stubs: dict[str, Any]) -> None:
    name = await start(runner, endless)
    shop, bank = stubs["shop"], stubs["bank"]
    wait = operations_pb2.WaitOperationRequest(name=name)
    wait.timeout.FromMilliseconds(50)
    assert not (await shop.WaitOperation(wait)).done
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await bank.CancelOperation(operations_pb2.CancelOperationRequest(name=name))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    await shop.CancelOperation(operations_pb2.CancelOperationRequest(name=name))
    ended = await shop.WaitOperation(operations_pb2.WaitOperationRequest(name=name))
    assert ended.error.code == CODES["CANCELLED"]
    await shop.DeleteOperation(operations_pb2.DeleteOperationRequest(name=name))
    with pytest.raises(grpc.aio.AioRpcError) as gone:
        await shop.GetOperation(operations_pb2.GetOperationRequest(name=name))
    assert gone.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    "request_",
    [
        operations_pb2.ListOperationsRequest(page_size=-1),
        operations_pb2.ListOperationsRequest(page_token="forged"),
        operations_pb2.ListOperationsRequest(filter="kind=publish"),
        operations_pb2.ListOperationsRequest(name="users/1"),
    ],
)
async def test_a_list_request_that_is_wrong_is_refused(stubs: dict[str, Any], request_: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stubs["shop"].ListOperations(request_)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
