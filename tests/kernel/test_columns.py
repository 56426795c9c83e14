"""Event batches: what goes in comes out again, through IPC, merges, slices and shards."""

import zlib
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.building import Entity, EventRow, build_batch, from_us, to_us
from services.kernel.columns import EventBatch, merge, shard_codes, shard_of, sorted_columns, to_ipc

from .strategies import KEY, events


def rows_of(batch: EventBatch) -> list[dict[str, object]]:
    """The events of a batch with nulls left out: merged batches have more columns, not more content."""
    return [{k: v for k, v in row.items() if v is not None} for row in batch.record_batch.to_pylist()]


ROW = EventRow(
    "id", "view", 5, 6, {"user": "ada"}, "shop", "1-0-0",
    properties={"s": "x", "i": 1, "d": 1.5, "b": True, "t": from_us(1_000_000), "l": ["a"], "n": None},
    data={"a.b": 2},
    entities=(Entity("v", "n", 1, {"p": 1}), Entity("v", "n", 2, {"p": 2}), Entity("v", "n", 1, {"p": 3})),
)  # fmt: skip


def test_a_row_becomes_typed_columns_in_the_order_of_the_log() -> None:
    record_batch = build_batch([ROW])
    assert record_batch.schema.names[7:] == [
        "k.user", "a.b:b", "a.d:d", "a.i:i", "a.l:l", "a.s:s", "a.t:t", "d.a.b:i",
        "e.v/n/1[0].p:i", "e.v/n/1[1].p:i", "e.v/n/2[0].p:i",
    ]  # fmt: skip
    values = record_batch.to_pylist()[0]
    assert values["event_type"] == "shop/view/1-0-0"
    assert values["a.t:t"] == 1_000_000
    assert values["e.v/n/1[1].p:i"] == 3
    assert sorted_columns(reversed(record_batch.schema.names)) == record_batch.schema.names


def test_the_fingerprint_is_of_the_content_whatever_its_order() -> None:
    def fingerprint(**properties: int) -> int:
        return int(
            EventBatch(build_batch([EventRow("1", "e", 0, 0, {"u": "a"}, properties=properties)])).fingerprint[0]
        )

    assert fingerprint(a=1, b=2) == fingerprint(b=2, a=1)
    assert fingerprint(a=1, b=2) != fingerprint(a=2, b=1)


@pytest.mark.parametrize("compression", ["lz4", "zstd", None])
@given(log=st.lists(events(), max_size=8))
def test_a_batch_comes_through_ipc_as_it_was(compression: str | None, log: list[EventRow]) -> None:
    record_batch = build_batch(log)
    back = EventBatch.from_ipc(to_ipc(record_batch, compression))
    assert back.record_batch.schema == record_batch.schema
    assert rows_of(back) == rows_of(EventBatch(record_batch))


def test_an_ipc_stream_of_several_batches_reads_as_one() -> None:
    first, second = build_batch([ROW]), build_batch([ROW])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, first.schema) as writer:
        writer.write_batch(first)
        writer.write_batch(second)
    assert EventBatch.from_ipc(sink.getvalue()).num_rows == 2


@pytest.mark.parametrize("data", [b"", b"no arrow", b"\xff\xff\xff\xff\x00\x00\x00\x01"])
def test_bytes_that_are_no_stream_are_refused(data: bytes) -> None:
    with pytest.raises(pa.ArrowInvalid):
        EventBatch.from_ipc(data)


@given(parts=st.lists(st.lists(events(), max_size=4), min_size=1, max_size=4))
def test_merging_puts_rows_together_in_order(parts: list[list[EventRow]]) -> None:
    batches = [EventBatch(build_batch(part)) for part in parts]
    merged = merge(batches)
    assert rows_of(merged) == [row for batch in batches for row in rows_of(batch)]
    assert merged.num_rows == sum(map(len, parts))


@given(log=st.lists(events(), min_size=1, max_size=8), data=st.data())
def test_columns_of_a_slice_and_of_a_selection_are_those_of_its_rows(log: list[EventRow], data: st.DataObject) -> None:
    whole = EventBatch(build_batch(log))
    start = data.draw(st.integers(0, len(log) - 1))
    chosen = np.array(data.draw(st.lists(st.integers(0, len(log) - 1), max_size=8)), np.int64)
    for batch, rows in ((whole.slice(start), log[start:]), (whole.take(chosen), [log[i] for i in chosen])):
        offsets, content = batch.event_ids
        ids = [bytes(content[a:b]).decode() for a, b in pairwise(offsets)]
        assert ids == [row.event_id for row in rows]
        assert batch.occurred_at.tolist() == [row.occurred_at_us for row in rows]
        assert batch.operation.tolist() == [row.operation for row in rows]
        keys = batch.strings(f"k.{KEY}")
        if keys is not None:
            values = [None if code < 0 else keys.values[code].as_py() for code in keys.codes]
            assert values == [row.keys.get(KEY) for row in rows]


def test_numbers_and_presence_come_apart() -> None:
    log = [EventRow(str(i), "e", 0, 0, {"u": "a"}, properties={"x": x}) for i, x in enumerate((7, None, -7, 2.5, True))]
    batch = EventBatch(build_batch(log))
    integers = batch.numbers("a.x:i")
    assert integers is not None
    assert integers[1].tolist() == [True, False, True, False, False]
    assert integers[0].dtype == np.int64
    assert integers[0][integers[1]].tolist() == [7, -7]
    flags = batch.numbers("a.x:b")
    assert flags is not None
    assert flags[1].tolist() == [False] * 4 + [True]
    assert batch.numbers("a.y:i") is None
    assert batch.strings("a.x:s") is None
    assert batch.present("a.x:t") is None


def test_a_shard_is_the_crc_of_the_key_value_and_missing_keys_have_none() -> None:
    keys = [{"user": "ada"}, {"other": "x"}, {"user": "çiğdem"}]
    batch = EventBatch(build_batch([EventRow(str(i), "e", 0, 0, key) for i, key in enumerate(keys)]))
    expected = [zlib.crc32(b"ada") % 64, -1, zlib.crc32("çiğdem".encode()) % 64]
    assert shard_codes(batch, "user").tolist() == expected
    assert shard_of("ada") == expected[0]
    assert shard_codes(batch, "nobody").tolist() == [-1, -1, -1]


@given(st.integers(-(10**15), 8 * 10**15))
def test_microseconds_and_instants_are_the_same_thing(instant_us: int) -> None:
    assert to_us(from_us(instant_us)) == instant_us
