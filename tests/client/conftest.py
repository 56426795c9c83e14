"""A server with injected failures, and clients of it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from inkling import AsyncClient, BatchOptions, CustomerEvent, RetryPolicy
from tests.client.servers import Store, serving

QUICK = RetryPolicy(attempts=6, first_delay=0.01, max_delay=0.05)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def address(store: Store) -> AsyncIterator[str]:
    async with serving(store) as found:
        yield found


@pytest.fixture
async def client(address: str) -> AsyncIterator[AsyncClient]:
    batching = BatchOptions(max_events=10, max_delay=timedelta(milliseconds=20), max_buffered=50, max_in_flight=2)
    async with AsyncClient(
        api_key="secret", ingest=address, features=address, retry=QUICK, batching=batching
    ) as opened:
        yield opened


@pytest.fixture
def make_event() -> Callable[[int], CustomerEvent]:
    def make(number: int) -> CustomerEvent:
        return CustomerEvent(
            name="purchase",
            occurred_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number),
            keys={"user_id": str(number)},
            properties={"amount": 1.5 * number, "count": number},
            event_id=f"event-{number}",
        )

    return make


@pytest.fixture
def threaded_address(store: Store) -> Iterator[str]:
    """The server on a loop of its own, for tests that run none."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    context = serving(store)
    yield asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result()
    asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
