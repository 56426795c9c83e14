"""SegmentService, served for real, over a log in memory."""

import asyncio
from typing import Any, Self

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from inkling.features.v1 import segment_service_pb2 as messages
from services.features.settings import FeaturesSettings
from services.following.feed import LogSettings
from services.runtime.clocks import ManualClock
from tests.features.memory_log import NOW_US, MemoryLog, purchase
from tests.features.serving import DAY_US, GROUP, Client, create, refused, serving

KIND = messages.MembershipChange


async def fill(client: Client, log: MemoryLog) -> None:
    """Three customers: one that buys much, one that buys little, one long ago."""
    await log.append(
        purchase(1, "ann", NOW_US - DAY_US, 10.0),
        purchase(2, "ann", NOW_US - DAY_US, 20.0),
        purchase(3, "bob", NOW_US - 2 * DAY_US, 5.0),
        purchase(4, "zoe", NOW_US - 30 * DAY_US, 500.0),
    )
    await create(client)
    await client.publish(GROUP)


async def segment(client: Client, segment_id: str, condition: str, **fields: Any) -> messages.Segment:
    """Creates a segment."""
    content = messages.Segment(attribute_key="user_id", condition=condition, description="for a test")
    request = messages.CreateSegmentRequest(segment_id=segment_id, segment=content, **fields)
    return await client.segments.CreateSegment(request)


async def members(client: Client, segment_id: str) -> list[str]:
    response = await client.segments.ListMembers(messages.ListMembersRequest(name=f"segments/{segment_id}"))
    return [each.key_value for each in response.members]


async def checked(client: Client, segment_id: str, *keys: str, position: int = 0) -> list[bool]:
    response = await client.segments.CheckMembership(
        messages.CheckMembershipRequest(name=f"segments/{segment_id}", key_values=keys, min_position=position)
    )
    return [each.member for each in response.memberships]


async def told(call: Any) -> bool:
    """Whether a stream begins, rather than being refused."""
    try:
        await call.read()
    except grpc.aio.AioRpcError:
        return False
    return True


class Watch:
    """A stream of changes, read in tests."""

    def __init__(self, client: Client, segment_id: str, **fields: Any) -> None:
        self._call = client.segments.WatchSegment(messages.WatchSegmentRequest(name=f"segments/{segment_id}", **fields))
        self.token = fields.get("resume_token", "")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()

    async def next(self, count: int) -> list[tuple[str, str]]:
        """The next changes: at least so many."""
        found: list[tuple[str, str]] = []
        async with asyncio.timeout(20):
            while len(found) < count or (count == 0 and not self.token):
                message = await self._call.read()
                self.token = message.resume_token or self.token
                found += [(each.key_value, KIND.Kind.Name(each.kind)[5:]) for each in message.changes]
        return found


@pytest.fixture
async def filled(client: Client, log: MemoryLog) -> Client:
    await fill(client, log)
    return client


async def test_a_segment_has_the_profiles_that_meet_its_condition(filled: Client) -> None:
    made = await segment(filled, "spenders", "spent >= 5 and buys between 1 and 9", request_id="r1")
    assert (made.size, made.state) == (2, messages.SEGMENT_STATE_SERVING)
    assert await members(filled, "spenders") == ["ann", "bob"]
    assert await checked(filled, "spenders", "bob", "zoe", "nobody") == [True, False, False]
    again = await segment(filled, "spenders", "spent >= 5 and buys between 1 and 9", request_id="r1")
    assert again == made
    listed = await filled.segments.ListSegments(messages.ListSegmentsRequest())
    assert list(listed.segments) == [await filled.segments.GetSegment(messages.GetSegmentRequest(name=made.name))]


async def test_nulls_and_absent_profiles_follow_the_semantics(filled: Client) -> None:
    assert (await segment(filled, "none_spent", "spent is null")).size == 1
    assert await members(filled, "none_spent") == ["zoe"]
    assert (await segment(filled, "other", "spent != 5")).size == 1
    assert (await segment(filled, "not_five", "not spent = 5")).size == 2


async def test_every_mistake_is_named_with_its_place_and_a_hint(filled: Client) -> None:
    text = "spend > 1 and\n spent like 'x' or buys = 'many' or shopping.bys = 2"
    code, reason, violations = await refused(segment(filled, "bad", text))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_DEFINITION")
    assert "segment.condition" in violations
    preview = await filled.segments.PreviewSegment(
        messages.PreviewSegmentRequest(attribute_key="user_id", condition=text)
    )
    assert [(each.line, each.column) for each in preview.mistakes] == [(1, 1), (2, 2), (2, 27), (2, 37)]
    assert "did you mean `spent`" in preview.mistakes[0].hint
    assert "without quotes" in preview.mistakes[2].hint
    assert "did you mean `buys`" in preview.mistakes[3].hint
    code, reason, violations = await refused(segment(filled, "Bad Name", "buys = 1"))
    assert (reason, list(violations)) == ("BAD_NAME", ["segment_id"])


