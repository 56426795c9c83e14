"""DatasetService over a real server, a log in memory and its archive."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from google.longrunning import operations_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import CliRunner

from inkling.cli import make_app
from inkling.client import AsyncClient
from inkling.errors import FailedPrecondition, InvalidArgument, NotFound, OperationFailed
from inkling.features.v1 import dataset_pb2, segment_service_pb2
from inkling.features.v1.dataset_service_pb2 import ReadDatasetFileRequest
from inkling.types.v1.value_pb2 import Value
from services.features.app import open_app
from services.features.datasets import creating
from services.features.datasets.forgetting import DatasetForgetter
from services.features.datasets.store import DatasetStore
from services.features.settings import FeaturesSettings
from services.kernel.building import from_us
from services.runtime.blobs import FolderBlobStore
from services.runtime.clocks import ManualClock
from services.runtime.database import Database
from services.runtime.server import Server
from tests.features.archives import MemoryListings
from tests.features.memory_log import NOW_US, MemoryLog, purchase
from tests.features.memory_sink import MemorySink
from tests.features.serving import Client, create, refused
from tests.features.test_property_service import declare, put

GROUP = "attributeGroups/shopping/versions/1"
DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Served:
    """A server's client, its stubs and its log."""

    client: AsyncClient
    stubs: Client
    log: MemoryLog
    data_dir: Path
    address: str


@asynccontextmanager
async def started(
    settings: FeaturesSettings, log: MemoryLog, clock: ManualClock, listings: MemoryListings, *, fresh: bool = True
) -> AsyncIterator[Served]:
    """A server; a fresh one with purchases of three users, and a published group."""
    async with (
        open_app(settings, log, clock, listings, MemorySink(log, clock)) as app,
        Server.open(settings, app.services, registry=app.registry) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        AsyncClient(features=f"127.0.0.1:{server.port}") as client,
    ):
        stubs = Client(channel)
        if fresh:
            await create(stubs)
            await log.append(
                *(purchase(i, f"u{i % 3}", NOW_US - (9 - i) * DAY_US, float(i)) for i in range(9)),
                purchase(9, "u1", NOW_US - DAY_US, 50.0, "refund"),
            )
            await stubs.publish(GROUP)
        yield Served(client, stubs, log, settings.data_dir, f"127.0.0.1:{server.port}")


@pytest.fixture
async def served(served_settings: FeaturesSettings, log: MemoryLog, clock: ManualClock) -> AsyncIterator[Served]:
    """A fresh server."""
    listings = MemoryListings(log, served_settings.data_dir / "blobs")
    async with started(served_settings, log, clock, listings) as opened:
        yield opened


def spec(**more: Any) -> dict[str, Any]:
    return {"features": {"attribute_groups": ["attributeGroups/shopping"]}, "moments": {"latest": {}}} | more


