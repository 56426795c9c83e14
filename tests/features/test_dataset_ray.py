"""Ray as training sets use it: the same bytes as in one process, and what fails is told."""

import asyncio
import pickle
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.features.compile import compile_attribute
from services.features.datasets.build import RayWorkers, ThreadWorkers, Workers, build
from services.features.datasets.job import ArchiveSource, FeatureColumn, Job
from services.features.datasets.spec import DatasetSpec, EventGoal, Goal, Percentiles, Sampling
from services.features.definitions import EventSelector
from services.runtime.errors import FailedPrecondition, NotFound
from services.runtime.ray_session import RayOptions, RaySession
from tests.features.archives import archive
from tests.features.test_dataset_rows import BUYS, NOW, crowd

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ray() -> AsyncIterator[RaySession]:
    async with RaySession.open(RayOptions(cpus=2, object_store_bytes=128 << 20)) as session:
        yield session


def refuse(name: str) -> None:
    raise NotFound(f"there is no {name}", reason="NOT_FOUND")


def doubled(number: int) -> int:
    return 2 * number


def wait_for(seconds: float, path: str) -> None:
    time.sleep(seconds)
    Path(path).touch()


async def built(job: Job, workers: Workers) -> dict[str, bytes]:
    files: dict[str, bytes] = {}

    async def put(name: str, content: bytes) -> None:
        files[name] = content

    async def report(stage: object) -> None:
        await asyncio.sleep(0)

    await build(job, workers, put, report, described={}, records=400)
    return files


async def test_tasks_give_the_bytes_that_one_process_gives(ray: RaySession, tmp_path: Path) -> None:
    rows = crowd(200)
    listing = archive(tmp_path, [rows[:150], rows[150:]])
    goal = Goal(EventGoal((EventSelector("shop", "pay"),)))
    spec = DatasetSpec(
        Percentiles((50, 100)),
        goal=goal,
        attribute_key="user_id",
        sampling=Sampling(seed=1, fraction=0.8, max_rows=100, fraction_false=0.9),
        partitions=3,
        up_to_position=len(rows),
        as_of_us=NOW,
    )
    source = ArchiveSource(tmp_path, listing, "user_id", len(rows), NOW + 1)
    job = Job("shop", spec, NOW, source, (FeatureColumn("g/1:buys", "buys", BUYS, compile_attribute(BUYS)),))
    in_tasks = await built(job, RayWorkers(ray, 2))
    assert in_tasks == await built(job, ThreadWorkers())
    assert sorted(in_tasks) == ["manifest.json", "part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]


async def test_an_error_of_a_task_is_the_error_of_the_call(ray: RaySession) -> None:
    with pytest.raises(NotFound, match="there is no thing") as caught:
        await ray.run(refuse, "thing")
    assert caught.value.reason == "NOT_FOUND"


async def test_a_task_that_nobody_waits_for_any_more_ends(ray: RaySession, tmp_path: Path) -> None:
    task = asyncio.create_task(ray.run(wait_for, 1.5, str(tmp_path / "done")))
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(1.5)
    assert not (tmp_path / "done").exists()
    assert await ray.run(doubled, 21) == 42


async def test_nothing_is_started_before_it_is_needed() -> None:
    async with RaySession.open(RayOptions(address="127.0.0.1:1")) as session:
        assert session is not None


async def test_a_refusal_can_be_sent_between_processes() -> None:
    error = pickle.loads(pickle.dumps(FailedPrecondition("no", reason="NO_CONVERSIONS", metadata={"a": "b"})))
    assert (error.message, error.reason, error.metadata) == ("no", "NO_CONVERSIONS", {"a": "b"})