async def test_a_preview_says_how_many_and_whom_and_changes_nothing(filled: Client) -> None:
    preview = await filled.segments.PreviewSegment(
        messages.PreviewSegmentRequest(attribute_key="user_id", condition="buys > 0 or zoe is null", sample_size=1)
    )
    assert [each.column for each in preview.mistakes] == [13]
    preview = await filled.segments.PreviewSegment(
        messages.PreviewSegmentRequest(attribute_key="user_id", condition="buys > 0", sample_size=1)
    )
    assert (preview.size, preview.profile_count, list(preview.sample_key_values)) == (2, 3, ["bob"])
    assert not (await filled.segments.ListSegments(messages.ListSegmentsRequest())).segments


async def test_events_and_time_make_profiles_enter_and_leave_once_each(
    filled: Client, log: MemoryLog, clock: ManualClock
) -> None:
    await segment(filled, "buyers", "buys >= 1")
    async with Watch(filled, "buyers", send_initial=True) as watch:
        assert await watch.next(2) == [("ann", "PRESENT"), ("bob", "PRESENT")]
        position = await log.append(purchase(10, "cleo", NOW_US - 1, 1.0))
        assert await checked(filled, "buyers", "cleo", position=position) == [True]
        assert await watch.next(1) == [("cleo", "ENTERED")]
        clock.advance(5 * DAY_US)
        assert await watch.next(1) == [("bob", "LEFT")]
        clock.advance(1 * DAY_US)
        assert await watch.next(1) == [("ann", "LEFT")]
        token = watch.token
    await log.append(purchase(11, "bob", NOW_US + 6 * DAY_US - 5))
    async with Watch(filled, "buyers", resume_token=token) as watch:
        assert await watch.next(1) == [("bob", "ENTERED")]
    async with Watch(filled, "buyers", key_values=["ann"], send_initial=True) as watch:
        assert await watch.next(0) == []
        await log.append(purchase(12, "dan", NOW_US + 6 * DAY_US - 5), purchase(13, "ann", NOW_US + 6 * DAY_US - 5))
        assert await watch.next(1) == [("ann", "ENTERED")]


