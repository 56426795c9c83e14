"""What is read from the archive is what the log says, in its order, whatever is asked for."""

import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.features import archive as archive_module
from services.features.archive import ArchiveChangedError, columns_of, read_events
from services.kernel.aggregations import Aggregation, Function, TermType
from services.kernel.asof import AsOf
from services.kernel.building import EventRow, build_batch
from services.kernel.columns import ADD, DELETE, REPLACE, EventBatch, shard_of
from services.kernel.dedup import Deduplicator
from services.kernel.expressions import AllOf, Compare, EventTypeIs, Property
from services.kernel.windows import Rolling
from tests.features.archives import archive

HOUR_US = 3_600_000_000
START_US = 400_000 * HOUR_US
USERS = ("u1", "u2", "ü3")


@st.composite
def records(draw: st.DrawFn) -> EventRow:
    """A record of one of a few ids: added, replaced or deleted."""
    operation = draw(st.sampled_from([ADD, ADD, ADD, REPLACE, DELETE]))
    keys = draw(st.sampled_from([{}, {"account": "a"}, *({"user_id": user} for user in USERS)]))
    properties = {"n": draw(st.integers(0, 5)), "color": draw(st.sampled_from(["red", "blue", None]))}
    return EventRow(
        event_id=f"e{draw(st.integers(0, 12))}",
        name=draw(st.sampled_from(["buy", "look"])),
        occurred_at_us=START_US + draw(st.integers(0, 4 * HOUR_US)),
        received_at_us=START_US + 5 * HOUR_US,
        keys=keys,
        properties={} if operation == DELETE else properties,
        operation=operation,
        revision=0 if operation == ADD else draw(st.integers(1, 3)),
    )


LOGS = st.lists(st.lists(records(), min_size=1, max_size=12), max_size=4)


def effective(parts: list[list[EventRow]]) -> list[dict[str, Any]]:
    """The records that count, with their positions, as rows without nulls."""
    seen, position, found = Deduplicator(7 * 24 * HOUR_US), 0, []
    for rows in parts:
        batch = EventBatch(build_batch(rows))
        admitted = seen.admit(batch).tolist()
        for row, counts in zip(batch.record_batch.to_pylist(), admitted, strict=True):
            position += 1
            if counts:
                found.append({"position": position, **_present(row)})
    return found


def _present(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def read(parts: list[list[EventRow]], *, large: bool = False, **question: Any) -> list[dict[str, Any]]:
    """What the archive of a log answers, as rows without nulls; `large` reads the files as large ones are read."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(archive_module, "_SMALL", -1 if large else 8_192):
        listing = archive(Path(folder), parts)
        batches = list(read_events(Path(folder), listing, max_rows=7, **question))
    assert all(0 < batch.num_rows <= 7 for batch in batches)
    return [_present(row) for batch in batches for row in batch.record_batch.to_pylist()]


@settings(max_examples=30, deadline=None)
@given(LOGS)
def test_all_records_come_once_in_the_order_of_the_log(parts: list[list[EventRow]]) -> None:
    assert read(parts) == [{k: v for k, v in row.items() if k != "position"} for row in effective(parts)]


@settings(max_examples=40, deadline=None)
@given(
    LOGS,
    st.sets(st.sampled_from(USERS)),
    st.one_of(st.none(), st.integers(0, 5 * HOUR_US)),
    st.integers(0, 40),
    st.integers(0, 20),
    st.booleans(),
)
def test_filters_keep_what_is_asked_for_and_every_correction(
    parts: list[list[EventRow]], users: set[str], before: int | None, position: int, after: int, large: bool
) -> None:
    before_us = None if before is None else START_US + before
    expected = []
    for row in effective(parts):
        correction = row["operation"] != ADD
        mine = row.get("k.user_id") in users or not users
        in_time = before_us is None or row["occurred_at"] < before_us
        if after < row["position"] <= position and (correction or (mine and in_time)):
            hidden = {"position"} | (set() if mine else {"k.user_id"})
            expected.append({name: value for name, value in row.items() if name not in hidden})
    question = {"attribute_key": "user_id", "key_values": users} if users else {}
    found = read(parts, large=large, before_us=before_us, after_position=after, up_to_position=position, **question)
    assert found == expected


@settings(max_examples=20, deadline=None)
@given(LOGS)
def test_shards_share_the_keys_among_them(parts: list[list[EventRow]]) -> None:
    shards = [(first, first + 15) for first in range(0, 64, 16)]
    found = [read(parts, large=i % 2 == 0, attribute_key="user_id", shards=each) for i, each in enumerate(shards)]
    users = [{row.get("k.user_id") for row in rows} - {None} for rows in found]
    assert sum(map(len, users)) == len(set().union(*users))
    for i, names in enumerate(users):
        assert all(16 * i <= shard_of(name) <= 16 * i + 15 for name in names if name is not None)
    named = [row for row in effective(parts) if "k.user_id" in row]
    assert sum("k.user_id" in row for rows in found for row in rows) == len(named)


def test_columns_are_left_out_that_nobody_asked_for(tmp_path: Path) -> None:
    row = EventRow("e1", "buy", START_US, START_US, {"user_id": "u1"}, properties={"n": 1, "m": 2.5, "x": "text"})
    listing = archive(tmp_path, [[row]])
    (batch,) = read_events(tmp_path, listing, columns={"a.n", "a.m:i"}, attribute_key="user_id")
    assert set(batch.names) == {*EventBatch(build_batch([])).names, "k.user_id", "a.n:i"}
    assert pa.types.is_dictionary(batch.record_batch.schema.field("event_type").type)


@settings(max_examples=30, deadline=None)
@given(LOGS, st.sampled_from(USERS), st.lists(st.integers(0, 6 * HOUR_US), min_size=1, max_size=5))
def test_values_of_one_key_need_only_its_records(parts: list[list[EventRow]], user: str, instants: list[int]) -> None:
    buys = AllOf((EventTypeIs(name="buy"), Compare(Property("atomic", "color"), "=", ("red",))))
    number = Property("atomic", "n")
    aggregations = [
        Aggregation(Function.SUM, buys, number, TermType.INTEGER, Rolling(2 * HOUR_US)),
        Aggregation(Function.LAST, EventTypeIs(), number, TermType.INTEGER),
    ]
    assert columns_of(aggregations) == {"a.color", "a.n"}
    whole, mine = AsOf("user_id", aggregations), AsOf("user_id", aggregations, 0)
    for rows in parts:
        whole.add(EventBatch(build_batch(rows)))
    with tempfile.TemporaryDirectory() as folder:
        listing = archive(Path(folder), parts)
        columns = columns_of(aggregations)
        for batch in read_events(Path(folder), listing, columns=columns, attribute_key="user_id", key_values={user}):
            mine.add(batch)
    at = np.array([START_US + instant for instant in instants])
    for expected, found in zip(whole.answer([user] * len(at), at), mine.answer([user] * len(at), at), strict=True):
        assert found.values.to_pylist() == expected.values.to_pylist()
        assert found.statuses.tolist() == expected.statuses.tolist()
        assert found.last_event_us.tolist() == expected.last_event_us.tolist()


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    listing = archive(tmp_path, [[EventRow("e1", "buy", START_US, START_US, {"user_id": "u1"})]])
    (tmp_path / listing.files[0].key).unlink()
    with pytest.raises(ArchiveChangedError):
        list(read_events(tmp_path, listing))
