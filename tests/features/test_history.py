"""The past equals what was served then; a value equals what its events say."""

from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from inkling.features.v1 import attribute_group_pb2 as groups_pb2
from inkling.features.v1 import definition_service_pb2 as definitions
from inkling.features.v1 import profile_history_pb2 as history
from inkling.features.v1 import profile_pb2
from inkling.features.v1 import profile_service_pb2 as profiles
from services.features.archive import ArchiveListing
from services.features.settings import FeaturesSettings
from services.kernel.columns import DELETE, REPLACE
from services.runtime.clocks import ManualClock
from tests.features.archives import MemoryListings
from tests.features.memory_log import NOW_US, MemoryLog, purchase
from tests.features.serving import DAY_US, GROUP, Client, refused, serving

SELECTION = profile_pb2.Selection(attribute_groups=[GROUP])
PRICE = groups_pb2.Property(atomic=groups_pb2.AtomicProperty(name="price"))
BUY = [groups_pb2.EventSelector(vendor="shop", name="buy")]


def attribute(name: str, kind: int, function: int, **fields: object) -> groups_pb2.Attribute:
    return groups_pb2.Attribute(name=name, type=kind, events=BUY, aggregation=function, **fields)  # type: ignore[arg-type]


WEEK = Duration(seconds=7 * 86_400)
ATTRIBUTES = [
    attribute("buys", groups_pb2.VALUE_TYPE_INT32, groups_pb2.AGGREGATION_FUNCTION_COUNTER, period=WEEK),
    attribute("spent", groups_pb2.VALUE_TYPE_DOUBLE, groups_pb2.AGGREGATION_FUNCTION_SUM, property=PRICE, period=WEEK),
    attribute("first", groups_pb2.VALUE_TYPE_DOUBLE, groups_pb2.AGGREGATION_FUNCTION_FIRST, property=PRICE),
    attribute("most", groups_pb2.VALUE_TYPE_DOUBLE, groups_pb2.AGGREGATION_FUNCTION_MAX, property=PRICE, period=WEEK),
    attribute(
        "recent",
        groups_pb2.VALUE_TYPE_INT32,
        groups_pb2.AGGREGATION_FUNCTION_COUNTER,
        ttl=Duration(seconds=3 * 86_400),
    ),
    attribute("since", groups_pb2.VALUE_TYPE_INT64, groups_pb2.AGGREGATION_FUNCTION_TIME_SINCE_LAST),
]


@pytest.fixture
async def shop(served_settings: FeaturesSettings, log: MemoryLog, clock: ManualClock) -> AsyncIterator[Client]:
    """A client of a server with an archive and a published group."""
    await log.append(*EVENTS)
    listings = MemoryListings(log, served_settings.archive_root)
    async with serving(served_settings, log, clock, listings) as client:
        request = definitions.CreateAttributeGroupRequest(
            group_id="shopping",
            attribute_group=groups_pb2.AttributeGroup(attribute_key="user_id", attributes=ATTRIBUTES),
        )
        await client.definitions.CreateAttributeGroup(request)
        await client.publish(GROUP)
        yield client


EVENTS = [
    purchase(1, "u1", NOW_US - 9 * DAY_US, 5.0),
    purchase(2, "u1", NOW_US - 6 * DAY_US, 2.5),
    purchase(3, "u1", NOW_US - 5 * DAY_US),
    purchase(4, "u2", NOW_US - 4 * DAY_US, 7.0),
    purchase(5, "u1", NOW_US - 2 * DAY_US, 4.0),
    purchase(2, "u1", NOW_US - 6 * DAY_US, 2.5),
    purchase(6, "u3", NOW_US - DAY_US, 1.0, name="look"),
]


async def get(client: Client, user: str, position: int = 0) -> profile_pb2.Profile:
    request = profiles.GetProfileRequest(key_value=user, selection=SELECTION, min_position=position)
    found: profile_pb2.Profile = await client.profiles.GetProfile(request)
    return found


async def past(client: Client, user: str, *instants: Timestamp, **fields: object) -> list[profile_pb2.Profile]:
    request = history.GetProfileHistoryRequest(
        key_value=user,
        selection=SELECTION,
        as_of_times=instants,
        **fields,  # type: ignore[arg-type]
    )
    return list((await client.profiles.GetProfileHistory(request)).profiles)


def instant(us: int) -> Timestamp:
    made = Timestamp()
    made.FromMicroseconds(us)
    return made


async def test_history_as_of_now_is_what_is_served_now(shop: Client) -> None:
    for user in ("u1", "u2", "nobody"):
        served = await get(shop, user)
        assert await past(shop, user, served.as_of_time) == [served]


