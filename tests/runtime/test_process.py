"""A service as a process: settings, health, drain, signals, logs."""

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.runtime.echo import NAME, SECRET, send

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@asynccontextmanager
async def started(tmp_path: Path, **settings: str) -> AsyncIterator[tuple[Process, grpc.aio.Channel]]:
    """The process and an anonymous channel to it; killed at the end if it still runs."""
    environ = {f"ECHO_{key.upper()}": value for key, value in settings.items()}
    environ = {**os.environ, "ECHO_DATA_DIR": str(tmp_path), "ECHO_INSECURE": "true", **environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.runtime.echo_process", env=environ, stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    port = int(await process.stdout.readline() or 0)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield process, channel
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def logs(process: Process) -> list[dict[str, object]]:
    _, text = await process.communicate()
    return [json.loads(line) for line in text.decode().splitlines()]


async def test_health_is_not_serving_until_the_process_is_warm(tmp_path: Path) -> None:
    async with started(tmp_path, warm_seconds="0.5", drain_seconds="0") as (_, channel):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=NAME))
        assert (await watch.read()).status == NOT_SERVING
        assert (await watch.read()).status == SERVING


async def test_sigterm_drains_serving_all_the_while_then_closes_everything(tmp_path: Path) -> None:
    async with started(tmp_path, drain_seconds="0.7") as (process, channel):
        assert await send(channel, "Echo", "x") == ["x"]
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=NAME))
        assert (await watch.read()).status == SERVING
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert (await watch.read()).status == NOT_SERVING
        assert await send(channel, "Echo", "still") == ["still"]
        lines = await asyncio.wait_for(logs(process), 10)
        assert process.returncode == 0
        assert 0.6 < time.monotonic() - begun < 5
        assert [line["message"] for line in lines if line["logger"] == "services.runtime.server"] == [
            "listening",
            "serving",
            "draining",
            "stopped",
        ]


async def test_endless_streams_end_as_unavailable_and_do_not_hold_the_end_up(tmp_path: Path) -> None:
    async with started(tmp_path, drain_seconds="0", grace_seconds="30") as (process, channel):
        stream = asyncio.create_task(send(channel, "Forever", "x"))
        await asyncio.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await stream
        assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
        await asyncio.wait_for(process.communicate(), 10)
        assert process.returncode == 0


async def test_a_second_signal_cuts_the_drain_short(tmp_path: Path) -> None:
    async with started(tmp_path, drain_seconds="60") as (process, _):
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert process.returncode is None
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.communicate(), 10)
        assert process.returncode == 0


async def test_a_signal_while_it_gets_warm_ends_it_too(tmp_path: Path) -> None:
    async with started(tmp_path, warm_seconds="60", drain_seconds="0") as (process, _):
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), 10)
        assert process.returncode == 0


async def test_a_process_that_cannot_get_warm_closes_everything_and_fails(tmp_path: Path) -> None:
    async with started(tmp_path, fail_to_warm="true") as (process, _):
        output, _ = await asyncio.wait_for(process.communicate(), 10)
        assert process.returncode == 3
        assert output == b"closed\n"


async def test_logs_are_json_with_request_ids_and_nothing_of_the_callers(tmp_path: Path) -> None:
    async with started(tmp_path, drain_seconds="0") as (process, channel):
        with pytest.raises(grpc.aio.AioRpcError):
            await send(channel, "Echo", "secret failure", metadata=(("x-request-id", "mine-1"),))
        process.send_signal(signal.SIGTERM)
        lines = await asyncio.wait_for(logs(process), 10)
    [access] = [line for line in lines if line["logger"] == "inkling.access"]
    assert (access["method"], access["code"], access["request_id"]) == (f"/{NAME}/Echo", "INTERNAL", "mine-1")
    assert (access["project"], access["key_id"]) == ("default", "insecure")
    [failure] = [line for line in lines if "exception" in line]
    assert failure["request_id"] == "mine-1"
    assert "builtins.ValueError" in str(failure["exception"])
    assert "echo.py" in str(failure["exception"])
    assert SECRET not in str(failure["exception"])


async def test_metrics_are_on_a_port_of_their_own(tmp_path: Path, unused_port: int) -> None:
    async with started(tmp_path, metrics_port=str(unused_port), drain_seconds="0") as (process, channel):
        await send(channel, "Echo", "x")
        reader, writer = await asyncio.open_connection("127.0.0.1", unused_port)
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
        assert "grpc_server_handled_total{" in text
        assert "process_resident_memory_bytes" in text
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), 10)
        assert process.returncode == 0


async def test_a_misspelt_setting_stops_the_start(tmp_path: Path) -> None:
    environ = {**os.environ, "ECHO_DRAIN_SECOND": "1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.runtime.echo_process", env=environ, stdout=PIPE, stderr=PIPE
    )
    _, text = await process.communicate()
    assert process.returncode != 0
    assert "did you mean ECHO_DRAIN_SECONDS?" in text.decode()
