"""Logs and traces."""

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc
import grpc.aio
import pytest

from services.runtime.auth import KeyStore
from services.runtime.server import Server
from services.runtime.settings import Settings
from services.runtime.telemetry import JsonFormatter, TextFormatter, describe
from tests.runtime.echo import EchoServicer, echo_service, send


def record(message: str, fields: dict[str, object] | None = None) -> logging.LogRecord:
    made = logging.LogRecord("services.x", logging.INFO, "x.py", 1, message, (), None)
    if fields is not None:
        made.fields = fields
    return made


def test_a_line_is_one_json_object_with_its_fields() -> None:
    line = JsonFormatter().format(record("two\nlines", {"project": "shop", "path": Path("/x")}))
    assert "\n" not in line
    found = json.loads(line)
    assert (found["message"], found["project"], found["path"]) == ("two\nlines", "shop", "/x")
    assert found["time"].endswith("+00:00")


def test_text_is_for_people() -> None:
    line = TextFormatter().format(record("ready", {"port": 7001, "nothing": None}))
    assert line.endswith("INFO    ready port=7001")


def test_an_exception_is_described_by_type_and_frames_of_its_causes_too_without_their_words() -> None:
    def fail() -> None:
        try:
            int("@".join(("ada", "example.org")))
        except ValueError as error:
            raise RuntimeError(f"for {error}") from error

    with pytest.raises(RuntimeError) as caught:
        fail()
    text = describe(caught.value, with_text=False)
    assert "builtins.RuntimeError" in text
    assert "caused by builtins.ValueError" in text
    assert "in fail" in text
    assert "ada@example" not in text
    assert "ada@example" in describe(caught.value, with_text=True)


async def test_successes_are_logged_at_debug_only(
    keys: KeyStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(data_dir=tmp_path, insecure=True)
    async with (
        Server.open(settings, [echo_service(EchoServicer())], keys=keys) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        with caplog.at_level(logging.INFO, "inkling.access"):
            await send(channel, "Echo", "x")
            assert not [line for line in caplog.records if line.name == "inkling.access"]
        with caplog.at_level(logging.DEBUG, "inkling.access"):
            await send(channel, "Echo", "x")
            assert [line.levelname for line in caplog.records if line.name == "inkling.access"] == ["DEBUG"]


def test_opentelemetry_is_not_imported_unless_traces_go_somewhere() -> None:
    code = "import sys, services.runtime.server; print([m for m in sys.modules if m.startswith('opentelemetry')])"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output == "[]\n"


async def test_a_call_is_a_span_of_its_callers_trace(
    keys: KeyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    from services.runtime import tracing

    spans: list[ReadableSpan] = []

    class Kept(SpanExporter):
        def __init__(self, **options: object) -> None:
            assert options == {"endpoint": "http://collector:4317", "insecure": True}

        def export(self, exported: Sequence[ReadableSpan]) -> SpanExportResult:
            spans.extend(exported)
            return SpanExportResult.SUCCESS

    monkeypatch.setattr(tracing, "OTLPSpanExporter", Kept)
    settings = Settings(data_dir=tmp_path, insecure=True, otlp_endpoint="http://collector:4317")
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with (
        Server.open(settings, [echo_service(EchoServicer())], keys=keys) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        metadata = (("traceparent", f"00-{trace}-b7ad6b7169203331-01"),)
        assert await send(channel, "Echo", "x", metadata=metadata) == ["x"]
        with pytest.raises(grpc.aio.AioRpcError):
            await send(channel, "Echo", "secret failure", metadata=metadata)
    good, bad = spans
    assert good.name == "test.v1.EchoService/Echo"
    assert good.context is not None
    assert f"{good.context.trace_id:032x}" == trace
    assert good.attributes is not None
    assert good.attributes["rpc.method"] == "Echo"
    assert (good.status.is_ok, bad.status.is_ok) == (True, False)
    assert "secret" not in str(bad.to_json())