async def test_history_tells_each_past_present_again(shop: Client, log: MemoryLog, clock: ManualClock) -> None:
    """Also after late events and corrections, when only what was known then is asked for."""
    seen = []
    late = purchase(20, "u1", NOW_US - 8 * DAY_US, 100.0)
    changes = [
        purchase(21, "u1", NOW_US, 8.0),
        late,
        purchase(22, "u1", NOW_US - 3 * DAY_US, 3.0),
        type(late)(
            **{name: getattr(late, name) for name in late.__slots__}
            | {"operation": REPLACE, "revision": 1, "properties": {"price": 1.0}, "keys": {"user_id": "u2"}}
        ),
        type(late)(
            **{name: getattr(late, name) for name in late.__slots__}
            | {"event_id": "e5", "operation": DELETE, "revision": 2, "properties": {}}
        ),
    ]
    for days, change in enumerate(changes):
        position = await log.append(change)
        clock.set(NOW_US + days * DAY_US)
        seen.append(await get(shop, "u1", position))
    for served in seen:
        assert await past(shop, "u1", served.as_of_time, position=served.position) == [served]
    now = await past(shop, "u1", *(served.as_of_time for served in seen))
    assert [each.as_of_time for each in now] == [served.as_of_time for served in seen]
    assert now[-1] == seen[-1]
    assert [each.values for each in now[:2]] != [each.values for each in seen[:2]]


async def test_a_range_is_read_in_steps(shop: Client) -> None:
    start = NOW_US - 10 * DAY_US
    found = await past(
        shop,
        "u1",
        start_time=instant(start),
        end_time=instant(NOW_US),
        step=Duration(seconds=86_400),
    )
    assert [each.as_of_time.ToMicroseconds() for each in found] == list(range(start, NOW_US + 1, DAY_US))
    buys = [each.values[0].value.int_value for each in found]
    # An event counts from just after its time until just after a week later.
    assert buys == [0, 0, 1, 1, 1, 2, 3, 3, 3, 3, 3]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "as_of_times"),
        ({"start_time": instant(NOW_US)}, "as_of_times"),
        ({"start_time": instant(NOW_US), "end_time": instant(NOW_US), "step": Duration()}, "step"),
        ({"start_time": instant(NOW_US), "end_time": instant(0), "step": Duration(seconds=1)}, "end_time"),
        ({"start_time": instant(0), "end_time": instant(NOW_US), "step": Duration(seconds=1)}, "step"),
        ({"start_time": instant(0), "end_time": instant(0), "step": Duration(seconds=1), "position": -1}, "position"),
        ({"start_time": instant(0), "end_time": instant(0), "step": Duration(seconds=1), "key_value": ""}, "key_value"),
    ],
)
async def test_questions_about_no_past_are_refused(shop: Client, fields: dict[str, object], field: str) -> None:
    request = history.GetProfileHistoryRequest(**{"key_value": "u1", "selection": SELECTION, **fields})  # type: ignore[arg-type]
    code, reason, violations = await refused(shop.profiles.GetProfileHistory(request))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "OUT_OF_RANGE")
    assert list(violations) == [field]


async def test_without_an_archive_there_is_no_past(client: Client) -> None:
    request = history.GetProfileHistoryRequest(key_value="u1", selection=SELECTION, as_of_times=[instant(NOW_US)])
    code, reason, _ = await refused(client.profiles.GetProfileHistory(request))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    await client.definitions.CreateAttributeGroup(
        definitions.CreateAttributeGroupRequest(
            group_id="shopping",
            attribute_group=groups_pb2.AttributeGroup(attribute_key="user_id", attributes=ATTRIBUTES),
        )
    )
    await client.publish(GROUP)
    code, reason, _ = await refused(client.profiles.GetProfileHistory(request))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_ARCHIVE")


# Explanations.


async def explained(client: Client, value: str, user: str = "u1", **fields: object) -> history.ExplainValueResponse:
    request = history.ExplainValueRequest(key_value=user, value=f"shopping:{value}", **fields)  # type: ignore[arg-type]
    found: history.ExplainValueResponse = await client.profiles.ExplainValue(request)
    return found


async def test_every_explained_value_is_the_one_served(shop: Client) -> None:
    for user in ("u1", "u2", "nobody"):
        served = await get(shop, user)
        for value in served.values:
            found = await explained(shop, value.name, user)
            assert found.value == value
            assert (found.as_of_time, found.position) == (served.as_of_time, served.position)


async def test_an_explanation_tells_which_events_count(shop: Client) -> None:
    found = await explained(shop, "spent")
    assert found.window_start_time.ToMicroseconds() == NOW_US + 1 - 7 * DAY_US
    assert (found.relevant_count, found.counted_count) == (4, 2)
    assert [each.event_id for each in found.events] == ["e5", "e3", "e2", "e1"]
    assert [each.in_window for each in found.events] == [True, True, True, False]
    assert [each.counted for each in found.events] == [True, False, True, False]
    assert [each.HasField("term") for each in found.events] == [True, False, True, True]
    assert [each.term.double_value for each in found.events] == [4.0, 0.0, 2.5, 5.0]
    assert found.events[0].event_type == "shop/buy/1-0-0"
    assert found.events[0].occurred_time.ToMicroseconds() == NOW_US - 2 * DAY_US
    assert sum(each.term.double_value for each in found.events if each.counted) == found.value.value.double_value