async def downloaded(
    served: Served, folder: Path, document: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    dataset = await served.client.datasets.create(document)
    paths = await served.client.datasets.download(dataset.name, folder)
    tables = [pq.read_table(path) for path in paths if path.suffix == ".parquet"]
    return pa.concat_tables(tables).to_pylist(), json.loads((folder / "manifest.json").read_text())


async def test_the_latest_moment_is_what_profiles_say(served: Served, tmp_path: Path) -> None:
    rows, manifest = await downloaded(served, tmp_path / "out", spec())
    profiles = await served.client.profiles.batch_get(
        ["u0", "u1", "u2"], groups=["shopping"], min_position=len(served.log.rows)
    )
    assert {row["user_id"]: (row["buys"], row["spent"]) for row in rows} == {
        profile.key_value: (profile.values["buys"], profile.values["spent"]) for profile in profiles
    }
    assert manifest["features"][0] == {
        "id": "shopping/1:buys",
        "column": "buys",
        "type": "int32",
        "aggregation": "counter",
    }
    assert manifest["position"] == len(served.log.rows)
    assert manifest["spec"]["features"] == {"attribute_groups": [GROUP]}
    assert manifest["spec"]["partition_count"] == 1
    assert set(manifest["versions"]) == {"inkling", "numba", "numpy", "pyarrow"}
    assert str(served.data_dir) not in json.dumps(manifest)


async def test_supplied_rows_keep_their_columns_and_come_in_order(served: Served, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(
        "as_of,user_id,note\n2023-11-13T00:00:00Z,u1,b\n2023-11-07,u1,a\n2023-11-14T00:00:00Z,nobody,c\n"
    )
    uploaded = await served.client.datasets.upload_rows(tmp_path / "rows.csv", key_column="user_id")
    assert (uploaded.rows, uploaded.columns) == (3, ("note",))
    moments = {"rows": {"input": uploaded.input}}
    rows, manifest = await downloaded(served, tmp_path / "out", spec(moments=moments))
    assert [(row["user_id"], row["note"], row["buys"]) for row in rows] == [
        ("nobody", "c", None),
        ("u1", "a", 1),
        ("u1", "b", 3),
    ]
    assert [each["name"] for each in manifest["columns"]] == ["user_id", "moment", "note", "buys", "spent"]


async def test_properties_are_features_as_they_were_then(served: Served, clock: ManualClock, tmp_path: Path) -> None:
    await declare(served.stubs, "plan")
    await declare(served.stubs, "joined", "date")
    early = Timestamp(seconds=(NOW_US - 20 * DAY_US) // 1_000_000)
    await put(served.stubs, "u1", {"plan": "basic", "joined": Value(timestamp_value=early)})
    clock.advance(DAY_US)
    await put(served.stubs, "u1", {"plan": "pro"})
    clock.advance(DAY_US)
    features = {"properties": ["plan"], "attribute_groups": ["attributeGroups/shopping"]}
    times = [_iso(NOW_US - DAY_US), _iso(NOW_US + DAY_US), _iso(NOW_US + 2 * DAY_US)]
    document = spec(features=features, keys={"list": {"values": ["u1"]}}, moments={"instants": {"times": times}})
    rows, manifest = await downloaded(served, tmp_path / "out", document)
    assert [row["plan"] for row in rows] == [None, "basic", "pro"]
    assert manifest["features"][-1] == {
        "id": "properties.plan",
        "column": "plan",
        "type": "string",
        "aggregation": "latest",
    }
    # Created when the property says, not with the first event.
    document = spec(
        moments={"since_creation": {"spans": ["0s"]}},
        creation_property="joined",
        features={"properties": ["*"]},
        attribute_key="user_id",
    )
    rows, manifest = await downloaded(served, tmp_path / "joined", document)
    assert [(row["user_id"], row["moment"].timestamp(), row["plan"]) for row in rows] == [("u1", early.seconds, None)]
    assert manifest["left_out"] == {"without_creation": 2}
    with pytest.raises(NotFound) as caught:
        await served.client.datasets.check(spec(features={"properties": ["plann"]}, attribute_key="user_id"))
    assert caught.value.reason == "UNDECLARED_PROPERTY"


async def test_the_members_of_a_segment_are_pinned(served: Served, tmp_path: Path) -> None:
    content = segment_service_pb2.Segment(attribute_key="user_id", condition="spent > 10")
    await served.stubs.segments.CreateSegment(
        segment_service_pb2.CreateSegmentRequest(segment_id="big", segment=content)
    )
    document = spec(keys={"segment": {"segment": "segments/big"}})
    rows, manifest = await downloaded(served, tmp_path / "first", document)
    members = {row["user_id"] for row in rows}
    assert 0 < len(members) < 3
    assert all(row["spent"] > 10 for row in rows)
    await served.log.append(purchase(99, "u9", NOW_US - 1, 99.0))
    await downloaded(served, tmp_path / "second", manifest)
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()


async def test_an_erased_key_is_in_no_training_set_any_more(
    served: Served, served_settings: FeaturesSettings, clock: ManualClock, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("as_of,user_id\n2023-11-13,u1\n2023-11-12,u1\n2023-11-13,u2\n")
    uploaded = await served.client.datasets.upload_rows(tmp_path / "rows.csv", key_column="user_id")
    await served.client.datasets.create(spec(moments={"rows": {"input": uploaded.input}}))
    await served.client.datasets.create(spec(keys={"list": {"values": ["u1", "u2"]}}))
    untouched = await served.client.datasets.create(spec(keys={"list": {"values": ["u2"]}}))
    blobs = FolderBlobStore(served.data_dir / "blobs")
    async with Database.open(served_settings.database_url) as database:
        forgetter = DatasetForgetter(DatasetStore(database), blobs, clock)
        assert await forgetter.forget("default", "user_id", "u1") == 3
        assert await forgetter.forget("default", "user_id", "u1") == 0
        assert await forgetter.forget("default", "account_id", "u2") == 0
    for dataset in [each async for each in served.client.datasets.list()]:
        folder = tmp_path / dataset.name
        paths = await served.client.datasets.download(dataset.name, folder)
        assert '"u1"' not in (folder / "manifest.json").read_text()
        assert pq.read_table(paths[0]).column("user_id").to_pylist() == ["u2"]
        assert dataset.row_count == 1
        # What is left can be computed again.
        again = await served.client.datasets.create((folder / "manifest.json").read_text())
        assert again.row_count == 1
    assert await served.client.datasets.get(untouched.name) == untouched


async def test_a_dataset_that_a_restart_interrupted_is_computed_after_it(
    served_settings: FeaturesSettings, log: MemoryLog, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings = MemoryListings(log, served_settings.data_dir / "blobs")

    begun = asyncio.Event()

    async def endless(*_: object, **__: object) -> None:
        begun.set()
        await asyncio.sleep(60)

    with monkeypatch.context() as patch:
        patch.setattr(creating, "build", endless)
        async with started(served_settings, log, clock, listings) as served:
            running = await served.client.datasets.create(spec(), wait=False)
            await begun.wait()
    pinned = len(log.rows)
    await log.append(purchase(99, "u9", NOW_US - 1))
    async with started(served_settings, log, clock, listings, fresh=False) as served:
        request = operations_pb2.WaitOperationRequest(name=running.operation, timeout=Duration(seconds=20))
        assert not (await served.stubs.operations.WaitOperation(request)).HasField("error")
        found = await served.client.datasets.get(running.name)
    assert (found.state, found.row_count, found.spec.up_to_position) == (dataset_pb2.DATASET_STATE_READY, 3, pinned)


async def test_the_command_computes_downloads_shows_and_deletes(served: Served, tmp_path: Path) -> None:
    async def run(*words: str) -> Result:
        return await asyncio.to_thread(
            CliRunner().invoke, make_app(), ["--features", served.address, "datasets", *words]
        )

    (tmp_path / "spec.json").write_text(json.dumps(spec(attribute_key="user_id", sampling={"max_rows": 2})))
    done = await run("create", str(tmp_path / "spec.json"), "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["rows"], told["files"]) == (2, ["part-00000.parquet", "manifest.json"])
    assert told["left_out"] == {"over_the_bound": 1}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json", "part-00000.parquet"]
    again = await run("create", str(tmp_path / "out" / "manifest.json"), "--out", str(tmp_path / "again"))
    assert again.exit_code == 0, again.stderr
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()

    assert told["name"] in (await run("list")).stdout
    assert json.loads((await run("show", told["name"])).stdout)["row_count"] == "2"
    assert (await run("download", told["name"], "--out", str(tmp_path / "third"))).exit_code == 0
    assert (await run("delete", told["name"])).exit_code == 0
    assert told["name"] not in (await run("list")).stdout

    (tmp_path / "rows.csv").write_text("as_of,user_id\n2023-11-13,u1\n")
    with_rows = await run("create", str(tmp_path / "spec.json"), "--rows", str(tmp_path / "rows.csv"))
    assert json.loads(with_rows.stdout)["rows"] == 1
    (tmp_path / "bad.json").write_text('{"momnts": {}}')
    bad = await run("create", str(tmp_path / "bad.json"))
    assert bad.exit_code == 2
    assert 'no field named "momnts"' in " ".join(bad.stderr.split())
    (tmp_path / "spec.json").write_text(json.dumps(spec(sampling={"fraction": 7})))
    assert (await run("create", str(tmp_path / "spec.json"), "--check")).exit_code == 1


def _iso(instant_us: int) -> str:
    return from_us(instant_us).isoformat()


async def test_a_repeated_request_gets_the_first_one_s_dataset(served: Served) -> None:
    first = await served.client.datasets.create(spec(), request_id="r1")
    again = await served.client.datasets.create(spec(), request_id="r1")
    assert first.name == again.name
    with pytest.raises(InvalidArgument) as caught:
        await served.client.datasets.create(spec(sampling={"seed": 1}), request_id="r1")
    assert caught.value.reason == "REQUEST_ID_REUSED"


async def test_datasets_are_listed_the_newest_first_and_deleted_with_their_files(
    served: Served, clock: ManualClock
) -> None:
    names = []
    for seed in range(3):
        clock.advance(1_000)
        names.append((await served.client.datasets.create(spec(sampling={"seed": seed}))).name)
    assert [each.name async for each in served.client.datasets.list()] == names[::-1]
    folder = served.data_dir / "blobs" / "datasets" / "default" / names[0].removeprefix("datasets/")
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "part-00000.parquet"]
    await served.client.datasets.delete(names[0])
    assert not list(folder.iterdir())
    with pytest.raises(NotFound):
        await served.client.datasets.get(names[0])


async def test_a_dataset_that_cannot_be_computed_says_why(served: Served) -> None:
    never = spec(
        moments={"time_to_convert": {"percents": [50]}},
        goal={"event": {"events": [{"name": "fly"}]}},
    )
    with pytest.raises(OperationFailed) as caught:
        await served.client.datasets.create(never)
    assert caught.value.reason == "NO_CONVERSIONS"
    (failed,) = [each async for each in served.client.datasets.list()]
    assert failed.state == dataset_pb2.DATASET_STATE_FAILED
    assert "nobody reached the goal" in failed.failure
    reading = served.stubs.datasets.ReadDatasetFile(ReadDatasetFileRequest(name=failed.name, file="manifest.json"))
    assert (await refused(reading.read()))[:2] == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "DATASET_NOT_READY",
    )


MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    ({"moments": {}}, "moments", "give since_creation"),
    ({"moments": {"since_creation": {}}}, "moments.since_creation.spans", "must be 1 to 64"),
    ({"moments": {"time_to_convert": {"percents": [101]}}}, "moments.time_to_convert.percents[0]", "at most 100"),
    ({"moments": {"time_to_convert": {"percents": [50]}}}, "moments.time_to_convert", "goal of events"),
    ({"moments": {"rows": {"input": "x"}}}, "moments.rows.input", "UploadDatasetRows"),
    ({"goal": {}}, "goal", "give event, sum"),
    ({"goal": {"event": {"events": []}}}, "goal.event.events", "or give criteria"),
    ({"goal": {"sum": {"at_least": 1}}}, "goal.sum.property", "which number"),
    ({"goal": {"back": {"after": "0s"}}}, "goal.back.after", "longer than nothing"),
    (
        {"goal": {"event": {"events": [{"name": "buy"}]}, "converted": "CONVERTED_KEEP"}},
        "goal.label_window",
        "say how long",
    ),
    ({"sampling": {"fraction": 2}}, "sampling.fraction", "at most 1"),
    ({"sampling": {"fraction_true": 0.5}}, "sampling", "give a goal"),
    ({"keys": {}}, "keys", "leave it out for all"),
    ({"features": {"segments": True, "attribute_groups": ["attributeGroups/shopping"]}}, "features.segments", "now"),
    ({"partition_count": 65}, "partition_count", "1 to 64"),
]


async def test_every_mistake_is_told_with_what_to_do(served: Served) -> None:
    for document, field, hint in MISTAKES:
        with pytest.raises(InvalidArgument) as caught:
            await served.client.datasets.check(spec(**document))
        assert caught.value.reason == "BAD_DATASET"
        assert any(each.field == field and hint in each.description for each in caught.value.violations), document


async def test_what_is_not_there_is_refused_precisely(served: Served) -> None:
    async def reason(document: dict[str, Any]) -> str:
        with pytest.raises((FailedPrecondition, NotFound, InvalidArgument, OperationFailed)) as caught:
            await served.client.datasets.create(document)
        return str(caught.value.reason)

    assert await reason(spec(goal={"insight": {"insight": "insights/rich"}})) == "NO_INSIGHTS"
    assert await reason(spec(moments={"rows": {"input": "0" * 64}})) == "NO_INPUT"
    assert await reason(spec(definitions_sha256="0" * 64)) == "DEFINITIONS_CHANGED"
    assert await reason(spec(features={"attribute_groups": ["attributeGroups/none"]})) == "NOT_FOUND"
    assert await reason(spec(attribute_key="account_id")) == "BAD_DATASET"
    assert await reason(spec(up_to_position=10**6)) == "OUT_OF_RANGE"


async def test_a_table_that_cannot_be_read_is_refused(served: Served, tmp_path: Path) -> None:
    async def said(content: str | bytes) -> str:
        path = tmp_path / "rows"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        with pytest.raises(InvalidArgument) as caught:
            await served.client.datasets.upload_rows(path, key_column="user_id")
        assert caught.value.reason == "BAD_TABLE"
        return str(caught.value)

    assert "no column user_id" in await said("as_of,name\n2023-01-01,x\n")
    assert "row 2: as_of is no instant" in await said("as_of,user_id\n2023-01-01,x\nsoon,y\n")
    assert "cannot be read" in await said(b"PAR1 and nothing more")
    assert "cannot be read" in await said("")
    assert "two of one name" in await said("as_of,user_id,a,a\n2023-01-01,x,1,2\n")


async def test_a_running_dataset_is_cancelled_and_not_deleted(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless(*_: object, **__: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(creating, "build", endless)
    running = await served.client.datasets.create(spec(), wait=False)
    assert running.state == dataset_pb2.DATASET_STATE_RUNNING
    with pytest.raises(FailedPrecondition) as caught:
        await served.client.datasets.delete(running.name)
    assert caught.value.reason == "IN_USE"
    await served.client.datasets.cancel(running.name)
    request = operations_pb2.WaitOperationRequest(name=running.operation, timeout=Duration(seconds=10))
    assert (await served.stubs.operations.WaitOperation(request)).error.code == grpc.StatusCode.CANCELLED.value[0]
    assert (await served.client.datasets.get(running.name)).state == dataset_pb2.DATASET_STATE_CANCELLED
    await served.client.datasets.delete(running.name)
