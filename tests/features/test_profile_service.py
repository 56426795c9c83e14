"""ProfileService, served for real, over a log in memory."""

import asyncio

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from inkling.features.v1 import attribute_group_pb2 as groups_pb2
from inkling.features.v1 import profile_pb2
from inkling.features.v1 import profile_service_pb2 as profiles
from services.features.settings import FeaturesSettings
from services.features.values import Status
from services.following.feed import LogSettings
from services.runtime.clocks import ManualClock
from tests.features.memory_log import NOW_US, MemoryLog, purchase
from tests.features.reading import read_values
from tests.features.serving import DAY_US, GROUP, Client, create, refused, serving


async def test_a_group_is_created_published_and_read(client: Client, log: MemoryLog) -> None:
    draft = await create(client)
    assert (draft.name, draft.state) == (GROUP, groups_pb2.GROUP_STATE_DRAFT)
    group = await client.publish(GROUP)
    assert group.state == groups_pb2.GROUP_STATE_SERVING
    position = await log.append(purchase(1, "u", NOW_US - 5, 2.5), purchase(2, "u", NOW_US - 4, 2.5))
    selection = profile_pb2.Selection(attribute_groups=["attributeGroups/shopping"])
    request = profiles.GetProfileRequest(key_value="u", selection=selection, min_position=position)
    profile = await client.profiles.GetProfile(request)
    assert (profile.attribute_key, profile.key_value, profile.position) == ("user_id", "u", position)
    assert read_values(profile) == {
        "buys": (2, Status.PRESENT, NOW_US - 4),
        "spent": (5.0, Status.PRESENT, NOW_US - 4),
    }


async def test_a_log_whose_clock_has_not_begun_answers_without_an_instant(
    served_settings: FeaturesSettings, clock: ManualClock
) -> None:
    log = MemoryLog(LogSettings(clock="log"))
    async with serving(served_settings, log, clock) as client:
        await create(client)
        await client.publish(GROUP)
        selection = profile_pb2.Selection(attribute_groups=["attributeGroups/shopping"])
        request = profiles.GetProfileRequest(key_value="u", selection=selection)
        before = await client.profiles.GetProfile(request)
        assert not before.HasField("as_of_time")
        assert {value.status for value in before.values} == {Status.NEVER_SEEN}
        request.min_position = await log.append(purchase(1, "u", NOW_US - 5, 2.5))
        after = await client.profiles.GetProfile(request)
        assert after.as_of_time.ToMicroseconds() == NOW_US - 4


