"""The two gRPC services, served for real, over a log in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2, status_pb2

from inkling.features.v1 import attribute_group_pb2 as groups_pb2
from inkling.features.v1 import definition_service_pb2 as definitions
from inkling.features.v1 import feature_service_pb2 as services_pb2
from inkling.features.v1 import profile_service_pb2 as profiles
from inkling.features.v1.definition_service_pb2_grpc import DefinitionServiceStub
from inkling.features.v1.profile_service_pb2_grpc import ProfileServiceStub
from services.features.app import open_app
from services.features.settings import FeaturesSettings
from services.features.values import Status
from services.runtime.clocks import ManualClock
from services.runtime.server import Server
from tests.features.conftest import NOW_US, MemoryLog, purchase
from tests.features.reading import read_values

DAY_US = 86_400_000_000
CONFORMANCE = Path(__file__).parents[1] / "conformance"
GROUP = "attributeGroups/shopping/versions/1"


class Client:
    """The stubs of one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.definitions = DefinitionServiceStub(channel)
        self.profiles = ProfileServiceStub(channel)
        self.operations = operations_pb2_grpc.OperationsStub(channel)

    async def publish(self, name: str) -> groups_pb2.AttributeGroup:
        """Publishes, and waits until it is served."""
        operation = await self.definitions.PublishAttributeGroup(definitions.PublishAttributeGroupRequest(name=name))
        return await self.finished(operation)

    async def finished(self, operation: operations_pb2.Operation) -> groups_pb2.AttributeGroup:
        """The response of a publication."""
        request = operations_pb2.WaitOperationRequest(name=operation.name, timeout=Duration(seconds=30))
        done = await self.operations.WaitOperation(request)
        assert done.done, done
        assert not done.HasField("error"), done.error
        group = groups_pb2.AttributeGroup()
        assert done.response.Unpack(group)
        return group


