"""The appender over a log in memory: groups, order, overload, a log that fails."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from inkling.ingest.v1.event_pb2 import Event
from inkling.ingest.v1.ingest_service_pb2 import IngestRequest
from services.ingest.appender import Appender, Limits
from services.ingest.collections import Collections
from services.ingest.dead_letters import DeadLetters
from services.ingest.decode import Decoder, Part
from services.ingest.log import EventLog, PositionRange
from services.ingest.log.base import log_unavailable
from services.ingest.metrics import IngestMetrics
from services.ingest.projects import Projects
from services.ingest.store import MIGRATIONS, CollectionStore, DeadLetterStore, ProjectStore
from services.kernel.columns import EventBatch
from services.runtime.clocks import ManualClock
from services.runtime.database import Database
from services.runtime.errors import InvalidArgument, ResourceExhausted, Unavailable
from tests.ingest.events import NOW, event

NOW_US = int(NOW.timestamp() * 1e6)


@dataclass
class MemoryLog:
    """As much of a log as the appender uses; `gate` holds appends back, `broken` makes them fail."""

    batches: list[list[str]] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    broken: bool = False

    async def append(self, project: str, data: bytes, count: int, **times: int) -> PositionRange:
        if self.broken:
            raise log_unavailable("the disk is full")
        ids: list[str] = EventBatch.from_ipc(data).record_batch["event_id"].to_pylist()
        assert len(ids) == count
        first = 1 + sum(map(len, self.batches))
        self.batches.append(ids)
        self.received.append(times["received_us"])
        await self.gate.wait()
        return PositionRange(first, first + count - 1)


@dataclass
class Bench:
    """An appender and what is around it."""

    appender: Appender
    log: MemoryLog
    clock: ManualClock
    dead_letters: DeadLetters

    def send(self, *events: Event) -> "asyncio.Task[object]":
        """Starts an append."""
        part = Part(IngestRequest(events=events).SerializeToString())
        return asyncio.create_task(self.appender.append("p", part))


@asynccontextmanager
async def open_bench(tmp_path: Path, limits: Limits) -> AsyncIterator[Bench]:
    log, clock = MemoryLog(), ManualClock(NOW_US)
    double: EventLog = log  # type: ignore[assignment]
    with ThreadPoolExecutor(1) as executor:
        async with Database.open(f"sqlite:///{tmp_path / 'ingest.db'}", MIGRATIONS) as database:
            dead_letters = DeadLetters(DeadLetterStore(database), clock)
            appender = Appender(
                double,
                Decoder(1),
                Projects(ProjectStore(database), double, clock),
                Collections(CollectionStore(database), clock),
                dead_letters,
                IngestMetrics(CollectorRegistry()),
                clock,
                executor,
                limits,
            )
            yield Bench(appender, log, clock, dead_letters)
            log.gate.set()
            await appender.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path, Limits()) as opened:
        yield opened


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_calls_that_wait_become_one_batch(bench: Bench) -> None:
    first = bench.send(event("0"))
    await until(lambda: len(bench.log.batches) == 1)
    second = bench.send(event("1"))
    await until(lambda: len(bench.log.batches) == 2)
    others = [bench.send(event(str(i)), event(f"{i}+")) for i in range(2, 10)]
    await asyncio.sleep(0.05)
    assert len(bench.log.batches) == 2
    bench.log.gate.set()
    outcomes = await asyncio.gather(first, second, *others)
    assert bench.log.batches[2:] == [[text for i in range(2, 10) for text in (str(i), f"{i}+")]]
    assert [outcome.position for outcome in outcomes] == [1, 2, *range(4, 20, 2)]  # type: ignore[attr-defined]


async def test_a_group_has_a_size(tmp_path: Path) -> None:
    async with open_bench(tmp_path, Limits(group_bytes=200)) as bench:
        calls = [bench.send(event(f"{i}")) for i in range(20)]
        bench.log.gate.set()
        await asyncio.gather(*calls)
        assert sorted(map(len, bench.log.batches)) != [20]
        assert [text for batch in bench.log.batches for text in batch] == [str(i) for i in range(20)]


async def test_large_groups_are_prepared_in_a_thread_and_keep_their_order(tmp_path: Path) -> None:
    async with open_bench(tmp_path, Limits(loop_bytes=100)) as bench:
        bench.log.gate.set()
        calls = [bench.send(*(event(f"{i}-{k}") for k in range(1 + i % 3 * 40))) for i in range(12)]
        await asyncio.gather(*calls)
        sent = [f"{i}-{k}" for i in range(12) for k in range(1 + i % 3 * 40)]
        assert [text for batch in bench.log.batches for text in batch] == sent


async def test_too_much_waiting_is_refused_with_the_time_to_come_back(tmp_path: Path) -> None:
    async with open_bench(tmp_path, Limits(waiting_bytes=1000, waiting_bytes_of_project=600)) as bench:
        calls = [bench.send(event(f"{i}")) for i in range(30)]
        await until(lambda: any(call.done() for call in calls))
        bench.log.gate.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        refused = [result for result in results if isinstance(result, ResourceExhausted)]
        assert 0 < len(refused) < 30
        assert all(error.retry_after for error in refused)
        assert (await bench.send(event("after"))).accepted == 1  # type: ignore[attr-defined]


async def test_a_log_that_fails_fails_its_calls_and_works_again(bench: Bench) -> None:
    bench.log.gate.set()
    bench.log.broken = True
    results = await asyncio.gather(*(bench.send(event(f"{i}")) for i in range(5)), return_exceptions=True)
    assert all(isinstance(result, Unavailable) and result.reason == "LOG_UNAVAILABLE" for result in results)
    bench.log.broken = False
    assert (await bench.send(event("again"))).position == 1  # type: ignore[attr-defined]


async def test_a_malformed_call_does_not_fail_those_beside_it(bench: Bench) -> None:
    bench.log.gate.set()
    bad = asyncio.create_task(bench.appender.append("p", Part(b"\x0a\x05\x0a")))
    good = bench.send(event("e1"))
    results = await asyncio.gather(bad, good, return_exceptions=True)
    assert isinstance(results[0], InvalidArgument)
    assert results[1].accepted == 1  # type: ignore[union-attr]


async def test_received_times_never_go_back(bench: Bench) -> None:
    bench.log.gate.set()
    await bench.send(event("e1"))
    bench.clock.advance(-5_000_000)
    await bench.send(event("e2"))
    assert bench.log.received == [NOW_US, NOW_US]


async def test_a_cancelled_call_leaves_the_others(bench: Bench) -> None:
    calls = [bench.send(event(f"{i}")) for i in range(3)]
    await until(lambda: bool(bench.log.batches))
    calls[1].cancel()
    bench.log.gate.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[1], asyncio.CancelledError)
    assert {results[0].position, results[2].position} == {1, 3}  # type: ignore[union-attr]


async def test_what_is_refused_is_kept_before_it_is_answered(bench: Bench) -> None:
    bench.log.gate.set()
    outcome = await bench.send(event(""), event("e1"))
    (refused,) = outcome.refused  # type: ignore[attr-defined]
    letters = await bench.dead_letters.get("p", [refused.letter_id])
    assert letters[refused.letter_id].event == event("").SerializeToString()
