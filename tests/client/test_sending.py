"""Events are sent in batches, once each, whatever happens to the calls."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from inkling import AsyncClient, BatchOptions, CustomerEvent, RetryPolicy
from inkling.errors import ClientClosed, EventRejected, InvalidArgument, ResourceExhausted, Unavailable
from tests.client.servers import Failure, Store, serving


async def collect(stream):
    return [each async for each in stream]


MakeEvent = Callable[[int], CustomerEvent]
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


async def test_a_lost_answer_is_retried_with_the_same_ids(client: AsyncClient, store: Store, make_event) -> None:
    store.failures.append(Failure(UNAVAILABLE, after_storing=True))
    result = await client.events.ingest([make_event(1), make_event(2)])
    assert result.accepted == 2
    assert store.sends == ["event-1", "event-2"] * 2
    assert set(store.events) == {"event-1", "event-2"}


async def test_events_without_an_id_get_one_that_survives_retries(client: AsyncClient, store: Store) -> None:
    store.failures += [Failure(UNAVAILABLE, after_storing=True), Failure(UNAVAILABLE)]
    event = CustomerEvent(name="x", occurred_at=datetime(2026, 1, 1, tzinfo=UTC), keys={"user_id": "1"})
    await client.events.ingest([event])
    assert len(store.events) == 1
    assert set(store.sends) == {event.event_id}


async def test_a_wrong_request_is_not_retried(client: AsyncClient, store: Store, make_event) -> None:
    store.failures.append(
        Failure(
            grpc.StatusCode.INVALID_ARGUMENT,
            message="the batch is wrong",
            reason="TOO_LARGE",
            violations=(("events", "at most 10,000 events"),),
            request_id="r-17",
        )
    )
    with pytest.raises(InvalidArgument, match="the batch is wrong") as raised:
        await client.events.ingest([make_event(1)])
    error = raised.value
    assert (error.code, error.reason, error.domain, error.request_id) == (
        *("INVALID_ARGUMENT", "TOO_LARGE", "ingest.inkling", "r-17"),
    )
    assert [(each.field, each.description) for each in error.violations] == [("events", "at most 10,000 events")]
    assert not store.sends


async def test_a_service_that_asks_to_wait_is_waited_for(client: AsyncClient, store: Store, make_event) -> None:
    store.failures.append(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after=0.3))
    loop = asyncio.get_running_loop()
    started = loop.time()
    await client.events.ingest([make_event(1)])
    assert loop.time() - started >= 0.3


async def test_too_much_is_not_retried_unless_the_service_says_when(client: AsyncClient, store, make_event) -> None:
    store.failures.append(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED))
    with pytest.raises(ResourceExhausted):
        await client.events.ingest([make_event(1)])


async def test_retries_end_with_their_number_and_with_the_deadline(address: str, store: Store, make_event) -> None:
    store.failures += [Failure(UNAVAILABLE)] * 10
    retry = RetryPolicy(attempts=3, first_delay=0.01)
    async with AsyncClient(ingest=address, retry=retry) as client:
        with pytest.raises(Unavailable):
            await client.events.ingest([make_event(1)])
        assert len(store.failures) == 7
    patient = RetryPolicy(attempts=1_000, first_delay=10.0, max_delay=10.0)
    async with AsyncClient(ingest=address, retry=patient, timeout=timedelta(seconds=1)) as client:
        with pytest.raises(Unavailable):
            await client.events.ingest([make_event(1)])
    assert len(store.failures) == 6


async def test_sent_events_leave_in_batches_by_size_and_by_time(client: AsyncClient, store, make_event) -> None:
    deliveries = [await client.events.send(make_event(number)) for number in range(25)]
    receipts = [await delivery for delivery in deliveries]
    assert store.batches == [10, 10, 5]
    assert [receipt.event_id for receipt in receipts] == [f"event-{number}" for number in range(25)]
    assert receipts[-1].position == 25


async def test_flush_waits_for_everything_and_sums_it_up(client: AsyncClient, store: Store, make_event) -> None:
    store.refused_ids.add("event-3")
    deliveries = [await client.events.send(make_event(number)) for number in range(12)]
    result = await client.events.flush()
    assert all(delivery.done() for delivery in deliveries)
    assert (result.accepted, result.position) == (11, 11)
    assert [(each.event_id, each.reason) for each in result.rejected] == [("event-3", "BAD_KEY")]
    with pytest.raises(EventRejected, match="no attribute key"):
        await deliveries[3]
    assert (await client.events.flush()).accepted == 0


async def test_a_full_buffer_holds_the_sender_back(client: AsyncClient, store: Store, make_event) -> None:
    store.gate = asyncio.Event()
    sent = 0

    async def send_all() -> None:
        nonlocal sent
        for number in range(80):
            await client.events.send(make_event(number))
            sent += 1

    sender = asyncio.create_task(send_all())
    await asyncio.sleep(0.2)
    assert sent == 50
    store.gate.set()
    await sender
    assert (await client.events.flush()).accepted == 80


async def test_what_could_not_be_delivered_is_told_to_the_event_and_to_flush(address: str, make_event) -> None:
    async with AsyncClient(ingest="127.0.0.1:1", retry=RetryPolicy(attempts=2, first_delay=0.01)) as client:
        delivery = await client.events.send(make_event(1))
        with pytest.raises(Unavailable):
            await client.events.flush()
        with pytest.raises(Unavailable):
            await delivery


async def test_closing_delivers_what_waits_and_refuses_what_comes_later(address, store: Store, make_event) -> None:
    batching = BatchOptions(max_delay=timedelta(hours=1))
    client = AsyncClient(ingest=address, batching=batching)
    await client.events.send(make_event(1))
    await client.close()
    assert set(store.events) == {"event-1"}
    with pytest.raises(ClientClosed):
        await client.events.send(make_event(2))
    with pytest.raises(ClientClosed):
        await client.events.ingest([make_event(2)])


async def test_long_lists_go_in_several_calls(client: AsyncClient, store: Store, make_event) -> None:
    result = await client.events.ingest([make_event(number) for number in range(10_500)])
    assert result.accepted == 10_500
    assert store.batches == [10_000, 500]


async def test_a_batch_of_large_events_is_cut_below_the_limit(client: AsyncClient, store: Store, make_event) -> None:
    large = [replace(make_event(number), properties={"text": "x" * 30_000}) for number in range(600)]
    assert (await client.events.ingest(large)).accepted == 600
    assert len(store.batches) > 1


async def test_a_stream_that_breaks_goes_on_where_it_was(client: AsyncClient, store: Store, make_event) -> None:
    store.break_stream_after += [2, 0, 5]
    acknowledged = [
        each async for each in client.events.stream((make_event(n) for n in range(95)), batch_size=10, window=4)
    ]
    assert [each.sequence for each in acknowledged] == list(range(1, 11))
    assert sum(each.result.accepted for each in acknowledged) == 95
    assert len(store.events) == 95
    assert not store.break_stream_after


async def test_a_stream_takes_an_asynchronous_source_and_passes_its_error_on(client: AsyncClient, make_event) -> None:
    async def source():
        for number in range(15):
            yield make_event(number)
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="the source broke"):
        await collect(client.events.stream(source(), batch_size=10))


async def test_a_stream_survives_a_restart_of_the_service(store: Store, make_event) -> None:
    async with serving(store) as address:
        port = int(address.rpartition(":")[2])
        client = AsyncClient(ingest=address, retry=RetryPolicy(attempts=50, first_delay=0.02, max_delay=0.1))
        source: asyncio.Queue[CustomerEvent | None] = asyncio.Queue()

        async def events():
            while (event := await source.get()) is not None:
                yield event

        stream = client.events.stream(events(), batch_size=1)
        source.put_nowait(make_event(1))
        assert (await anext(stream)).sequence == 1
    async with serving(store, port):
        source.put_nowait(make_event(2))
        source.put_nowait(None)
        assert [each.sequence async for each in stream] == [2]
        await client.close()
    assert set(store.events) == {"event-1", "event-2"}


async def test_a_csv_import_starts_again_after_a_break_and_tells_its_progress(
    client: AsyncClient, store: Store, tmp_path
) -> None:
    path = tmp_path / "sales.csv"
    path.write_text("ID,AT\n" + "\n".join(f"{n},2026-01-01" for n in range(100_000)) + "\n")
    store.failures.append(Failure(UNAVAILABLE))
    seen = []
    result = await client.events.import_csv(
        path,
        occurred_at_column="AT",
        key_columns={"user_id": "ID"},
        event_name="sale",
        column_types={"ID": "integer"},
        on_progress=seen.append,
    )
    assert store.csv == [path.read_bytes()]
    assert (result.lines, result.rejected, result.done) == (100_000, 1, True)
    assert result.errors[0].line == 3
    assert result.errors[0].reason == "BAD_TIME"
    assert seen[-1] == result
    assert store.csv_options[0].event_type.name == "sale"
    with pytest.raises(FileNotFoundError):
        await client.events.import_csv(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="it is one of string, number"):
        await client.events.import_csv(path, column_types={"ID": "decimal"})  # type: ignore[dict-item]


async def test_every_call_carries_the_key_and_may_be_compressed(address: str, store: Store, make_event) -> None:
    async with AsyncClient(api_key="secret", ingest=address, compression="gzip") as client:
        await client.events.ingest([make_event(1)])
    assert store.metadata[0]["authorization"] == "Bearer secret"


def test_half_made_options_are_refused() -> None:
    with pytest.raises(ValueError, match="max_events"):
        BatchOptions(max_events=0)
    with pytest.raises(ValueError, match="max_bytes"):
        BatchOptions(max_bytes=9 << 20)
