"""CSV files become events: read in pieces of any size, typed, with errors by line."""

import asyncio
import csv
import gzip
import io
from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inkling.ingest.v1 import collection_pb2
from inkling.ingest.v1.collection_service_pb2 import CreateCollectionRequest
from inkling.ingest.v1.dead_letter_service_pb2 import GetDeadLetterRequest, ListDeadLettersRequest
from inkling.ingest.v1.error_reason_pb2 import ErrorReason
from inkling.ingest.v1.event_pb2 import EventType
from inkling.ingest.v1.ingest_service_pb2 import CsvOptions, EventTypeColumns, ImportCsvRequest, ImportCsvResponse
from services.ingest.csv_lines import FileError, Inflater, Record, RecordReader
from tests.ingest.conftest import Project
from tests.ingest.statuses import failure, reason_of

CDNOW = CsvOptions(
    occurred_at_column="date",
    key_columns={"customer_id": "customer"},
    event_type=EventType(name="purchase"),
    column_types={"count": collection_pb2.FIELD_TYPE_INTEGER, "amount": collection_pb2.FIELD_TYPE_NUMBER},
)


def read(content: bytes, sizes: Sequence[int] = (1 << 30,), delimiter: str = ",") -> list[Record]:
    """The records of content that comes in pieces."""
    reader = RecordReader(delimiter)
    records: list[Record] = []
    at = 0
    for size in [*sizes, 1 << 30]:
        records += reader.feed(content[at : at + size])
        at += size
    return [*records, *reader.end()]


CELLS = st.text(st.sampled_from('ab,;"\n\r äß'), max_size=6)


