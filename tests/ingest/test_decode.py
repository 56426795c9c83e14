"""Request bytes become the columns that a slow walk over the messages gives, and no bytes break the decoder."""

import random
import zlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from inkling.ingest.v1.event_pb2 import Event
from inkling.ingest.v1.ingest_service_pb2 import IngestRequest, IngestStreamRequest
from services.ingest.admission import TimeRules, judge
from services.ingest.decode import Decoder, Part, Scanned
from services.ingest.pivot import pivot
from services.ingest.schemas import Schemas
from services.kernel.columns import EventBatch, sorted_columns
from tests.ingest.events import NOW, RECEIVED_US, event, events, rows_of, slow_batch

ANY_TIME = TimeRules(0, 2**62)
DECODER = Decoder(0x5EED)
SCHEMAS = Schemas()


def batches_of(scanned: Scanned) -> list[pa.RecordBatch]:
    admitted = judge(scanned, ANY_TIME).admitted
    return [batch.record_batch for batch in pivot(scanned, admitted, RECEIVED_US, SCHEMAS)]


def batch_of(messages: Sequence[Event]) -> pa.RecordBatch:
    (batch,) = batches_of(DECODER.scan([Part(IngestRequest(events=messages).SerializeToString())]))
    batch.validate(full=True)
    return batch


@given(st.lists(events(), min_size=1, max_size=12))
@settings(max_examples=300, deadline=None)
def test_columns_equal_a_slow_walk_over_the_messages(messages: list[Event]) -> None:
    batch = batch_of(messages)
    expected = slow_batch(messages)
    assert batch.schema.names == expected.schema.names
    assert batch.schema.types == expected.schema.types
    assert batch.schema.names == sorted_columns(batch.schema.names)
    assert rows_of(batch) == rows_of(expected)


