"""An exported table holds what serving answers at its instant, for every key, in both forms."""

import asyncio
import csv
import hashlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.longrunning import operations_pb2
from google.protobuf.duration_pb2 import Duration

from inkling.features.v1 import attribute_group_pb2 as groups_pb2
from inkling.features.v1 import definition_service_pb2 as definitions
from inkling.features.v1 import export_pb2 as exports
from inkling.features.v1 import profile_history_pb2 as history
from inkling.features.v1 import profile_pb2
from services.features.settings import FeaturesSettings
from services.runtime.clocks import ManualClock
from tests.features.memory_log import NOW_US, MemoryLog, purchase
from tests.features.serving import DAY_US, GROUP, Client, refused, serving
from tests.features.test_history import ATTRIBUTES, EVENTS, PRICE, attribute

SELECTION = profile_pb2.Selection(attribute_groups=[GROUP])
MORE = [
    attribute(
        "prices",
        groups_pb2.VALUE_TYPE_DOUBLE_LIST,
        groups_pb2.AGGREGATION_FUNCTION_UNIQUE_LIST,
        property=PRICE,
    ),
    attribute(
        "counts",
        groups_pb2.VALUE_TYPE_CATEGORY_COUNTS,
        groups_pb2.AGGREGATION_FUNCTION_CATEGORY_COUNT,
        property=PRICE,
        property_type=groups_pb2.VALUE_TYPE_DOUBLE,
    ),
    attribute(
        "small", groups_pb2.VALUE_TYPE_INT32, groups_pb2.AGGREGATION_FUNCTION_COUNTER, period=Duration(seconds=9)
    ),
]


@pytest.fixture
async def shop(served_settings: FeaturesSettings, log: MemoryLog, clock: ManualClock) -> AsyncIterator[Client]:
    """A client of a server with a published group."""
    await log.append(*EVENTS, purchase(40, 'ä, "quoted"', NOW_US - DAY_US, 0.5))
    async with serving(served_settings, log, clock) as client:
        request = definitions.CreateAttributeGroupRequest(
            group_id="shopping",
            attribute_group=groups_pb2.AttributeGroup(attribute_key="user_id", attributes=[*ATTRIBUTES, *MORE]),
        )
        await client.definitions.CreateAttributeGroup(request)
        await client.publish(GROUP)
        yield client


async def export(client: Client, **fields: object) -> exports.Export:
    request = exports.ExportProfilesRequest(**{"selection": SELECTION, **fields})  # type: ignore[arg-type]
    operation = await client.profiles.ExportProfiles(request)
    waiting = operations_pb2.WaitOperationRequest(name=operation.name, timeout=Duration(seconds=30))
    done = await client.operations.WaitOperation(waiting)
    assert done.done, done
    assert not done.HasField("error"), done.error
    made = exports.Export()
    assert done.response.Unpack(made)
    return made


async def content(client: Client, made: exports.Export, offset: int = 0) -> bytes:
    call = client.profiles.ReadExportFile(exports.ReadExportFileRequest(name=made.name, offset=offset))
    return b"".join([piece.data async for piece in call])


async def listed(client: Client) -> list[profile_pb2.Profile]:
    page = await client.profiles.ListProfiles(history.ListProfilesRequest(selection=SELECTION, page_size=1000))
    return list(page.profiles)


def plain(value: profile_pb2.AttributeValue) -> object:
    """A value as Python has it."""
    kind = value.value.WhichOneof("kind")
    if kind is None:
        return None
    found = getattr(value.value, kind)
    if kind == "category_counts_value":
        return [(entry.category, entry.count) for entry in found.entries]
    return list(found.values) if kind.endswith("list_value") else found


async def test_parquet_holds_what_serving_answers(shop: Client) -> None:
    made = await export(shop, statuses=True, format=exports.EXPORT_FORMAT_PARQUET)
    data = await content(shop, made)
    assert (len(data), hashlib.sha256(data).hexdigest()) == (made.size_bytes, made.sha256)
    table = pq.read_table(pa.BufferReader(data))
    assert table.column_names == list(made.columns)
    assert table.schema.field("buys").type == pa.int32()
    assert table.schema.field("prices").type == pa.list_(pa.float64())
    served = await listed(shop)
    assert [row["user_id"] for row in table.to_pylist()] == [profile.key_value for profile in served]
    for row, profile in zip(table.to_pylist(), served, strict=True):
        assert profile.position == made.position
        assert profile.as_of_time == made.as_of_time
        for value in profile.values:
            assert row[value.name] == plain(value)
            assert f"VALUE_STATUS_{row[f'{value.name}.status']}" == profile_pb2.ValueStatus.Name(value.status)