@given(
    st.lists(st.lists(CELLS, min_size=2, max_size=4), min_size=1, max_size=8),
    st.lists(st.integers(1, 20), max_size=20),
    st.sampled_from(["\n", "\r\n"]),
)
@settings(max_examples=200, deadline=None)
def test_records_do_not_depend_on_the_pieces(rows: list[list[str]], sizes: list[int], end: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(rows)
    content = text.getvalue().encode()
    assert [record.fields for record in read(content, sizes)] == rows
    assert b"".join(record.raw for record in read(content, sizes)).replace(b"\r", b"").replace(b"\n", b"") in (
        content.replace(b"\r", b"").replace(b"\n", b""),
    )


def test_a_bad_line_is_alone() -> None:
    content = b'a,b\n1,2\n"x"y,2\n\xff,2\n3,4\n"never closed,2\n5,6\n'
    records = read(content, [7] * 20)
    assert [(record.line, record.fields) for record in records] == [
        (1, ["a", "b"]),
        (2, ["1", "2"]),
        (3, None),
        (4, None),
        (5, ["3", "4"]),
        (6, None),
        (7, ["5", "6"]),
    ]
    assert records[2].raw == b'"x"y,2'


def test_a_quote_that_is_never_closed_is_given_up_after_a_mebibyte() -> None:
    content = b'a,b\n"open,2\n' + b"1,2\n" * 400_000
    reader = RecordReader(",")
    records = list(reader.feed(content)) + list(reader.end())
    assert len(records) == 400_002
    assert records[1].fields is None


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_gzip_is_recognised_in_any_pieces_and_members(size: int) -> None:
    content = b"hello, world\n" * 1000
    packed = gzip.compress(content[:5000]) + gzip.compress(content[5000:])
    for given_bytes in (packed, content, b"x", b""):
        inflater = Inflater()
        pieces = [given_bytes[at : at + size] for at in range(0, len(given_bytes), size)]
        out = b"".join(part for piece in pieces for part in inflater.feed(piece)) + inflater.end()
        assert out == (content if given_bytes == packed else given_bytes)


def test_gzip_that_is_damaged_or_cut_off_is_told() -> None:
    packed = gzip.compress(b"hello" * 1000)
    inflater = Inflater()
    list(inflater.feed(packed[:-9]))
    with pytest.raises(FileError, match="too early"):
        inflater.end()
    with pytest.raises(FileError, match="damaged"):
        list(Inflater().feed(packed[:20] + b"\xff" * 50))


def test_a_bomb_comes_in_steps() -> None:
    steps = list(Inflater().feed(gzip.compress(b"\0" * 50_000_000)))
    assert max(map(len, steps)) <= 1024 * 1024
    assert sum(map(len, steps)) == 50_000_000


async def upload(project: Project, options: CsvOptions, content: bytes, size: int = 100_000) -> list[ImportCsvResponse]:
    async def requests() -> AsyncIterator[ImportCsvRequest]:
        yield ImportCsvRequest(options=options, chunk=content[:size])
        for at in range(size, len(content), size):
            yield ImportCsvRequest(chunk=content[at : at + size])

    call = project.ingest.ImportCsv(requests(), metadata=project.metadata)
    return [response async for response in call]


async def test_a_file_is_imported_with_types(project: Project) -> None:
    content = b'date,customer,count,amount,note\n19970101,1,2,29.33,\n1997-01-12 10:30:00.5,2,1,11,"a, ""b"""\n'
    responses = await upload(project, CDNOW, content)
    assert (responses[-1].line_count, responses[-1].accepted_count, responses[-1].done) == (2, 2, True)
    assert not any(response.done for response in responses[:-1])
    first, second = await project.rows()
    assert (first["occurred_at"], first["k.customer_id"], first["event_type"]) == (
        852_076_800_000_000,
        "1",
        "/purchase/",
    )
    assert (first["a.count:i"], first["a.amount:d"], first["a.note:s"]) == (2, 29.33, None)
    assert (second["occurred_at"], second["a.note:s"]) == (853_065_000_500_000, 'a, "b"')
    assert not {"a.date:s", "a.customer:s"} & set(first)
    assert responses[-1].position == 2


async def test_importing_again_gives_the_same_ids(project: Project) -> None:
    content = b"date,customer,count,amount\n" + b"19970101,1,2,29.33\n" * 3
    await upload(project, CDNOW, content)
    await upload(project, CDNOW, gzip.compress(content.replace(b"\n", b"\r\n")), size=7)
    ids = [row["event_id"] for row in await project.rows()]
    assert len(ids) == 6
    assert len(set(ids)) == 3


async def test_bad_lines_are_told_by_line_and_kept(project: Project) -> None:
    lines = ["date,customer,count,amount"] + [f"19970101,{i},{i},{i}.5" for i in range(2500)]
    lines[3] = "19970101,1,two,1"
    lines[5] = "yesterday,1,2,1"
    lines[7] = "19970101,1,2"
    lines[2000] = "19970101,,2,1"
    lines[2001] = "22970101,1,2,1"
    responses = await upload(project, CDNOW, "\n".join(lines).encode())
    errors = [(each.line, each.column, ErrorReason.Name(each.reason)) for r in responses for each in r.errors]
    assert errors == [
        (4, "count", "ERROR_REASON_BAD_LINE"),
        (6, "date", "ERROR_REASON_BAD_LINE"),
        (8, "", "ERROR_REASON_BAD_LINE"),
        (2001, "", "ERROR_REASON_BAD_KEY"),
        (2002, "date", "ERROR_REASON_BAD_TIME"),
    ]
    assert (responses[-1].line_count, responses[-1].accepted_count, responses[-1].rejected_count) == (2500, 2495, 5)
    listed = await project.dead_letters.ListDeadLetters(ListDeadLettersRequest(), metadata=project.metadata)
    letters = [
        await project.dead_letters.GetDeadLetter(GetDeadLetterRequest(name=each.name), metadata=project.metadata)
        for each in listed.dead_letters
    ]
    assert {letter.csv_line for letter in letters} == {lines[i] for i in (3, 5, 7, 2000, 2001)}


async def test_errors_come_at_most_a_hundred_a_message(project: Project) -> None:
    content = b"date,customer,count,amount\n" + b"".join(b"never,1,2,%d\n" % i for i in range(250))
    responses = await upload(project, CDNOW, content)
    assert max(len(response.errors) for response in responses) == 100
    assert sum(len(response.errors) for response in responses) == 250
    assert [response.done for response in responses] == [False] * (len(responses) - 1) + [True]


async def test_a_collection_types_the_columns(project: Project) -> None:
    collection = collection_pb2.Collection(
        event_type=EventType(name="transaction"),
        fields=[
            collection_pb2.Field(name="amount", type=collection_pb2.FIELD_TYPE_NUMBER, required=True),
            collection_pb2.Field(name="paid", type=collection_pb2.FIELD_TYPE_BOOLEAN),
            collection_pb2.Field(name="at", type=collection_pb2.FIELD_TYPE_TIMESTAMP),
            collection_pb2.Field(name="tags", type=collection_pb2.FIELD_TYPE_STRING_LIST),
        ],
        key_fields={"customer_id": "customer"},
        occurred_at_field="at",
        event_id_field="id",
        strictness=collection_pb2.STRICTNESS_STRICT,
    )
    await project.collections.CreateCollection(
        CreateCollectionRequest(collection_id="transaction", collection=collection), metadata=project.metadata
    )
    content = (
        b'id;amount;paid;at;tags;customer\nt1;1e2;TRUE;2026-09-01T12:00:00+02:00;"[""a""]";c\nt2;;0;2026-09-01;;c\n'
    )
    options = CsvOptions(collection="collections/transaction", delimiter=";")
    responses = await upload(project, options, content)
    assert [(each.line, each.column) for response in responses for each in response.errors] == [(3, "amount")]
    (row,) = await project.rows()
    assert row["event_id"] == "t1"
    assert (row["a.amount:d"], row["a.paid:b"], row["a.tags:l"]) == (100.0, True, ["a"])
    assert row["a.at:t"] == row["occurred_at"] == 1_788_256_800_000_000


async def test_columns_name_the_type_of_each_event(project: Project) -> None:
    options = CsvOptions(
        occurred_at_column="t",
        key_columns={"user_id": "u"},
        event_type_columns=EventTypeColumns(vendor="v", name="n", version="x"),
    )
    await upload(project, options, b"t,u,v,n,x\n2026-01-01,1,com.a,view,1-0-0\n2026-01-01,1,,buy,\n")
    assert [row["event_type"] for row in await project.rows()] == ["com.a/view/1-0-0", "/buy/"]


@pytest.mark.parametrize(
    ("options", "content"),
    [
        (CsvOptions(), b"a,b\n"),
        (CDNOW, b""),
        (CDNOW, b"a,b\n1,2\n"),
        (CDNOW, b"date,customer,count,amount,date\n"),
        (CDNOW, b"\x1f\x8b\x08 this is no gzip"),
        (CsvOptions(delimiter=",,", occurred_at_column="a", key_columns={"k": "b"}), b"a,b\n"),
        (CsvOptions(column_types={"a": 0}, occurred_at_column="a", key_columns={"k": "b"}), b"a,b\n"),
    ],
    ids=["no options", "empty", "columns lack", "column twice", "no gzip", "delimiter", "untyped"],
)
async def test_a_file_that_cannot_be_read_is_refused(project: Project, options: CsvOptions, content: bytes) -> None:
    error = await failure(upload(project, options, content))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(error) in ("BAD_LINE", "OUT_OF_RANGE")


async def test_the_first_message_must_carry_options(project: Project) -> None:
    async def requests() -> AsyncIterator[ImportCsvRequest]:
        yield ImportCsvRequest(chunk=b"a")

    call = project.ingest.ImportCsv(requests(), metadata=project.metadata)
    error = await failure(call.read())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_progress_comes_while_the_file_is_still_being_sent(project: Project) -> None:
    more = asyncio.Event()

    async def requests() -> AsyncIterator[ImportCsvRequest]:
        yield ImportCsvRequest(options=CDNOW, chunk=b"date,customer,count,amount\n19970101,1,1,1\n")
        await more.wait()
        yield ImportCsvRequest(chunk=b"19970101,2,1,1\n")

    call = project.ingest.ImportCsv(requests(), metadata=project.metadata)
    first = await call.read()
    assert (first.accepted_count, first.done) == (1, False)
    more.set()
    while not (last := await call.read()).done:
        pass
    assert last.accepted_count == 2
