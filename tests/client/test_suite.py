"""The supervisor of local services, over real processes."""

import asyncio
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from inkling.cli.suite import Pauses, ServiceSpec, Suite, SuiteError

TOYS = (
    ServiceSpec("first", 0, "tests.client.toy_first"),
    ServiceSpec("second", 0, "tests.client.toy_second", needs=("first",)),
)


class Lines:
    """What the services said, in order."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []

    def __call__(self, name: str, line: str) -> None:
        self.all.append((name, line))

    def of(self, name: str) -> list[str]:
        return [line for service, line in self.all if service == name]


@pytest.fixture
def lines() -> Lines:
    return Lines()


def suite(folder: Path, lines: Lines, environ: Mapping[str, str] | None = None) -> Suite:
    return Suite(folder, environ={**os.environ, **(environ or {})}, services=TOYS, on_line=lines)


async def test_services_start_after_those_they_need_and_end_before_them(tmp_path: Path, lines: Lines) -> None:
    async with suite(tmp_path, lines) as running:
        await running.start()
        first, second = running.address("first"), running.address("second")
        assert first != second
    told = lines.of("second")[0]
    assert f"FIRST_TARGET={first}" in told
    assert f"DATA_DIR={tmp_path}" in told
    assert [name for name, line in lines.all if line == "bye"] == ["second", "first"]
    keys = {line.partition("SERVICE_KEY=")[2].split()[0] for _, line in lines.all if "SERVICE_KEY" in line}
    assert len(keys) == 1
    assert len(keys.pop()) >= 32


async def test_a_killed_service_starts_again_at_its_address(tmp_path: Path, lines: Lines) -> None:
    async with suite(tmp_path, lines) as running:
        await running.start()
        before, pid = running.address("second"), running.pid("second")
        await running.kill("second")
        await running.start_one("second")
        assert running.address("second") == before
        assert running.pid("second") != pid


async def test_a_service_that_ends_by_itself_is_started_again_after_longer_and_longer_pauses(
    tmp_path: Path, lines: Lines
) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    async with suite(tmp_path, lines) as running:
        await running.start()
        address, first = running.address("second"), running.pid("first")
        keeping = asyncio.create_task(running.keep(told.put_nowait, Pauses(0.01, 0.03)))
        for pause in ("0.01", "0.02", "0.03", "0.03"):
            pid = running.pid("second")
            os.kill(pid, signal.SIGKILL)
            assert (await told.get()).startswith(f"second ended with code -9: it is started again in {pause} s\n  told")
            assert await told.get() == "second is ready again"
            assert (running.address("second"), running.pid("first")) == (address, first)
            assert running.pid("second") != pid
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping
    assert told.empty()
    assert [name for name, line in lines.all if line == "bye"] == ["second", "first"]


async def test_a_service_that_cannot_start_is_told_with_its_last_words(tmp_path: Path, lines: Lines) -> None:
    async with suite(tmp_path, lines, {"INKLING_SECOND_FAIL": "1"}) as running:
        with pytest.raises(SuiteError, match=r"second ended with code 3\n  the database is on fire"):
            await running.start()
    assert "bye" in lines.of("first")


async def test_what_the_environment_says_goes_before_defaults_but_not_before_addresses(
    tmp_path: Path, lines: Lines
) -> None:
    environ = {"INKLING_FIRST_LOG_FORMAT": "json", "INKLING_FIRST_PORT": "1"}
    async with suite(tmp_path, lines, environ) as running:
        await running.start()
    told = lines.of("first")[0]
    assert "LOG_FORMAT=json" in told
    assert "PORT=1 " not in told


async def test_two_suites_do_not_share_a_folder(tmp_path: Path, lines: Lines) -> None:
    async with suite(tmp_path, lines) as running:
        await running.start()
        with pytest.raises(SuiteError, match="another `inkling up` runs on it"):
            await suite(tmp_path, lines).start()


async def test_a_port_in_use_is_told_before_anything_starts(tmp_path: Path, lines: Lines) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with Suite(tmp_path, environ=os.environ, services=TOYS, ports={"second": port}, on_line=lines) as running:
            with pytest.raises(SuiteError, match=f"port {port} of second is in use"):
                await running.start()
    assert lines.all == []
