"""Segments through the client and the commands, against a real server over a log in memory."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from inkling import AsyncClient
from inkling.cli import make_app
from inkling.client.segments import Change, SegmentState
from inkling.errors import InvalidArgument, NotFound
from services.features.app import open_app
from services.features.settings import FeaturesSettings
from services.runtime.clocks import ManualClock
from services.runtime.server import Server
from tests.features.memory_log import NOW_US, MemoryLog, purchase
from tests.features.test_project import DAY_US, group, publish


@dataclass
class Running:
    """A server, and ways to it."""

    address: str
    client: AsyncClient
    folder: Path
    log: MemoryLog
    clock: ManualClock

    async def command(self, *arguments: str) -> Result:
        """Runs a command."""
        options = ["--features", self.address, "--data-dir", str(self.folder)]
        return await asyncio.to_thread(CliRunner().invoke, make_app(), [*options, "segments", *arguments])


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    log, clock = MemoryLog(), ManualClock(NOW_US)
    settings = FeaturesSettings(data_dir=tmp_path, port=0, insecure=True, tick_seconds=0.02, grace_seconds=0.1)
    await log.append(*(purchase(i, f"u{i % 5}", NOW_US - DAY_US, 10.0) for i in range(8)))
    async with (
        open_app(settings, log, clock) as app,
        Server.open(settings, app.services, registry=app.registry) as server,
    ):
        await publish(await app.projects.get("default"), group())
        address = f"127.0.0.1:{server.port}"
        async with AsyncClient(features=address) as client:
            yield Running(address, client, tmp_path, log, clock)


async def test_a_segment_is_made_read_changed_and_deleted(running: Running) -> None:
    segments = running.client.segments
    made = await segments.create("double", "buys >= 2", attribute_key="user_id", description="twice")
    assert (made.size, made.state) == (3, SegmentState.SERVING)
    assert [each async for each in segments.list()] == [made] == [await segments.get("segments/double")]
    assert [each.key_value async for each in segments.members("double", page_size=2)] == ["u0", "u1", "u2"]
    assert await segments.check("double", ["u0", "u4"]) == {"u0": True, "u4": False}
    changed = await segments.update("double", condition="buys = 1", etag=made.etag)
    assert (changed.size, changed.description) == (2, "twice")
    with pytest.raises(InvalidArgument) as refused:
        await segments.update("double", condition="bys = 1")
    assert "did you mean `buys`" in refused.value.violations[0].description
    preview = await segments.preview("spent > 15", attribute_key="user_id", sample_size=2)
    assert (preview.size, preview.profiles, preview.sample) == (3, 5, ("u2", "u1"))
    mistaken = await segments.preview("spent >", attribute_key="user_id")
    assert "ends too early" in str(mistaken.mistakes[0])
    await segments.delete("double")
    with pytest.raises(NotFound):
        await segments.get("double")


async def test_who_enters_and_leaves_is_followed_and_resumed(running: Running) -> None:
    segments = running.client.segments
    await segments.create("buyers", "buys >= 1", attribute_key="user_id")
    seen, token = [], ""
    async with asyncio.timeout(20):
        async for changes in segments.watch("buyers", send_initial=True):
            seen += [(each.key_value, each.change) for each in changes.changes]
            if len(seen) == 5:
                await running.log.append(purchase(100, "new", NOW_US - 1, 1.0))
            elif len(seen) == 6:
                token = changes.resume_token
                break
        assert seen == [*((f"u{i}", Change.PRESENT) for i in range(5)), ("new", Change.ENTERED)]
        running.clock.advance(7 * DAY_US - 2)
        async for changes in segments.watch("buyers", resume_token=token):
            assert sorted(each.key_value for each in changes.changes) == [f"u{i}" for i in range(5)]
            assert {each.change for each in changes.changes} == {Change.LEFT}
            break


async def test_the_commands_do_the_same(running: Running) -> None:
    result = await running.command("preview", "buys >= 2", "--key", "user_id", "--sample", "1")
    assert (result.exit_code, result.output.splitlines()) == (0, ["3 of 5 profiles", "u2"])
    result = await running.command("preview", "bys >= 2", "--key", "user_id")
    assert (result.exit_code, "did you mean `buys`" in result.output) == (2, True)
    result = await running.command("create", "double", "buys >= 2", "--key", "user_id")
    assert (result.exit_code, result.output) == (0, "segments/double: 3 members, serving\n")
    result = await running.command("list")
    assert "buys >= 2" in result.output
    result = await running.command("members", "double", "--limit", "2")
    assert [json.loads(line)["key_value"] for line in result.output.splitlines()] == ["u0", "u1"]
    result = await running.command("check", "double", "u0", "u4")
    assert [json.loads(line)["member"] for line in result.output.splitlines()] == [True, False]
    result = await running.command("update", "double", "--condition", "buys = 1")
    assert result.output == "segments/double: 2 members, serving\n"
    assert (await running.command("delete", "double")).exit_code == 0
    assert isinstance((await running.command("members", "double")).exception, NotFound)
