"""The training set of the document's scenario: one row for each web event, what was known before it, and whether the
visitor submits a form within the hour after it. It equals a direct computation in SQL and what serving answers.

The events of the file that convert are its 430 `submit_form` events; there are no others in it than page views.
"""

import csv
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytest_asyncio

from inkling.cli.suite import Suite
from inkling.client import AsyncClient
from services.features.compile import compile_group
from services.features.definitions import AttributeGroup
from services.features.offline import as_json, entities_of
from services.features.signals import read_document
from services.features.snowplow import SnowplowReader
from services.features.values import answer
from services.kernel.engine import Engine
from services.kernel.fold import Fold
from tests.running import client_of, running_suite

from .shared import EVENTS, GROUP, needs_shared
from .test_running_services import SERVICE_NAME, cut, load, publish
from .training_sql import training_rows

pytestmark = [needs_shared, pytest.mark.asyncio(loop_scope="module")]

SPEC: dict[str, Any] = {
    "features": {"feature_service": f"featureServices/{SERVICE_NAME}"},
    "goal": {
        "event": {"events": [{"vendor": "com.snowplowanalytics.snowplow", "name": "submit_form"}]},
        "label_window": "3600s",
    },
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Loaded:
    """A project with the events of a file, and what it answered on the way."""

    client: AsyncClient
    events: Path
    served: dict[tuple[str, int], dict[str, Any]]
    """By key and instant, in microseconds: what GetProfile said then."""


def lines_of(events: Path) -> list[dict[str, str]]:
    with gzip.open(events, "rt", newline="") if events.suffix == ".gz" else events.open(newline="") as file:
        return list(csv.DictReader(file))


def us(text: str) -> int:
    """Microseconds of an instant in the file."""
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def suite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    async with running_suite(tmp_path_factory.mktemp("training")) as running:
        yield running


async def loaded(client: AsyncClient, events: Path, folder: Path) -> Loaded:
    """Loads a file part by part, on the clock of the log, and asks for all profiles after each part."""
    await client.project.set(clock="log")
    await publish(client)
    keys = sorted({line["DOMAIN_USERID"] for line in lines_of(events)})
    served = {}
    for part in cut(events, folder):
        position = await load(client, part)
        found = await client.profiles.batch_get(keys, service=SERVICE_NAME, min_position=position)
        instant_us = us(part.t.isoformat())
        served |= {(profile.key_value, instant_us): dict(profile.values) for profile in found}
    return Loaded(client, events, served)


async def computed(client: AsyncClient, rows: pa.Table, folder: Path) -> tuple[pa.Table, dict[str, Any]]:
    """The training set of some rows, as a table, and its manifest."""
    pq.write_table(rows, folder / "rows.parquet")
    uploaded = await client.datasets.upload_rows(folder / "rows.parquet", key_column="domain_userid")
    dataset = await client.datasets.create(SPEC | {"moments": {"rows": {"input": uploaded.input}}})
    paths = await client.datasets.download(dataset.name, folder / "out")
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    return pa.concat_tables(pq.read_table(path) for path in paths if path.suffix == ".parquet"), manifest


def by_engine(events: Path, group: AttributeGroup, rows: list[tuple[str, str, int]]) -> dict[str, dict[str, Any]]:
    """What the incremental engine, which serves, says at each row's instant: of (id, key, instant), by id."""
    reader = SnowplowReader(events, "domain_userid", entities_of(group))
    aggregations = compile_group(group)
    engine, fold = Engine("domain_userid", aggregations), Fold("manual")
    fold.attach(engine)
    places = [engine.index_of(aggregation) for aggregation in aggregations]
    for batch in reader.batches():
        fold.apply(fold.position + 1, fold.position + batch.num_rows, batch)
    found = {}
    for event_id, key, instant_us in sorted(rows, key=lambda row: row[2]):
        fold.advance_exactly(instant_us)
        readings = engine.read(key)
        found[event_id] = {
            attribute.name: as_json(answer(attribute, readings[place]).value)
            for attribute, place in zip(group.attributes, places, strict=True)
            if place is not None
        }
    return found


@pytest.mark.parametrize("which", ["the real file", "the enriched file"])
async def test_the_training_set_equals_direct_sql_and_serving_at_every_row(
    suite: Suite, which: str, enriched_events: Path, tmp_path: Path
) -> None:
    events = EVENTS if which == "the real file" else enriched_events
    lines = lines_of(events)
    document = read_document(GROUP.read_text()).definition
    assert isinstance(document, AttributeGroup)
    async with client_of(suite, which.replace(" ", "-")) as client:
        project = await loaded(client, events, tmp_path)
        asked = [(line["EVENT_ID"], line["DOMAIN_USERID"], us(line["DERIVED_TSTAMP"])) for line in lines]
        at_stops = [(f"{key} {at}", key, at) for key, at in project.served]
        ids, keys, instants = zip(*asked, *at_stops, strict=True)
        rows = pa.table({"row_id": ids, "domain_userid": keys, "as_of": pa.array(instants, pa.timestamp("us", "UTC"))})
        table, manifest = await computed(client, rows, tmp_path)
    names = [attribute.name for attribute in document.attributes]
    assert table.column_names == ["domain_userid", "moment", "row_id", *names, "goal"]
    found = {row["row_id"]: {name: row[name] for name in (*names, "goal")} for row in table.to_pylist()}
    assert len(found) == table.num_rows == len(lines) + len(project.served) == manifest["row_count"]

    expected = training_rows(GROUP, events)
    assert {row: found[row] for row in expected} == expected
    labels = [row["goal"] for row in expected.values()]
    assert labels.count(True) > 100
    assert labels.count(None) > 0

    # Every row, by the engine that serves; and the rows at the ends of the parts, by GetProfile itself.
    features = {row: {name: values[name] for name in names} for row, values in found.items()}
    served = by_engine(events, document, asked)
    assert {row: features[row] for row in served} == served
    for (key, at), values in project.served.items():
        assert features[f"{key} {at}"] == values


async def test_a_training_set_of_a_manifest_has_the_same_bytes(suite: Suite, tmp_path: Path) -> None:
    spec = SPEC | {
        "moments": {"since_creation": {"spans": ["0s", "60s", "86400s"]}},
        "sampling": {"seed": 3, "fraction": 0.5, "max_rows": 400},
        "partition_count": 3,
    }
    async with client_of(suite, "again") as client:
        await client.project.set(clock="log")
        await publish(client)
        parts = cut(EVENTS, tmp_path)
        for part in parts[:-1]:
            await load(client, part)
        first = await client.datasets.create(spec)
        await client.datasets.download(first.name, tmp_path / "first")
        # What comes later changes nothing.
        await load(client, parts[-1])
        manifest = (tmp_path / "first" / "manifest.json").read_text()
        second = await client.datasets.create(manifest)
        await client.datasets.download(second.name, tmp_path / "second")
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert names == ["manifest.json", "part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert first.row_count == second.row_count == 400
    assert json.loads(manifest)["left_out"].keys() >= {"not_sampled_keys", "converted_before", "over_the_bound"}
