"""Interceptors one by one, where a server would hide the case."""

import asyncio
from typing import Any, cast

import pytest

from services.runtime.calls import Call, Method, RawContext, current_call
from services.runtime.errors import DeadlineExceeded, ResourceExhausted
from services.runtime.interceptors import DeadlineCheck, Quota, RequestIds
from tests.runtime.echo import NAME

METHOD = Method(f"/{NAME}/Echo", "unary", "echo.inkling")


class Context:
    """The little of a context that these ask for."""

    def __init__(self, remaining: float | None = None) -> None:
        self.remaining = remaining

    def time_remaining(self) -> float | None:
        return self.remaining


def call(remaining: float | None = None, **metadata: str) -> Call:
    named: dict[str, Any] = {key.replace("_", "-"): value for key, value in metadata.items()}
    return Call(METHOD, cast("RawContext", Context(remaining)), named)


async def test_nothing_is_begun_for_a_caller_whose_time_is_over() -> None:
    begun = []
    for remaining in (None, 1.0, 0.0, -1.0):
        try:
            async with DeadlineCheck()(call(remaining)):
                begun.append(remaining)
        except DeadlineExceeded:
            pass
    assert begun == [None, 1.0]


async def test_a_timeout_at_the_callers_deadline_is_the_callers() -> None:
    ending = call(1.0)

    async def work() -> None:
        async with DeadlineCheck()(ending):
            cast("Context", ending.context).remaining = 0
            raise TimeoutError

    with pytest.raises(DeadlineExceeded):
        await work()


def test_a_bucket_fills_with_time_up_to_its_burst() -> None:
    now = 0.0
    waits: list[float] = []
    quota = Quota(rate=2, burst=3, monotonic=lambda: now)

    def taken() -> int:
        for count in range(10):
            try:
                quota.take("shop")
            except ResourceExhausted as error:
                waits.append(error.retry_after.total_seconds() if error.retry_after else 0)
                return count
        raise AssertionError

    assert taken() == 3
    now = 1.0
    assert taken() == 2
    now = 1000.0
    assert taken() == 3
    quota.take("bank")
    assert waits == [0.5, 0.5, 0.5]


async def test_a_task_that_outlives_its_call_belongs_to_no_call() -> None:
    released = asyncio.Event()

    async def later() -> Call | None:
        await released.wait()
        return current_call()

    async def handle() -> asyncio.Task[Call | None]:
        async with RequestIds()(call(x_request_id="mine-1")):
            named = current_call()
            assert named is not None
            assert named.request_id == "mine-1"
            return asyncio.create_task(later())

    task = await asyncio.create_task(handle())
    released.set()
    assert await task is None
