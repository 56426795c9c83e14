"""Segments over properties, and of accounts over what is rolled up from their users."""

import asyncio
from collections.abc import Awaitable

import grpc
import pytest

from inkling.features.v1 import definition_service_pb2 as definitions
from inkling.features.v1 import property_service_pb2 as properties
from inkling.features.v1 import rollup_service_pb2 as rollups
from inkling.features.v1 import segment_service_pb2 as messages
from services.runtime.clocks import ManualClock
from tests.features.memory_log import NOW_US, MemoryLog, purchase
from tests.features.segments.test_segment_service import Watch, checked, members
from tests.features.serving import DAY_US, GROUP, Client, create, refused
from tests.features.test_property_service import MovingClock, declare, declare_rollups, put


@pytest.fixture
def clock() -> ManualClock:
    """Time passes between a write and the next."""
    return MovingClock(NOW_US)


async def make(client: Client, segment_id: str, condition: str, attribute_key: str = "user_id") -> messages.Segment:
    content = messages.Segment(attribute_key=attribute_key, condition=condition)
    return await client.segments.CreateSegment(messages.CreateSegmentRequest(segment_id=segment_id, segment=content))


async def until(client: Client, segment_id: str, state: messages.SegmentState) -> messages.Segment:
    """The segment, once it is in a state."""
    async with asyncio.timeout(30):
        while True:
            found = await client.segments.GetSegment(messages.GetSegmentRequest(name=f"segments/{segment_id}"))
            if found.state == state:
                return found
            await asyncio.sleep(0.02)


async def test_properties_of_every_type_can_be_named_and_a_write_moves_members(client: Client) -> None:
    for kind in ("boolean", "numeric", "string", "date", "array", "record"):
        await declare(client, f"a_{kind}", kind)
    await declare(client, "x-y.z")
    position = await put(
        client,
        "ann",
        {
            "a_boolean": True,
            "a_numeric": 2.5,
            "a_string": "pro",
            "a_array": ["vip", 3],
            "a_record": {"x": 1},
            "x-y.z": "q",
        },
    )
    condition = (
        "a_boolean and a_numeric between 2 and 3 and properties.a_string in ('pro', 'team') and 'vip' in a_array "
        "and a_array contains 3 and a_record is not null and a_date is null and properties.`x-y.z` like 'q%'"
    )
    await make(client, "all_types", condition)
    assert await checked(client, "all_types", "ann", "bob", position=position) == [True, False]
    position = await put(client, "ann", {}, unset=["a_string"])
    assert await checked(client, "all_types", "ann", position=position) == [False]
    refusal = make(client, "wrong", "a_record = 'x' or a_array > 1 or a_date = 5")
    code, reason, violations = await refused(refusal)
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_DEFINITION")
    assert "is an instant" in violations["segment.condition"]


async def test_a_segment_whose_name_means_two_things_is_broken_and_keeps_its_members(client: Client) -> None:
    await declare(client, "spent", "numeric")
    position = await put(client, "ann", {"spent": 5})
    await make(client, "buyers", "spent > 1")
    assert await checked(client, "buyers", "ann", position=position) == [True]
    await create(client)
    await client.publish(GROUP)
    found = await until(client, "buyers", messages.SEGMENT_STATE_BROKEN)
    assert (found.state, found.size) == (messages.SEGMENT_STATE_BROKEN, 1)
    await client.definitions.DeleteAttributeGroup(definitions.DeleteAttributeGroupRequest(name=GROUP))
    await until(client, "buyers", messages.SEGMENT_STATE_SERVING)
    assert await checked(client, "buyers", "ann") == [True]


async def test_what_a_segment_reads_is_not_deleted(client: Client) -> None:
    await declare_rollups(client)
    await declare(client, "plan")
    await make(client, "pros", "plan = 'pro' or shopping.buys > 3")
    await make(client, "more", "properties.plan is null")
    await make(client, "large", "rollups.users > 3", "account_id")

    async def refusal(call: Awaitable[object]) -> str:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert (await refused(_raise(caught.value)))[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "IN_USE")
        return str(caught.value.details())

    plan = properties.DeletePropertyRequest(name="attributeKeys/user_id/properties/plan")
    assert "segments/more, segments/pros" in await refusal(client.properties.DeleteProperty(plan))
    users = rollups.DeleteRollupRequest(name="attributeKeys/account_id/rollups/users")
    assert "segments/large" in await refusal(client.rollups.DeleteRollup(users))
    group = definitions.DeleteAttributeGroupRequest(name=GROUP)
    assert "segments/pros" in await refusal(client.definitions.DeleteAttributeGroup(group))
    for segment_id in ("pros", "more", "large"):
        await client.segments.DeleteSegment(messages.DeleteSegmentRequest(name=f"segments/{segment_id}"))
    await client.properties.DeleteProperty(plan)
    await client.rollups.DeleteRollup(users)


async def _raise(error: BaseException) -> None:
    raise error


async def test_accounts_are_members_by_what_their_users_do(client: Client, log: MemoryLog, clock: ManualClock) -> None:
    await declare_rollups(client)
    await log.append(*(purchase(i, f"u{i % 2}", NOW_US - DAY_US + i, 0.1) for i in range(3)))
    await put(client, "u0", {"account": "a", "seats": 3})
    position = await put(client, "u1", {"account": "a"})
    made = await make(client, "busy", "users >= 2 and rollups.spent > 0.25", "account_id")
    assert made.attribute_key == "account_id"
    assert await checked(client, "busy", "a", "b", position=position) == [True, False]
    async with Watch(client, "busy", send_initial=True) as watch:
        assert await watch.next(1) == [("a", "PRESENT")]
        position = await put(client, "u1", {"account": "b"})
        assert await watch.next(1) == [("a", "LEFT")]
        await log.append(*(purchase(10 + i, "u1", NOW_US - DAY_US, 1.0) for i in range(3)))
        position = await put(client, "u2", {"account": "b"})
        assert await watch.next(1) == [("b", "ENTERED")]
        assert await members(client, "busy") == ["b"]
        clock.set(NOW_US + 7 * DAY_US)
        assert await watch.next(1) == [("b", "LEFT")]
