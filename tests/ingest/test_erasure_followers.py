"""Whoever follows the log comes to the state in which the erased subject never was."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.ingest.archive import read_file
from services.ingest.log import open_log
from services.kernel.building import EventRow
from services.kernel.columns import ADD, DELETE, REPLACE, EventBatch
from services.kernel.erasing import names_subject
from tests.ingest.archive_worker import DAY_US, PROJECT, append
from tests.ingest.erasing import USER, VALUE, Follower, batches, counts, erase, holding, place, row


def without_subject(rows: list[EventRow]) -> list[EventRow]:
    """The log as it would be if the subject had never been: no record of it, nor of the events that are its own.

    Slowly: an event is whose its version in effect is.
    """
    owner: dict[str, bool] = {}
    revisions: dict[str, float] = {}
    for each in rows:
        revision = revisions.get(each.event_id)
        if each.operation == ADD and revision is not None:
            continue
        if each.operation == REPLACE and revision is not None and each.revision <= revision:
            continue
        revisions[each.event_id] = float("inf") if each.operation == DELETE else each.revision
        owner[each.event_id] = each.operation != DELETE and each.keys.get(USER) == VALUE
    kept = [each for each in rows if not owner[each.event_id]]
    # Records of others' events that name the subject lose what they say, and still stand in their order.
    return [replace(each, keys={}, properties={}) if each.keys.get(USER) == VALUE else each for each in kept]


USERS = st.sampled_from([VALUE, VALUE, "bob", "eve"])
OPERATIONS = st.sampled_from([(ADD, 0), (ADD, 0), (ADD, 0), (REPLACE, 1), (REPLACE, 2), (DELETE, 0)])


@st.composite
def logs(draw: st.DrawFn) -> list[list[EventRow]]:
    """Batches of events of several users, some of them sent again, moved to another user, or deleted."""
    drawn = draw(st.lists(st.tuples(st.integers(0, 6), USERS, OPERATIONS), min_size=1, max_size=24))
    rows = [
        row(number, user, received_at_us=200 * DAY_US + i, operation=operation, revision=revision)
        if operation != DELETE
        else row(number, user, received_at_us=200 * DAY_US + i, operation=DELETE, properties={})
        for i, (number, user, (operation, revision)) in enumerate(drawn)
    ]
    cuts = sorted(draw(st.sets(st.integers(1, len(rows)), max_size=4)) | {len(rows)})
    return [rows[start:end] for start, end in zip([0, *cuts], cuts, strict=False)]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=logs(), archived=st.integers(0, 4), ahead=st.integers(0, 4))
@example(
    # Added and deleted in one batch: nothing was ever counted, and still its texts were seen.
    drawn=[[row(0, VALUE), row(0, VALUE, received_at_us=200 * DAY_US + 1, operation=DELETE, properties={})]],
    archived=0,
    ahead=0,
)
async def test_every_follower_comes_to_the_state_without_the_subject(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[list[EventRow]], archived: int, ahead: int
) -> None:
    async with place(tmp_path_factory.mktemp("place")) as opened:
        behind = Follower()
        for i, rows in enumerate(drawn):
            await append(opened.log, rows)
            if i == archived:
                await opened.archive.flush(PROJECT)
            if i == ahead:
                behind.follow(await batches(opened.log))
        current = Follower().follow(await batches(opened.log))
        receipt = await erase(opened)
        after = await batches(opened.log)
        assert after[-1].last_position == receipt.position
        rows = [each for rows in drawn for each in rows]
        expected = await reference(tmp_path_factory.mktemp("reference"), without_subject(rows))
        for follower in (Follower(), behind, current):
            assert follower.follow(after).state == expected
            assert VALUE.encode() not in follower.content
        for batch in after:
            assert not names_subject(EventBatch.from_ipc(batch.data), USER, VALUE).any()
        await opened.archive.flush(PROJECT)
        for file in await opened.archive.files(PROJECT):
            table = read_file(opened.folder / "blobs" / file.key)
            assert table.num_rows == file.event_count
            assert f"k.{USER}" not in table.column_names or VALUE not in table[f"k.{USER}"].to_pylist()
        assert counts(await erase(opened))["events"] == 0
    assert list(holding(opened.folder)) == []


async def reference(folder: Path, rows: list[EventRow]) -> dict[tuple[str, str], list[object]]:
    """The state of a log that holds just these records."""
    async with open_log(f"sqlite:///{folder / 'log.db'}") as log:
        if rows:
            await append(log, rows)
        return Follower().follow(await batches(log)).state
