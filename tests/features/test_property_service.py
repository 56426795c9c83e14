"""Properties and roll-ups over gRPC: declared, set, read, watched; what is wrong is refused with a hint."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from inkling.features.v1 import profile_pb2
from inkling.features.v1 import profile_service_pb2 as profiles
from inkling.features.v1 import property_service_pb2 as messages
from inkling.features.v1 import rollup_service_pb2 as rollups
from inkling.features.v1 import segment_service_pb2 as segments
from inkling.types.v1.value_pb2 import ListValue, RecordValue, StringList, Value
from services.features.proto import timestamp
from services.features.settings import FeaturesSettings
from services.features.values import Status
from services.following.feed import LogSettings
from services.runtime.clocks import ManualClock
from tests.features.memory_log import NOW_US, MemoryLog, purchase
from tests.features.serving import DAY_US, GROUP, Client, create, refused, serving

INVALID = grpc.StatusCode.INVALID_ARGUMENT
TYPES = {
    "boolean": messages.PROPERTY_TYPE_BOOLEAN,
    "numeric": messages.PROPERTY_TYPE_NUMERIC,
    "string": messages.PROPERTY_TYPE_STRING,
    "date": messages.PROPERTY_TYPE_DATE,
    "array": messages.PROPERTY_TYPE_ARRAY,
    "record": messages.PROPERTY_TYPE_RECORD,
}


class MovingClock(ManualClock):
    """A clock that is a millisecond further each time that somebody looks at it."""

    def now_us(self) -> int:
        """See Clock."""
        self.advance(1_000)
        return super().now_us()


@pytest.fixture
def clock() -> ManualClock:
    """Time passes between a write and the next."""
    return MovingClock(NOW_US)


def value(given: Any) -> Value:
    """A Value of the kind that fits the Python type."""
    match given:
        case Value():
            return given
        case bool():
            return Value(bool_value=given)
        case int():
            return Value(int_value=given)
        case float():
            return Value(double_value=given)
        case str():
            return Value(string_value=given)
        case Timestamp():
            return Value(timestamp_value=given)
        case list():
            return Value(list_value=ListValue(values=[value(each) for each in given]))
        case dict():
            return Value(record_value=RecordValue(fields={name: value(each) for name, each in given.items()}))
    return Value()


def writing(key_value: str, values: Mapping[str, Any], **fields: Any) -> messages.PropertyWrite:
    """One write."""
    return messages.PropertyWrite(
        key_value=key_value, values={name: value(each) for name, each in values.items()}, **fields
    )


async def declare(
    client: Client, name: str, kind: str = "string", key: str = "user_id", **fields: Any
) -> messages.PropertyDeclaration:
    """Declares a property."""
    content = messages.PropertyDeclaration(type=TYPES[kind], **fields)
    return await client.properties.CreateProperty(
        messages.CreatePropertyRequest(attribute_key=key, property_id=name, property=content)
    )


async def put(
    client: Client, key_value: str, values: Mapping[str, Any], source: str = "", key: str = "user_id", **fields: Any
) -> int:
    """Sets properties; the position of the write."""
    request = messages.SetPropertiesRequest(
        attribute_key=key, write=writing(key_value, values, **fields), source=source
    )
    return int((await client.properties.SetProperties(request)).position)


async def read(
    client: Client, key_value: str, position: int, *names: str, key: str = "user_id"
) -> dict[str, profile_pb2.PropertyValue]:
    """The properties of a profile by name."""
    request = profiles.GetProfileRequest(
        attribute_key=key,
        key_value=key_value,
        selection=profile_pb2.Selection(properties=names or ["*"]),
        min_position=position,
    )
    return {each.name: each for each in (await client.profiles.GetProfile(request)).properties}


async def test_a_declared_property_is_set_read_back_and_unset(client: Client) -> None:
    declared = await declare(client, "plan", description="What they pay for.", source="billing")
    assert declared.name == "attributeKeys/user_id/properties/plan"
    assert declared.merge_strategy == messages.MERGE_STRATEGY_MOST_RECENT
    assert declared.visibility == messages.PROPERTY_VISIBILITY_VISIBLE
    assert await client.properties.GetProperty(messages.GetPropertyRequest(name=declared.name)) == declared

    found = await read(client, "u", 0)
    assert (found["plan"].HasField("value"), found["plan"].status) == (False, Status.NEVER_SEEN)
    found = await read(client, "u", await put(client, "u", {"plan": "pro"}))
    assert found["plan"] == profile_pb2.PropertyValue(
        name="plan",
        value=value("pro"),
        status=profile_pb2.VALUE_STATUS_PRESENT,
        event_time=found["plan"].event_time,
        source="api",
    )
    assert found["plan"].event_time.seconds == NOW_US // 1_000_000
    found = await read(client, "u", await put(client, "u", {}, unset=["plan"]))
    assert (found["plan"].HasField("value"), found["plan"].status) == (False, Status.NULL)
    found = await read(client, "u", await put(client, "u", {"plan": "basic"}, source="rule:r1"))
    assert (found["plan"].value.string_value, found["plan"].source) == ("basic", "rule:r1")


async def test_values_of_every_type_come_back_as_they_were(client: Client) -> None:
    instant = timestamp(NOW_US - DAY_US)
    given: dict[str, Any] = {
        "boolean": False,
        "numeric": 0.1,
        "string": "",
        "date": instant,
        "array": [1, 1.0, "x", None, True, instant, ["deeper", {"a": 2}]],
        "record": {"b": 1, "a": {"list": [], "none": None}, "ä": "ö"},
    }
    for kind in given:
        await declare(client, kind, kind)
    found = await read(client, "u", await put(client, "u", given))
    assert {name: each.value for name, each in found.items()} == {name: value(each) for name, each in given.items()}
    numbers = Value(string_list_value=StringList(values=["a", "b"]))
    found = await read(client, "u", await put(client, "u", {"array": numbers, "numeric": 2**53}))
    assert found["array"].value == value(["a", "b"])
    assert found["numeric"].value.double_value == 2.0**53


async def test_the_last_writer_by_event_time_wins_and_a_retry_adds_nothing(client: Client) -> None:
    await declare(client, "plan")
    await declare(client, "spent", "numeric", merge_strategy=messages.MERGE_STRATEGY_SUM)
    await put(client, "u", {"plan": "new"}, event_time=timestamp(NOW_US - 10))
    position = await put(client, "u", {"plan": "old"}, event_time=timestamp(NOW_US - 20))
    assert (await read(client, "u", position))["plan"].value.string_value == "new"
    for _ in range(3):
        position = await put(client, "u", {"spent": 5}, write_id="w1")
    for _ in range(2):
        position = await put(client, "u", {"spent": 0.5}, event_time=timestamp(NOW_US - 5))
    assert (await read(client, "u", position))["spent"].value.double_value == 5.5


async def test_first_max_and_sum_merge_what_was_written(client: Client) -> None:
    strategies = {"first": messages.MERGE_STRATEGY_FIRST, "max": messages.MERGE_STRATEGY_MAX}
    for name, strategy in strategies.items():
        await declare(client, name, "numeric", merge_strategy=strategy)
    position = 0
    for i, (number, source) in enumerate([(2, "api"), (7, "plugin:p"), (3, "model:m")]):
        written = {"first": number, "max": number}
        position = await put(client, "u", written, source, event_time=timestamp(NOW_US - 100 + i))
    found = await read(client, "u", position)
    assert {
        name: (each.value.double_value, each.source, each.event_time.ToMicroseconds() - NOW_US)
        for name, each in found.items()
    } == {
        "first": (2, "api", -100),
        "max": (7, "model:m", -98),
    }


REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], str, str]] = [
    ("undeclared", {"plam": "x"}, {}, "UNDECLARED_PROPERTY", "write.values.plam"),
    ("undeclared unset", {}, {"unset": ["none"]}, "UNDECLARED_PROPERTY", "write.unset"),
    ("a number for a string", {"plan": 5}, {}, "BAD_VALUE", "write.values.plan"),
    ("a string for a number", {"spent": "5"}, {}, "BAD_VALUE", "write.values.spent"),
    ("nan", {"spent": float("nan")}, {}, "BAD_VALUE", "write.values.spent"),
    ("too large a number", {"spent": 2**53 + 1}, {}, "BAD_VALUE", "write.values.spent"),
    ("no value", {"plan": None}, {}, "BAD_VALUE", "write.values.plan"),
    ("long text", {"plan": "x" * 32_769}, {}, "BAD_VALUE", "write.values.plan"),
    ("nested nan", {"tags": [float("nan")]}, {}, "BAD_VALUE", "write.values.tags"),
    ("unset of a sum", {}, {"unset": ["spent"]}, "BAD_VALUE", "write.unset"),
    ("set and unset", {"plan": "x"}, {"unset": ["plan"]}, "BAD_VALUE", "write.unset"),
    ("nothing", {}, {}, "OUT_OF_RANGE", "write.values"),
    ("too early", {"plan": "x"}, {"event_time": timestamp(NOW_US + 2 * 300_000_000)}, "BAD_TIME", "write.event_time"),
]


@pytest.mark.parametrize(("values", "fields", "reason", "field"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
async def test_a_write_that_does_not_fit_is_refused(
    client: Client, values: dict[str, Any], fields: dict[str, Any], reason: str, field: str
) -> None:
    await declare(client, "plan")
    await declare(client, "spent", "numeric", merge_strategy=messages.MERGE_STRATEGY_SUM)
    await declare(client, "tags", "array")
    code, found, violations = await refused(put(client, "u", values, **fields))
    assert (code, found, list(violations)) == (INVALID, reason, [field])
    if reason == "UNDECLARED_PROPERTY" and values:
        assert "did you mean `plan`?" in violations[field]


async def test_declarations_that_mean_nothing_are_refused(client: Client) -> None:
    sums, greatest = messages.MERGE_STRATEGY_SUM, messages.MERGE_STRATEGY_MAX
    for name, kind, fields, place in [
        ("a/b", "string", {}, "property_id"),
        ("p", "string", {"merge_strategy": sums}, "property.merge_strategy"),
        ("p", "boolean", {"merge_strategy": greatest}, "property.merge_strategy"),
        ("p", "numeric", {"refers_to": "account_id"}, "property.refers_to"),
        ("p", "string", {"refers_to": "user_id"}, "property.refers_to"),
    ]:
        code, reason, violations = await refused(declare(client, name, kind, **fields))  # type: ignore[arg-type]
        assert (code, reason, list(violations)) == (INVALID, "BAD_DEFINITION", [place])
    await declare(client, "p")
    assert (await refused(declare(client, "p")))[1] == "ALREADY_EXISTS"


async def test_a_declaration_can_be_described_but_keeps_its_type(client: Client) -> None:
    declared = await declare(client, "plan")
    declared.description = "Better."
    changed = await client.properties.UpdateProperty(messages.UpdatePropertyRequest(property=declared))
    assert changed.description == "Better."
    assert changed.etag != declared.etag
    code, reason, _ = await refused(client.properties.UpdateProperty(messages.UpdatePropertyRequest(property=declared)))
    assert (code, reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    changed.type = messages.PROPERTY_TYPE_NUMERIC
    _, _, violations = await refused(client.properties.UpdateProperty(messages.UpdatePropertyRequest(property=changed)))
    assert list(violations) == ["property.type"]


async def test_hidden_properties_are_read_only_when_named(client: Client) -> None:
    await declare(client, "plan")
    await declare(client, "secret", visibility=messages.PROPERTY_VISIBILITY_HIDDEN)
    position = await put(client, "u", {"plan": "pro", "secret": "s"})
    assert list(await read(client, "u", position)) == ["plan"]
    assert list(await read(client, "u", position, "secret", "*")) == ["secret", "plan"]


async def test_a_property_that_is_declared_again_has_its_values_again(client: Client) -> None:
    declared = await declare(client, "plan")
    position = await put(client, "u", {"plan": "pro"})
    await client.properties.DeleteProperty(messages.DeletePropertyRequest(name=declared.name))
    assert (await refused(read(client, "u", position, "plan")))[1] == "NOT_FOUND"
    await declare(client, "plan")
    while (found := await read(client, "u", position))["plan"].status == Status.BACKFILLING:
        pass
    assert found["plan"].value.string_value == "pro"


async def chunks(*requests: messages.BatchSetPropertiesRequest) -> AsyncIterator[messages.BatchSetPropertiesRequest]:
    """A stream."""
    for each in requests:
        yield each


async def test_chunks_are_acknowledged_in_order_and_bad_writes_refused_alone(client: Client) -> None:
    await declare(client, "n", "numeric")
    requests = []
    for sequence in range(1, 8):
        writes = [writing(f"u{i}", {"n": sequence}) for i in range(40)]
        writes[7] = writing("u7", {"n": "seven"})
        requests.append(messages.BatchSetPropertiesRequest(sequence=sequence, attribute_key="user_id", writes=writes))
    answers = [each async for each in client.properties.BatchSetProperties(chunks(*requests))]
    assert [each.sequence for each in answers] == list(range(1, 8))
    assert {each.accepted_count for each in answers} == {39}
    assert {(each.rejected[0].index, each.rejected[0].field) for each in answers} == {(7, "writes[7].values.n")}
    found = await read(client, "u39", max(each.position for each in answers))
    assert found["n"].value.double_value == 7
    assert (await read(client, "u7", 0))["n"].status == Status.NEVER_SEEN


async def test_of_two_writes_of_one_chunk_the_later_is_the_last_and_sending_it_again_adds_nothing(
    client: Client,
) -> None:
    await declare(client, "plan")
    await declare(client, "n", "numeric", merge_strategy=messages.MERGE_STRATEGY_SUM)
    writes = [writing("u", {"plan": plan, "n": 1}) for plan in ("a", "b", "c")]
    request = messages.BatchSetPropertiesRequest(sequence=1, attribute_key="user_id", writes=writes, write_id="c1")
    position = 0
    for _ in range(2):
        async for answer in client.properties.BatchSetProperties(chunks(request)):
            position = answer.position
    found = await read(client, "u", position)
    assert (found["plan"].value.string_value, found["n"].value.double_value) == ("c", 3)


async def test_everything_known_of_a_key_is_read_at_once(client: Client, log: MemoryLog) -> None:
    await create(client)
    await client.publish(GROUP)
    await declare(client, "plan")
    await log.append(purchase(1, "u", NOW_US - DAY_US, 2.5))
    position = await put(client, "u", {"plan": "pro"})
    request = profiles.GetProfileRequest(
        attribute_key="user_id",
        key_value="u",
        selection=profile_pb2.Selection(everything=True),
        min_position=position,
    )
    profile = await client.profiles.GetProfile(request)
    assert [(each.name, each.attribute_group) for each in profile.values] == [("buys", GROUP), ("spent", GROUP)]
    assert profile.values[0].value.int_value == 1, "the property's own record is not counted"
    assert [each.value.string_value for each in profile.properties] == ["pro"]
    request.attribute_key = ""
    assert (await client.profiles.GetProfile(request)).values == profile.values, "there is only one key"


async def test_with_the_clock_of_the_log_a_write_without_a_time_follows_the_newest_event(
    served_settings: FeaturesSettings, clock: ManualClock
) -> None:
    log = MemoryLog(LogSettings("log"))
    async with serving(served_settings, log, clock) as client:
        await declare(client, "plan")
        assert (await refused(put(client, "u", {"plan": "x"})))[1] == "CLOCK_NOT_BEGUN"
        then_us = NOW_US - 500 * DAY_US
        position = await log.append(purchase(1, "u", then_us))
        await read(client, "u", position)
        await put(client, "u", {"plan": "a"})
        found = await read(client, "u", await put(client, "u", {"plan": "b"}))
        assert found["plan"].value.string_value == "b"
        assert found["plan"].event_time == timestamp(then_us + 2)


async def test_a_profile_tells_its_segments_and_who_watches_is_told_of_a_new_one(client: Client) -> None:
    await declare(client, "plan")
    content = segments.Segment(attribute_key="user_id", condition="plan = 'pro'")
    await client.segments.CreateSegment(segments.CreateSegmentRequest(segment_id="paying", segment=content))
    request = profiles.WatchProfilesRequest(
        attribute_key="user_id", selection=profile_pb2.Selection(segments=True), key_values=["u"], send_initial=True
    )
    stream = client.profiles.WatchProfiles(request)
    assert not (await stream.read()).profiles[0].segments
    position = await put(client, "u", {"plan": "pro"})
    get = profiles.GetProfileRequest(
        attribute_key="user_id",
        key_value="u",
        selection=profile_pb2.Selection(everything=True),
        min_position=position,
    )
    assert list((await client.profiles.GetProfile(get)).segments) == ["segments/paying"]
    assert list((await stream.read()).profiles[0].segments) == ["segments/paying"]
    stream.cancel()
    get.min_position = await put(client, "u", {"plan": "free"})
    assert not (await client.profiles.GetProfile(get)).segments


async def rolled_up(client: Client, account: str, position: int) -> dict[str, tuple[Any, int]]:
    """The roll-ups of an account: value and status by name."""
    request = profiles.GetProfileRequest(
        attribute_key="account_id",
        key_value=account,
        selection=profile_pb2.Selection(rollups=["*"]),
        min_position=position,
    )
    profile = await client.profiles.GetProfile(request)
    return {
        each.name: (getattr(each.value, each.value.WhichOneof("kind") or "string_value") or None, each.status)
        for each in profile.rollups
    }


async def declare_rollups(client: Client) -> None:
    """Users that buy and refer to accounts."""
    await create(client)
    await client.publish(GROUP)
    await declare(client, "account", refers_to="account_id")
    await declare(client, "seats", "numeric")
    for name, attribute, function in [
        ("spent", "shopping:spent", rollups.ROLLUP_FUNCTION_SUM),
        ("users", "", rollups.ROLLUP_FUNCTION_COUNT),
        ("most", "shopping:buys", rollups.ROLLUP_FUNCTION_MAX),
        ("seats", "properties.seats", rollups.ROLLUP_FUNCTION_MEAN),
    ]:
        await client.rollups.CreateRollup(
            rollups.CreateRollupRequest(
                attribute_key="account_id",
                rollup_id=name,
                rollup=rollups.Rollup(
                    reference="attributeKeys/user_id/properties/account", attribute=attribute, function=function
                ),
            )
        )


async def test_attributes_of_users_are_rolled_up_to_the_account_that_they_refer_to_now(
    client: Client, log: MemoryLog, clock: ManualClock
) -> None:
    await declare_rollups(client)
    none = Status.NEVER_SEEN
    assert await rolled_up(client, "a", 0) == dict.fromkeys(("most", "seats", "spent", "users"), (None, none))
    await log.append(*(purchase(i, f"u{i % 2}", NOW_US - DAY_US + i, 0.1) for i in range(3)))
    await put(client, "u0", {"account": "a", "seats": 3})
    position = await put(client, "u1", {"account": "a"})
    present = Status.PRESENT
    expected = {"most": (2, present), "seats": (3.0, present), "users": (2, present), "spent": (0.3, present)}
    found = await rolled_up(client, "a", position)
    assert found["spent"][0] == pytest.approx(0.3)
    assert {**found, "spent": expected["spent"]} == expected

    position = await put(client, "u0", {"account": "b"})
    assert (await rolled_up(client, "b", position))["users"] == (1, present)
    assert (await rolled_up(client, "a", position))["spent"] == (0.1, present)
    position = await put(client, "u1", {}, unset=["account"])
    assert (await rolled_up(client, "a", position))["users"] == (None, none)
    clock.set(NOW_US + 7 * DAY_US)
    assert (await rolled_up(client, "b", position))["spent"][1] == Status.NULL, "it has left the window"


async def test_an_account_of_many_users_is_rolled_up_like_one_of_few(client: Client, log: MemoryLog) -> None:
    await declare_rollups(client)
    users = [f"u{i}" for i in range(150)]
    await log.append(*(purchase(i, user, NOW_US - DAY_US, 0.1) for i, user in enumerate(users[:100])))
    writes = [writing(user, {"account": "a", "seats": i}) for i, user in enumerate(users)]
    request = messages.BatchSetPropertiesRequest(sequence=1, attribute_key="user_id", writes=writes)
    (answer,) = [each async for each in client.properties.BatchSetProperties(chunks(request))]
    assert await rolled_up(client, "a", answer.position) == {
        "most": (1, Status.PRESENT),
        "seats": (74.5, Status.PRESENT),
        "spent": (10.0, Status.PRESENT),
        "users": (150, Status.PRESENT),
    }


async def test_who_watches_an_account_is_told_when_a_user_changes(client: Client, log: MemoryLog) -> None:
    await declare_rollups(client)
    position = await put(client, "u", {"account": "a"})
    await rolled_up(client, "a", position)
    request = profiles.WatchProfilesRequest(
        attribute_key="account_id", selection=profile_pb2.Selection(rollups=["spent"]), key_values=["a"]
    )
    request.min_interval.FromMilliseconds(1)
    request.send_initial = True
    stream = client.profiles.WatchProfiles(request)
    first = await stream.read()
    assert first.profiles[0].rollups[0].status == Status.NULL
    await log.append(purchase(1, "u", NOW_US - 1, 5.0))
    told = await stream.read()
    assert told.profiles[0].key_value == "a"
    assert told.profiles[0].rollups[0].value.double_value == 5.0
    stream.cancel()


async def test_rollups_that_mean_nothing_are_refused(client: Client) -> None:
    await declare_rollups(client)
    await declare(client, "plan")
    reference, sums = "attributeKeys/user_id/properties/account", rollups.ROLLUP_FUNCTION_SUM
    for content, place in [
        (rollups.Rollup(reference=reference, attribute="shopping:spend", function=sums), "rollup.attribute"),
        (rollups.Rollup(reference=reference, attribute="properties.plan", function=sums), "rollup.function"),
        (rollups.Rollup(reference=reference, function=sums), "rollup.attribute"),
        (rollups.Rollup(reference=reference, attribute="shopping:spent"), "rollup.function"),
        (
            rollups.Rollup(reference="attributeKeys/user_id/properties/plan", function=rollups.ROLLUP_FUNCTION_COUNT),
            "rollup.reference",
        ),
    ]:
        request = rollups.CreateRollupRequest(attribute_key="account_id", rollup_id="r", rollup=content)
        code, reason, violations = await refused(client.rollups.CreateRollup(request))
        assert (code, reason, list(violations)) == (INVALID, "BAD_DEFINITION", [place])
    delete = messages.DeletePropertyRequest(name=reference)
    assert (await refused(client.properties.DeleteProperty(delete)))[1] == "IN_USE"