@given(st.lists(events(), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_the_seed_does_not_change_the_result(messages: list[Event]) -> None:
    request = IngestRequest(events=messages).SerializeToString()
    one, other = (batches_of(Decoder(seed).scan([Part(request)])) for seed in (1, 2**63 + 5))
    assert one[0].equals(other[0])


def test_present_zeros_are_not_null() -> None:
    content = {"number": 0.0, "text": "", "flag": False, "integer": 0, "list": [], "null": None}
    batch = batch_of([event("e1", properties=content), event("e2")])
    first, second = batch.to_pylist()
    assert [first[f"a.{name}"] for name in ("number:d", "text:s", "flag:b", "integer:i", "list:l")] == [
        0.0,
        "",
        False,
        0,
        [],
    ]
    assert not any(name.startswith("a.null") for name in batch.schema.names)
    assert all(second[name] is None for name in batch.schema.names if name.startswith("a."))


def test_a_property_of_two_kinds_gives_two_columns() -> None:
    batch = batch_of([event("e1", properties={"p": 1}), event("e2", properties={"p": "one"})])
    assert batch.column("a.p:i").to_pylist() == [1, None]
    assert batch.column("a.p:s").to_pylist() == [None, "one"]


def test_fingerprints_do_not_depend_on_the_order_of_maps_and_differ_by_content() -> None:
    names = [f"property {i}" for i in range(20)]
    rng = random.Random(1)
    requests = []
    for _ in range(5):
        rng.shuffle(names)
        body = event("e1").SerializeToString()
        for name in names:
            body += Event(properties=event(properties={name: zlib.crc32(name.encode())}).properties).SerializeToString()
        requests.append(IngestRequest(events=[Event.FromString(body)]).SerializeToString())
        requests[-1] = b"\x0a" + _varint(len(body)) + body
    prints = {int(batch["fingerprint"][0].as_py()) for r in requests for batch in batches_of(DECODER.scan([Part(r)]))}
    assert len(prints) == 1
    base = event("e1", properties={"a": 1, "b": 2})
    variants = [
        base,
        event("e1", properties={"a": 2, "b": 1}),
        event("e1", properties={"a": 1}),
        event("e1", properties={"a": 1.0, "b": 2}),
        event("e1", data={"a": 1, "b": 2}),
        event("e1", name="other", properties={"a": 1, "b": 2}),
        event("e1", keys={"user_id": "u2"}, properties={"a": 1, "b": 2}),
        event("e1", at=NOW.replace(second=1), properties={"a": 1, "b": 2}),
    ]
    assert len(set(batch_of(variants)["fingerprint"].to_pylist())) == len(variants)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


@given(st.lists(st.lists(events(), max_size=4), min_size=1, max_size=5), st.data())
@settings(max_examples=60, deadline=None)
def test_requests_scanned_together_keep_their_rows(groups: list[list[Event]], data: st.DataObject) -> None:
    parts = [IngestRequest(events=group).SerializeToString() for group in groups]
    broken = data.draw(st.sets(st.integers(0, len(parts) - 1)))
    parts = [part + b"\x0a\x7f" if i in broken else part for i, part in enumerate(parts)]
    scanned = DECODER.scan([Part(part) for part in parts])
    assert scanned.malformed_segments == broken
    for i, group in enumerate(groups):
        rows = scanned.rows_of(i)
        got = [scanned.event_id(row) for row in range(rows.start, rows.stop)]
        assert got == ([] if i in broken else [message.event_id for message in group])


@pytest.mark.parametrize(
    "extra",
    [
        event(properties={"p": 1}).SerializeToString() + event(properties={"p": "x"}).SerializeToString(),
        b"\x12\x03\x0a\x01v" + event().SerializeToString(),
        event().SerializeToString() + b"\xa2\x06\x01x" + b"\x98\x06\x05" + b"\x95\x06\x01\x02\x03\x04",
        event().SerializeToString() + b"\x9b\x06\x9c\x06",
        b"\x0a\x82\x00e0" + event().SerializeToString(),
        event().SerializeToString() + b"\x2a\x0b\x0a\x01a\x12\x02\x18\x01\x12\x02\x0a\x00",
        event().SerializeToString() + b"\x2a\x09\x0a\x01a\x12\x04\x18\x01\x20\x01",
        event().SerializeToString() + b"\x1a\x02\x10\x05",
        event().SerializeToString() + b"\x2a\x09\x0a\x01a\x12\x02\x18\x01\x28\x01",
    ],
    ids=[
        "key twice",
        "type in parts",
        "unknown",
        "group",
        "long varint",
        "value in parts",
        "two kinds",
        "time in parts",
        "unknown in entry",
    ],
)
def test_unusual_encodings_mean_what_they_mean_to_the_library(extra: bytes) -> None:
    ordinary = event("e0").SerializeToString()
    request = b"".join(b"\x0a" + _varint(len(body)) + body for body in (ordinary, extra, ordinary))
    messages = list(IngestRequest.FromString(request).events)
    (batch,) = batches_of(DECODER.scan([Part(request)]))
    assert rows_of(batch) == rows_of(slow_batch(messages))


def test_a_malformed_event_is_alone() -> None:
    good = event("e0").SerializeToString()
    bad = [good[:-1], b"\x0a\x03abc\xff", b"\x0a\x01\xff" + good, good + b"\x0c", good + b"\x00\x01"]
    bodies = [good, *bad, good]
    request = b"".join(b"\x0a" + _varint(len(body)) + body for body in bodies)
    scanned = DECODER.scan([Part(request)])
    assert scanned.malformed_rows.tolist() == [False, *[True] * len(bad), False]
    assert [scanned.event_bytes(row) for row in range(len(bodies))] == bodies
    (batch,) = batches_of(scanned)
    assert batch.num_rows == 2


def test_batches_of_streams_and_calls_are_scanned_together() -> None:
    calls = [
        Part(IngestStreamRequest(sequence=300, events=[event("e1")]).SerializeToString(), streamed=True),
        Part(IngestRequest(events=[event("e2")]).SerializeToString()),
        Part(
            IngestStreamRequest(sequence=9, events=[event("e3")]).SerializeToString() + b"\x12\x01\xff", streamed=True
        ),
    ]
    scanned = DECODER.scan(calls)
    assert scanned.malformed_rows.tolist() == [False, False, False, True]
    assert [scanned.event_id(row) for row in range(3)] == ["e1", "e2", "e3"]
    assert [scanned.rows_of(i) for i in range(3)] == [slice(0, 1), slice(1, 2), slice(2, 4)]


def test_wide_requests_become_several_batches_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.ingest.pivot.MAX_VALUES", 64)
    messages = [event(f"e{i}", properties={f"p{i}": i}) for i in range(40)]
    batches = batches_of(DECODER.scan([Part(IngestRequest(events=messages).SerializeToString())]))
    assert len(batches) > 1
    assert [i for batch in batches for i in batch["event_id"].to_pylist()] == [f"e{i}" for i in range(40)]


def test_what_the_log_gets_can_be_read_back() -> None:
    scanned = DECODER.scan(
        [Part(IngestRequest(events=[event("e1", properties={"p": ["x", "y"]})]).SerializeToString())]
    )
    (batch,) = pivot(scanned, np.ones(1, np.bool_), RECEIVED_US, SCHEMAS)
    read = EventBatch.from_ipc(batch.to_ipc())
    assert read.record_batch.equals(batch.record_batch)


def mutated(rng: random.Random, request: bytes) -> bytes:
    """A request with one to three accidents."""
    content = bytearray(request)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(content) or 1)
        match rng.randrange(5):
            case 0:
                content[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del content[at : at + rng.randint(1, 9)]
            case 2:
                content[at:at] = rng.randbytes(rng.randint(1, 9))
            case 3:
                content[at:at] = content[rng.randrange(len(content) or 1) :][: rng.randint(1, 60)]
            case _:
                content[at : at + 1] = bytes([rng.choice([0x00, 0x7F, 0x80, 0xFF, 0x0A, 0x12])])
    return bytes(content)


@pytest.mark.parametrize("seed", range(40))
def test_mutated_requests_never_mean_something_else_than_to_the_library(seed: int) -> None:
    rng = random.Random(seed)
    content = {"text": "größe", "number": 1.5, "at": NOW, "list": ["a", "b"], "flag": True, "integer": -1}
    messages = [event(f"e{i}", properties=content, data=content, operation=i % 2) for i in range(3)]
    for message in messages:
        for major in (1, 1, 2):
            entity = message.entities.add(vendor="v", name="n", major_version=major)
            entity.properties["p"].int_value = major
    request = IngestRequest(events=messages).SerializeToString()
    for _ in range(50):
        changed = mutated(rng, request)
        scanned = DECODER.scan([Part(changed)])
        batches = batches_of(scanned)
        for batch in batches:
            batch.validate(full=True)
        try:
            parsed = list(IngestRequest.FromString(changed).events)
        except DecodeError:
            assert scanned.malformed_segments or scanned.malformed_rows.any()
            continue
        assert not scanned.malformed_segments
        assert not scanned.malformed_rows.any()
        admitted = judge(scanned, ANY_TIME).admitted
        kept = [message for message, is_kept in zip(parsed, admitted, strict=True) if is_kept]
        got = [row for batch in batches for row in rows_of(batch)]
        assert _normal(got) == _normal(rows_of(slow_batch(kept)) if kept else [])


def _normal(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{name: repr(value) for name, value in row.items() if value is not None} for row in rows]