@pytest.mark.parametrize(
    ("selection", "code"),
    [
        (profile_pb2.Selection(), grpc.StatusCode.INVALID_ARGUMENT),
        (profile_pb2.Selection(feature_service="featureServices/none"), grpc.StatusCode.NOT_FOUND),
        (profile_pb2.Selection(feature_service="none"), grpc.StatusCode.INVALID_ARGUMENT),
        (profile_pb2.Selection(attribute_groups=["attributeGroups/none"]), grpc.StatusCode.NOT_FOUND),
        (profile_pb2.Selection(attributes=["shopping:none"]), grpc.StatusCode.NOT_FOUND),
        (profile_pb2.Selection(attributes=["shopping/1:buys", "shopping/1:buys"]), grpc.StatusCode.INVALID_ARGUMENT),
        (profile_pb2.Selection(attributes=["shopping"]), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_a_selection_that_means_nothing_is_refused(
    client: Client, selection: profile_pb2.Selection, code: grpc.StatusCode
) -> None:
    await create(client)
    await client.publish(GROUP)
    call = client.profiles.GetProfile(profiles.GetProfileRequest(key_value="u", selection=selection))
    assert (await refused(call))[0] == code


async def test_single_attributes_are_read_and_those_of_another_key_say_so(client: Client) -> None:
    await create(client)
    await client.publish(GROUP)
    selection = profile_pb2.Selection(attributes=["shopping/1:spent", "shopping:buys"])
    profile = await client.profiles.GetProfile(profiles.GetProfileRequest(key_value="u", selection=selection))
    assert list(read_values(profile)) == ["spent", "buys"]
    request = profiles.GetProfileRequest(key_value="u", selection=selection, attribute_key="account_id")
    values = read_values(await client.profiles.GetProfile(request))
    assert {status for _, status, _ in values.values()} == {Status.WRONG_KEY}


async def test_many_profiles_are_read_at_one_instant_in_the_order_asked(client: Client, log: MemoryLog) -> None:
    await create(client)
    await client.publish(GROUP)
    position = await log.append(*(purchase(i, f"u{i % 10}", NOW_US - i, 1.0) for i in range(100)))
    keys = [f"u{i}" for i in (3, 1, 99, 3)]
    request = profiles.BatchGetProfilesRequest(
        key_values=keys, selection=profile_pb2.Selection(attribute_groups=[GROUP]), min_position=position
    )
    answer = await client.profiles.BatchGetProfiles(request)
    assert [profile.key_value for profile in answer.profiles] == keys
    assert [read_values(profile)["buys"][0] for profile in answer.profiles] == [10, 10, None, 10]
    assert len({(p.position, p.as_of_time.seconds, p.as_of_time.nanos) for p in answer.profiles}) == 1


async def test_a_position_beyond_the_log_is_waited_for_no_longer_than_asked(client: Client) -> None:
    await create(client)
    await client.publish(GROUP)
    request = profiles.GetProfileRequest(
        key_value="u",
        selection=profile_pb2.Selection(attribute_groups=[GROUP]),
        min_position=10,
        wait_timeout=Duration(nanos=50_000_000),
    )
    assert (await refused(client.profiles.GetProfile(request)))[:2] == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "POSITION_NOT_REACHED",
    )


async def test_what_was_published_is_there_after_a_restart(
    served_settings: FeaturesSettings, log: MemoryLog, clock: ManualClock
) -> None:
    selection = profile_pb2.Selection(attribute_groups=[GROUP])
    async with serving(served_settings, log, clock) as client:
        await create(client)
        await client.publish(GROUP)
        position = await log.append(purchase(1, "u", NOW_US - 5, 2.5))
        request = profiles.GetProfileRequest(key_value="u", selection=selection, min_position=position)
        before = await client.profiles.GetProfile(request)
    async with serving(served_settings, log, clock) as client:
        after = await client.profiles.GetProfile(request)
    assert before == after


async def test_watchers_hear_of_events_and_of_time_and_can_resume(
    client: Client, log: MemoryLog, clock: ManualClock
) -> None:
    await create(client)
    await client.publish(GROUP)
    request = profiles.WatchProfilesRequest(
        selection=profile_pb2.Selection(attribute_groups=[GROUP]), min_interval=Duration(nanos=1_000_000)
    )
    watch = client.profiles.WatchProfiles(request)
    await asyncio.sleep(0.2)
    await log.append(purchase(1, "u", NOW_US - 5, 2.5), purchase(2, "v", NOW_US - 5, 1.0))
    async with asyncio.timeout(10):
        first = await watch.read()
        assert [profile.key_value for profile in first.profiles] == ["u", "v"]
        await log.append(purchase(3, "u", NOW_US - 4, 2.5))
        second = await watch.read()
        assert [read_values(profile)["buys"][0] for profile in second.profiles] == [2]
        clock.advance(8 * DAY_US)
        third = await watch.read()
        assert {p.key_value: read_values(p)["buys"][1] for p in third.profiles} == {
            "u": Status.EMPTY_WINDOW,
            "v": Status.EMPTY_WINDOW,
        }
        watch.cancel()
        request.resume_token = first.resume_token
        resumed = client.profiles.WatchProfiles(request)
        again = await resumed.read()
        assert [p.key_value for p in again.profiles] == ["u", "v"]
        resumed.cancel()
    request.key_values.append("other")
    stream = client.profiles.WatchProfiles(request)
    assert (await refused(stream.read()))[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_TOKEN")


async def test_a_watcher_of_some_keys_hears_only_of_them_and_only_of_changes(client: Client, log: MemoryLog) -> None:
    await create(client)
    await client.publish(GROUP)
    await log.append(purchase(1, "u", NOW_US - 5, 2.5))
    request = profiles.WatchProfilesRequest(
        selection=profile_pb2.Selection(attributes=["shopping:spent"]), key_values=["u"], send_initial=True
    )
    watch = client.profiles.WatchProfiles(request)
    async with asyncio.timeout(10):
        first = await watch.read()
        assert [read_values(p)["spent"][0] for p in first.profiles] == [2.5]
        await log.append(purchase(2, "v", NOW_US - 5, 1.0), purchase(1, "u", NOW_US - 5, 2.5))
        await log.append(purchase(3, "u", NOW_US - 5, 1.0))
        second = await watch.read()
        assert [(p.key_value, read_values(p)["spent"][0]) for p in second.profiles] == [("u", 3.5)]
        watch.cancel()