async def test_csv_holds_the_same_with_lists_as_json(shop: Client) -> None:
    made = await export(shop, format=exports.EXPORT_FORMAT_CSV)
    text = (await content(shop, made)).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    served = await listed(shop)
    assert [row["user_id"] for row in rows] == [profile.key_value for profile in served]
    for row, profile in zip(rows, served, strict=True):
        values = {value.name: plain(value) for value in profile.values}
        assert (float(row["spent"]) if row["spent"] else None) == values["spent"]
        assert (json.loads(row["prices"]) if row["prices"] else None) == values["prices"]
        assert row["small"] == ("" if values["small"] is None else str(values["small"]))


async def test_exports_are_listed_read_from_anywhere_and_deleted(
    shop: Client, clock: ManualClock, served_settings: FeaturesSettings
) -> None:
    first = await export(shop)
    clock.advance(1_000_000)
    second = await export(shop)
    page = await shop.profiles.ListExports(exports.ListExportsRequest(page_size=1))
    assert list(page.exports) == [second]
    page = await shop.profiles.ListExports(exports.ListExportsRequest(page_size=1, page_token=page.next_page_token))
    assert (list(page.exports), page.next_page_token) == ([first], "")
    assert await content(shop, first, 10) == (await content(shop, first))[10:]
    _, reason, violations = await refused(content(shop, first, first.size_bytes + 1))
    assert (reason, list(violations)) == ("OUT_OF_RANGE", ["offset"])
    await shop.profiles.DeleteExport(exports.DeleteExportRequest(name=first.name))
    for call in (content(shop, first), shop.profiles.DeleteExport(exports.DeleteExportRequest(name=first.name))):
        code, _, _ = await refused(call)
        assert code is grpc.StatusCode.NOT_FOUND
    folder = served_settings.data_dir / "blobs" / "exports"
    assert sorted(path.name for path in folder.rglob("*.*")) == ["manifest.json", "profiles.parquet"]
    assert not list((served_settings.data_dir / "scratch").iterdir())


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"selection": profile_pb2.Selection()}, "BAD_SELECTION"),
        ({"selection": profile_pb2.Selection(feature_service="featureServices/none")}, "NOT_FOUND"),
        ({"format": 7}, "OUT_OF_RANGE"),
    ],
)
async def test_wrong_requests_are_refused_at_once(shop: Client, fields: dict[str, object], reason: str) -> None:
    request = exports.ExportProfilesRequest(**{"selection": SELECTION, **fields})  # type: ignore[arg-type]
    assert (await refused(shop.profiles.ExportProfiles(request)))[1] == reason


async def test_names_that_are_no_exports_are_not_found(shop: Client) -> None:
    for name in ("exports/none", "exports/../snapshots", "operations/1", ""):
        code, _, _ = await refused(shop.profiles.DeleteExport(exports.DeleteExportRequest(name=name)))
        assert code is grpc.StatusCode.NOT_FOUND


async def test_all_values_hold_at_one_instant_while_events_come(shop: Client, log: MemoryLog, tmp_path: Path) -> None:
    """Two counters of the same events are never apart."""
    twin = attribute("twin", groups_pb2.VALUE_TYPE_INT32, groups_pb2.AGGREGATION_FUNCTION_COUNTER)
    other = groups_pb2.Attribute()
    other.CopyFrom(twin)
    other.name = "other"
    for group_id, counter in (("one", twin), ("two", other)):
        await shop.definitions.CreateAttributeGroup(
            definitions.CreateAttributeGroupRequest(
                group_id=group_id,
                attribute_group=groups_pb2.AttributeGroup(attribute_key="user_id", attributes=[counter]),
            )
        )
        await shop.publish(f"attributeGroups/{group_id}/versions/1")
    stop = asyncio.Event()

    async def pour() -> None:
        number = 1000
        while not stop.is_set():
            await log.append(*(purchase(number + i, f"w{(number + i) % 97}", NOW_US - 5, 1.0) for i in range(50)))
            number += 50
            await asyncio.sleep(0.001)

    pouring = asyncio.create_task(pour())
    try:
        for _ in range(3):
            selection = profile_pb2.Selection(attribute_groups=["attributeGroups/one", "attributeGroups/two"])
            made = await export(shop, selection=selection)
            rows = pq.read_table(pa.BufferReader(await content(shop, made))).to_pylist()
            assert all(row["twin"] == row["other"] for row in rows)
            buys = sum(each.name == "buy" for each in {row.event_id: row for row in log.rows[: made.position]}.values())
            assert sum(row["twin"] for row in rows) == buys
    finally:
        stop.set()
        await pouring