@pytest.mark.parametrize(
    ("value", "decisive"), [("first", ["e1"]), ("most", ["e5"]), ("since", ["e5"]), ("buys", []), ("spent", [])]
)
async def test_an_explanation_tells_the_event_that_decides(shop: Client, value: str, decisive: list[str]) -> None:
    found = await explained(shop, value)
    assert [each.event_id for each in found.events if each.decisive] == decisive


async def test_with_a_ttl_the_run_of_events_counts(shop: Client, clock: ManualClock) -> None:
    found = await explained(shop, "recent")
    # From e3 to e5 it took 3 days: the run began anew.
    assert [each.event_id for each in found.events if each.counted] == ["e5"]
    assert found.value.value.int_value == 1
    clock.set(NOW_US + 2 * DAY_US)
    found = await explained(shop, "recent")
    assert found.counted_count == 0
    assert found.value.status == profile_pb2.VALUE_STATUS_EXPIRED


async def test_pages_of_an_explanation_stay_at_its_instant(shop: Client, log: MemoryLog, clock: ManualClock) -> None:
    first = await explained(shop, "spent", page_size=3)
    await log.append(purchase(30, "u1", NOW_US - 1, 50.0))
    clock.set(NOW_US + DAY_US)
    second = await explained(shop, "spent", page_size=3, page_token=first.next_page_token)
    assert (second.value, second.as_of_time, second.position) == (first.value, first.as_of_time, first.position)
    assert [each.event_id for each in [*first.events, *second.events]] == ["e5", "e3", "e2", "e1"]
    assert second.next_page_token == ""


async def test_only_values_there_are_can_be_explained(shop: Client) -> None:
    for value, key in (("shopping:nothing", ""), ("nothing:buys", ""), ("shopping:buys", "account")):
        request = history.ExplainValueRequest(attribute_key=key, key_value="u1", value=value)
        code, _, _ = await refused(shop.profiles.ExplainValue(request))
        assert code is grpc.StatusCode.NOT_FOUND


# Lists.


async def test_profiles_are_listed_by_key_in_pages(shop: Client, log: MemoryLog) -> None:
    position = await log.append(*(purchase(100 + i, f"v{i}", NOW_US - DAY_US, float(i)) for i in range(5)))
    await get(shop, "v1", position)
    found: list[profile_pb2.Profile] = []
    token = ""
    while True:
        page = await shop.profiles.ListProfiles(
            history.ListProfilesRequest(selection=SELECTION, page_size=3, page_token=token)
        )
        found += page.profiles
        token = page.next_page_token
        if not token:
            break
        assert len(page.profiles) == 3
    assert [each.key_value for each in found] == ["u1", "u2", "v0", "v1", "v2", "v3", "v4"]
    for each in found:
        assert each == await get(shop, each.key_value)


async def test_without_a_selection_only_keys_are_listed(shop: Client) -> None:
    page = await shop.profiles.ListProfiles(history.ListProfilesRequest(attribute_key="user_id"))
    assert [(each.key_value, list(each.values)) for each in page.profiles] == [("u1", []), ("u2", [])]
    code, reason, _ = await refused(shop.profiles.ListProfiles(history.ListProfilesRequest()))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_SELECTION")
    page = await shop.profiles.ListProfiles(history.ListProfilesRequest(attribute_key="account_id"))
    assert not page.profiles


async def test_the_log_is_archived_for_a_question_only_when_the_archive_is_behind(
    served_settings: FeaturesSettings, log: MemoryLog, clock: ManualClock
) -> None:
    class Behind(MemoryListings):
        """Holds what was in the log when it was settled last."""

        def __init__(self) -> None:
            super().__init__(log, served_settings.archive_root)
            self.held = ArchiveListing("default", (), 0, None, log.settings.horizon_us)
            self.settled = 0

        async def listing(self, project: str, *, settle: bool = True) -> ArchiveListing:
            if settle:
                self.settled += 1
                self.held = await super().listing(project)
            return self.held

    await log.append(*EVENTS)
    listings = Behind()
    async with serving(served_settings, log, clock, listings) as client:
        request = definitions.CreateAttributeGroupRequest(
            group_id="shopping",
            attribute_group=groups_pb2.AttributeGroup(attribute_key="user_id", attributes=ATTRIBUTES),
        )
        await client.definitions.CreateAttributeGroup(request)
        await client.publish(GROUP)
        for _ in range(3):
            served = await get(client, "u1")
            assert await past(client, "u1", served.as_of_time) == [served]
        assert listings.settled == 1
        await log.append(purchase(50, "u1", NOW_US - 1, 9.0))
        served = await get(client, "u1", position=len(log.rows))
        assert await past(client, "u1", served.as_of_time) == [served]
        assert await past(client, "u1", served.as_of_time, position=3) != [served]
        assert listings.settled == 2