@asynccontextmanager
async def serving(settings: FeaturesSettings, log: MemoryLog, clock: ManualClock) -> AsyncIterator[Client]:
    """A running server and a client of it."""
    async with (
        open_app(settings, log, clock) as app,
        Server.open(settings, app.services, registry=app.registry) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        await app.projects.wait_ready()
        yield Client(channel)


@pytest.fixture
def served_settings(tmp_path: Path) -> FeaturesSettings:
    """Settings of a server without keys on a free port."""
    return FeaturesSettings(data_dir=tmp_path, port=0, insecure=True, tick_seconds=0.02, grace_seconds=0.1)


@pytest.fixture
async def client(served_settings: FeaturesSettings, log: MemoryLog, clock: ManualClock) -> AsyncIterator[Client]:
    """A client of a server of its own."""
    async with serving(served_settings, log, clock) as opened:
        yield opened


def shopping(period_days: int = 7) -> groups_pb2.AttributeGroup:
    """A group of two attributes."""
    events = [groups_pb2.EventSelector(vendor="shop", name="buy")]
    price = groups_pb2.Property(atomic=groups_pb2.AtomicProperty(name="price"))
    period = Duration(seconds=period_days * 86_400)
    counter = groups_pb2.Attribute(
        name="buys",
        type=groups_pb2.VALUE_TYPE_INT32,
        events=events,
        aggregation=groups_pb2.AGGREGATION_FUNCTION_COUNTER,
        period=period,
    )
    spent = groups_pb2.Attribute(
        name="spent",
        type=groups_pb2.VALUE_TYPE_DOUBLE,
        events=events,
        aggregation=groups_pb2.AGGREGATION_FUNCTION_SUM,
        property=price,
        period=period,
    )
    return groups_pb2.AttributeGroup(attribute_key="user_id", attributes=[counter, spent])


async def create(client: Client, version: int = 0, **fields: object) -> groups_pb2.AttributeGroup:
    """Creates a draft of the group."""
    request = definitions.CreateAttributeGroupRequest(
        group_id="shopping",
        version=version,
        attribute_group=shopping(),
        **fields,  # type: ignore[arg-type]
    )
    return await client.definitions.CreateAttributeGroup(request)


async def refused(call: object) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """The code, the reason and the violations (by field) of a call that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    trailers = dict(caught.value.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])  # type: ignore[arg-type]
    reason, violations = "", {}
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            assert info.domain == "features.inkling"
            reason = info.reason
        elif detail.Unpack(bad):
            violations = {each.field: each.description for each in bad.field_violations}
    return caught.value.code(), reason, violations


async def test_a_group_is_created_published_and_read(client: Client, log: MemoryLog) -> None:
    draft = await create(client)
    assert (draft.name, draft.state) == (GROUP, groups_pb2.GROUP_STATE_DRAFT)
    group = await client.publish(GROUP)
    assert group.state == groups_pb2.GROUP_STATE_SERVING
    position = await log.append(purchase(1, "u", NOW_US - 5, 2.5), purchase(2, "u", NOW_US - 4, 2.5))
    selection = profiles.Selection(attribute_groups=["attributeGroups/shopping"])
    request = profiles.GetProfileRequest(key_value="u", selection=selection, min_position=position)
    profile = await client.profiles.GetProfile(request)
    assert (profile.attribute_key, profile.key_value, profile.position) == ("user_id", "u", position)
    assert read_values(profile) == {
        "buys": (2, Status.PRESENT, NOW_US - 4),
        "spent": (5.0, Status.PRESENT, NOW_US - 4),
    }


async def test_the_documents_group_and_service_are_imported_published_and_exported_unchanged(client: Client) -> None:
    text = (CONFORMANCE / "signals_prospect_group.json").read_text()
    imported = await client.definitions.ImportDefinition(
        definitions.ImportDefinitionRequest(signals_json=text, publish=True)
    )
    await client.finished(imported.publication)
    exported = await client.definitions.ExportDefinition(definitions.ExportDefinitionRequest(name=imported.name))
    assert exported.signals_json == text
    text = (CONFORMANCE / "signals_service.json").read_text()
    imported = await client.definitions.ImportDefinition(definitions.ImportDefinitionRequest(signals_json=text))
    assert imported.name == "featureServices/prospect_scoring_tutorial_service"
    exported = await client.definitions.ExportDefinition(definitions.ExportDefinitionRequest(name=imported.name))
    assert exported.signals_json == text
    profile = await client.profiles.GetProfile(
        profiles.GetProfileRequest(key_value="x", selection=profiles.Selection(feature_service=imported.name))
    )
    assert len(profile.values) == 19
    again = await client.definitions.ImportDefinition(definitions.ImportDefinitionRequest(signals_json=text))
    assert again.name == imported.name


async def test_every_mistake_of_a_document_is_named_at_once_with_a_hint(client: Client) -> None:
    text = """{"name": "g", "attribute_key": "user_id", "attribute": [], "attributes": [
      {"name": "a", "type": "int32", "aggregation": "sum", "events": [{"name": "buy"}]},
      {"name": "a", "type": "int32", "aggregation": "countr", "events": [{}], "period": "P1D", "ttl": "P1D"}]}"""
    code, reason, violations = await refused(
        client.definitions.ImportDefinition(definitions.ImportDefinitionRequest(signals_json=text))
    )
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_DEFINITION")
    assert "did you mean `attributes` or" in violations["attribute"]
    assert "needs a property" in violations["attributes[0].property"]
    assert "used twice" in violations["attributes[1].name"]
    assert "did you mean `counter`" in violations["attributes[1].aggregation"]
    assert "selects nothing" in violations["attributes[1].events[0]"]
    assert "cannot be together with `period`" in violations["attributes[1].ttl"]


async def test_json_that_is_none_is_refused_with_its_line_and_column(client: Client) -> None:
    request = definitions.ImportDefinitionRequest(signals_json='{"name": "g",\n  oops}')
    code, reason, violations = await refused(client.definitions.ImportDefinition(request))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_JSON")
    assert "line 2, column 3" in violations["signals_json"]


async def test_a_repeated_request_id_makes_nothing_twice(client: Client) -> None:
    first = await create(client, request_id="r1")
    again = await create(client, request_id="r1")
    assert first == again
    other = await create(client, request_id="r2")
    assert other.name == "attributeGroups/shopping/versions/2"
    code, reason, _ = await refused(create(client, version=7, request_id="r1"))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")


async def test_drafts_change_by_mask_and_etag_and_published_versions_do_not(client: Client) -> None:
    draft = await create(client)
    change = groups_pb2.AttributeGroup(name=draft.name, description="new", etag=draft.etag)
    request = definitions.UpdateAttributeGroupRequest(
        attribute_group=change, update_mask=FieldMask(paths=["description"])
    )
    changed = await client.definitions.UpdateAttributeGroup(request)
    assert changed.description == "new"
    assert len(changed.attributes) == 2
    assert changed.etag != draft.etag
    assert (await refused(client.definitions.UpdateAttributeGroup(request)))[:2] == (
        grpc.StatusCode.ABORTED,
        "ETAG_MISMATCH",
    )
    request.update_mask.paths[:] = ["state"]
    assert (await refused(client.definitions.UpdateAttributeGroup(request)))[:2] == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "BAD_MASK",
    )
    await client.publish(GROUP)
    change.ClearField("etag")
    request = definitions.UpdateAttributeGroupRequest(attribute_group=change)
    assert (await refused(client.definitions.UpdateAttributeGroup(request)))[:2] == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "PUBLISHED_IMMUTABLE",
    )


async def test_validate_only_changes_nothing(client: Client) -> None:
    assert (await create(client, validate_only=True)).name == GROUP
    listed = await client.definitions.ListAttributeGroups(definitions.ListAttributeGroupsRequest())
    assert not listed.attribute_groups


async def test_lists_come_in_pages(client: Client) -> None:
    for _ in range(5):
        await create(client)
    names, token = [], ""
    while True:
        page = await client.definitions.ListAttributeGroups(
            definitions.ListAttributeGroupsRequest(page_size=2, page_token=token)
        )
        names += [group.name for group in page.attribute_groups]
        token = page.next_page_token
        if not token:
            break
    assert names == [f"attributeGroups/shopping/versions/{i}" for i in range(1, 6)]


async def test_a_group_that_a_service_reads_is_not_deleted(client: Client) -> None:
    await create(client)
    await client.publish(GROUP)
    service = services_pb2.FeatureService(attribute_groups=["attributeGroups/shopping"])
    request = definitions.CreateFeatureServiceRequest(feature_service_id="s", feature_service=service)
    await client.definitions.CreateFeatureService(request)
    delete = client.definitions.DeleteAttributeGroup(definitions.DeleteAttributeGroupRequest(name=GROUP))
    assert (await refused(delete))[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "IN_USE")
    await client.definitions.DeleteFeatureService(definitions.DeleteFeatureServiceRequest(name="featureServices/s"))
    await client.definitions.DeleteAttributeGroup(definitions.DeleteAttributeGroupRequest(name=GROUP))
    read = client.profiles.GetProfile(
        profiles.GetProfileRequest(key_value="u", selection=profiles.Selection(attribute_groups=[GROUP]))
    )
    assert (await refused(read))[:2] == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_a_service_of_a_draft_is_refused(client: Client) -> None:
    await create(client)
    service = services_pb2.FeatureService(attribute_groups=[GROUP])
    request = definitions.CreateFeatureServiceRequest(feature_service_id="s", feature_service=service)
    _, reason, violations = await refused(client.definitions.CreateFeatureService(request))
    assert reason == "BAD_DEFINITION"
    assert "publish" in violations["attribute_groups[0]"]


@pytest.mark.parametrize(
    ("selection", "code"),
    [
        (profiles.Selection(), grpc.StatusCode.INVALID_ARGUMENT),
        (profiles.Selection(feature_service="featureServices/none"), grpc.StatusCode.NOT_FOUND),
        (profiles.Selection(feature_service="none"), grpc.StatusCode.INVALID_ARGUMENT),
        (profiles.Selection(attribute_groups=["attributeGroups/none"]), grpc.StatusCode.NOT_FOUND),
        (profiles.Selection(attributes=["shopping:none"]), grpc.StatusCode.NOT_FOUND),
        (profiles.Selection(attributes=["shopping/1:buys", "shopping/1:buys"]), grpc.StatusCode.INVALID_ARGUMENT),
        (profiles.Selection(attributes=["shopping"]), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_a_selection_that_means_nothing_is_refused(
    client: Client, selection: profiles.Selection, code: grpc.StatusCode
) -> None:
    await create(client)
    await client.publish(GROUP)
    call = client.profiles.GetProfile(profiles.GetProfileRequest(key_value="u", selection=selection))
    assert (await refused(call))[0] == code


async def test_single_attributes_are_read_and_those_of_another_key_say_so(client: Client) -> None:
    await create(client)
    await client.publish(GROUP)
    selection = profiles.Selection(attributes=["shopping/1:spent", "shopping:buys"])
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
        key_values=keys, selection=profiles.Selection(attribute_groups=[GROUP]), min_position=position
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
        selection=profiles.Selection(attribute_groups=[GROUP]),
        min_position=10,
        wait_timeout=Duration(nanos=50_000_000),
    )
    assert (await refused(client.profiles.GetProfile(request)))[:2] == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "POSITION_NOT_REACHED",
    )


async def test_a_plan_names_problems_changes_and_old_and_new_values(client: Client, log: MemoryLog) -> None:
    log.rows.extend(purchase(i, f"u{i % 3}", NOW_US - (i % 10) * DAY_US - 1, 1.0) for i in range(300))
    await create(client)
    await client.publish(GROUP)
    content = shopping(period_days=30)
    content.name = "attributeGroups/shopping"
    content.attributes[1].CopyFrom(shopping().attributes[1])
    content.attributes.add().CopyFrom(content.attributes[0])
    content.attributes[2].name = "more"
    request = definitions.PlanAttributeGroupRequest(attribute_group=content, key_values=["u1"], sample_size=1)
    plan = await client.definitions.PlanAttributeGroup(request)
    assert not plan.problems
    kinds = definitions.AttributeChange
    assert {change.attribute: change.kind for change in plan.changes} == {
        "buys": kinds.KIND_CHANGED,
        "spent": kinds.KIND_UNCHANGED,
        "more": kinds.KIND_ADDED,
    }
    sample = plan.samples[0]
    assert (sample.key_value, len(plan.samples)) == ("u1", 2)
    old = {value.name: value.value.int_value for value in sample.old_values if value.name == "buys"}
    new = {value.name: value.value.int_value for value in sample.new_values if value.name == "buys"}
    assert (old, new) == ({"buys": 70}, {"buys": 100})
    request.attribute_group.attributes[0].ClearField("type")
    plan = await client.definitions.PlanAttributeGroup(request)
    assert [problem.field for problem in plan.problems] == ["attributes[0].type"]
    assert not plan.samples


async def test_a_cancelled_publication_leaves_a_draft(client: Client, log: MemoryLog) -> None:
    await create(client)
    await client.publish(GROUP)
    log.part_rows = 1
    log.rows.extend(purchase(i, "u", NOW_US - 1, 1.0) for i in range(3_000))
    await create(client)
    name = "attributeGroups/shopping/versions/2"
    second = await client.definitions.GetAttributeGroup(definitions.GetAttributeGroupRequest(name=name))
    second.attributes[0].period.seconds += 1
    await client.definitions.UpdateAttributeGroup(definitions.UpdateAttributeGroupRequest(attribute_group=second))
    operation = await client.definitions.PublishAttributeGroup(definitions.PublishAttributeGroupRequest(name=name))
    await client.operations.CancelOperation(operations_pb2.CancelOperationRequest(name=operation.name))
    done = await client.operations.WaitOperation(operations_pb2.WaitOperationRequest(name=operation.name))
    group = await client.definitions.GetAttributeGroup(definitions.GetAttributeGroupRequest(name=name))
    if done.HasField("error"):
        assert group.state == groups_pb2.GROUP_STATE_DRAFT
    else:
        assert group.state == groups_pb2.GROUP_STATE_SERVING


async def test_what_was_published_is_there_after_a_restart(
    served_settings: FeaturesSettings, log: MemoryLog, clock: ManualClock
) -> None:
    selection = profiles.Selection(attribute_groups=[GROUP])
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
        selection=profiles.Selection(attribute_groups=[GROUP]), min_interval=Duration(nanos=1_000_000)
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
        selection=profiles.Selection(attributes=["shopping:spent"]), key_values=["u"], send_initial=True
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