async def test_a_new_condition_moves_members_and_an_old_etag_is_refused(filled: Client) -> None:
    made = await segment(filled, "some", "buys >= 2")
    async with Watch(filled, "some", send_initial=True) as watch:
        assert await watch.next(1) == [("ann", "PRESENT")]
        content = messages.Segment(name=made.name, condition="buys = 1", etag=made.etag)
        updated = await filled.segments.UpdateSegment(messages.UpdateSegmentRequest(segment=content))
        assert (updated.size, updated.description) == (1, "for a test")
        assert sorted(await watch.next(2)) == [("ann", "LEFT"), ("bob", "ENTERED")]
        code, reason, _ = await refused(filled.segments.UpdateSegment(messages.UpdateSegmentRequest(segment=content)))
        assert (code, reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
        mask = FieldMask(paths=["attribute_key"])
        request = messages.UpdateSegmentRequest(segment=messages.Segment(name=made.name), update_mask=mask)
        assert (await refused(filled.segments.UpdateSegment(request)))[1] == "BAD_MASK"
        await filled.segments.DeleteSegment(messages.DeleteSegmentRequest(name=made.name))
        assert (await refused(watch._call.read()))[0] is grpc.StatusCode.NOT_FOUND


async def test_members_come_in_pages_in_the_order_of_their_keys(filled: Client, log: MemoryLog) -> None:
    position = await log.append(*(purchase(100 + i, f"u{i:03}", NOW_US - 9, 1.0) for i in range(25)))
    await segment(filled, "all_buyers", "buys >= 1")
    await checked(filled, "all_buyers", "u000", position=position)
    found, token = [], ""
    while True:
        page = await filled.segments.ListMembers(
            messages.ListMembersRequest(name="segments/all_buyers", page_size=10, page_token=token)
        )
        found += [each.key_value for each in page.members]
        token = page.next_page_token
        assert (page.size, len(page.members) <= 10) == (27, True)
        if not token:
            break
    assert found == sorted(["ann", "bob", *(f"u{i:03}" for i in range(25))])


async def test_after_a_restart_members_are_as_before_and_what_time_changed_is_told_once(
    served_settings: FeaturesSettings, log: MemoryLog, clock: ManualClock
) -> None:
    async with serving(served_settings, log, clock) as client:
        await fill(client, log)
        await segment(client, "buyers", "buys >= 1")
        async with Watch(client, "buyers") as watch:
            await watch.next(0)
            token = watch.token
        await log.append(purchase(10, "cleo", NOW_US - 1, 1.0))
        assert await checked(client, "buyers", "cleo", position=5) == [True]
    clock.advance(int(5.5 * DAY_US))
    async with serving(served_settings, log, clock) as client:
        async with Watch(client, "buyers", resume_token=token) as watch:
            assert await watch.next(2) == [("cleo", "ENTERED"), ("bob", "LEFT")]
        assert await members(client, "buyers") == ["ann", "cleo"]


async def test_a_token_of_changes_that_are_not_kept_any_more_is_refused(
    served_settings: FeaturesSettings, log: MemoryLog, clock: ManualClock
) -> None:
    async with serving(served_settings, log, clock) as client:
        await fill(client, log)
        await segment(client, "buyers", "buys >= 1")
        async with Watch(client, "buyers") as watch:
            await watch.next(0)
            token = watch.token
        position = await log.append(purchase(10, "cleo", NOW_US - 1, 1.0), purchase(11, "dan", NOW_US - 1, 1.0))
        assert await checked(client, "buyers", "cleo", position=position) == [True]
    # A start trims the journal.
    few = served_settings.model_copy(update={"journal_entries": 1})
    async with serving(few, log, clock) as client:
        assert await checked(client, "buyers", "cleo", "dan", "bob", position=position) == [True, True, True]
        trimmed = messages.WatchSegmentRequest(name="segments/buyers", resume_token=token)
        async with asyncio.timeout(20):
            # It is trimmed a moment after it serves.
            while (call := client.segments.WatchSegment(trimmed)) and await told(call):
                call.cancel()
        code, reason, violations = await refused(call.read())
        assert (code, reason) == (grpc.StatusCode.OUT_OF_RANGE, "TOKEN_EXPIRED")
        assert "start anew" in violations["resume_token"]


async def test_with_the_clock_of_the_log_time_is_that_of_the_newest_event(
    served_settings: FeaturesSettings, clock: ManualClock
) -> None:
    log = MemoryLog(LogSettings(clock="log"))
    year_us = 365 * DAY_US
    await log.append(purchase(1, "ann", NOW_US - 10 * year_us, 10.0))
    async with serving(served_settings, log, clock) as client:
        await create(client)
        await client.publish(GROUP)
        await segment(client, "buyers", "buys >= 1")
        async with Watch(client, "buyers", send_initial=True) as watch:
            assert await watch.next(1) == [("ann", "PRESENT")]
            await log.append(purchase(2, "bob", NOW_US - 10 * year_us + 8 * DAY_US, 10.0))
            assert await watch.next(2) == [("bob", "ENTERED"), ("ann", "LEFT")]


async def test_refusals_say_what_to_do(filled: Client) -> None:
    stub = filled.segments
    missing = stub.GetSegment(messages.GetSegmentRequest(name="segments/none"))
    assert (await refused(missing))[:2] == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    assert (await refused(stub.GetSegment(messages.GetSegmentRequest(name="none"))))[1] == "BAD_NAME"
    await segment(filled, "one", "buys = 1")
    assert (await refused(segment(filled, "one", "buys = 1")))[1] == "ALREADY_EXISTS"
    request = messages.CheckMembershipRequest(name="segments/one", key_values=[])
    assert (await refused(stub.CheckMembership(request)))[1] == "OUT_OF_RANGE"
    request = messages.CheckMembershipRequest(
        name="segments/one", key_values=["ann"], min_position=10**6, wait_timeout=Duration(nanos=1)
    )
    assert (await refused(stub.CheckMembership(request)))[1] == "POSITION_NOT_REACHED"
    watch = stub.WatchSegment(messages.WatchSegmentRequest(name="segments/one", resume_token="x"))
    assert (await refused(watch.read()))[1] == "BAD_TOKEN"
    checked_only = await segment(filled, "two", "buys = 1", validate_only=True)
    assert checked_only.size == 0
    assert (await refused(stub.GetSegment(messages.GetSegmentRequest(name="segments/two"))))[1] == "NOT_FOUND"
