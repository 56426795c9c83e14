"""DefinitionService, served for real, over a log in memory."""

from pathlib import Path

import grpc.aio
from google.longrunning import operations_pb2
from google.protobuf.field_mask_pb2 import FieldMask

from inkling.features.v1 import attribute_group_pb2 as groups_pb2
from inkling.features.v1 import definition_service_pb2 as definitions
from inkling.features.v1 import feature_service_pb2 as services_pb2
from inkling.features.v1 import profile_pb2
from inkling.features.v1 import profile_service_pb2 as profiles
from tests.features.memory_log import NOW_US, MemoryLog, purchase
from tests.features.serving import DAY_US, GROUP, Client, create, refused, shopping

CONFORMANCE = Path(__file__).parents[1] / "conformance"


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
        profiles.GetProfileRequest(key_value="x", selection=profile_pb2.Selection(feature_service=imported.name))
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
        profiles.GetProfileRequest(key_value="u", selection=profile_pb2.Selection(attribute_groups=[GROUP]))
    )
    assert (await refused(read))[:2] == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_a_service_of_a_draft_is_refused(client: Client) -> None:
    await create(client)
    service = services_pb2.FeatureService(attribute_groups=[GROUP])
    request = definitions.CreateFeatureServiceRequest(feature_service_id="s", feature_service=service)
    _, reason, violations = await refused(client.definitions.CreateFeatureService(request))
    assert reason == "BAD_DEFINITION"
    assert "publish" in violations["attribute_groups[0]"]


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
