"""The synchronous face is the asynchronous one, run elsewhere."""

import inspect
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from inkling import AsyncClient, Client, CustomerEvent
from inkling.client import synchronous
from inkling.errors import ClientClosed
from tests.client.servers import Store


def test_a_script_sends_reads_and_watches(threaded_address: str, store: Store, make_event) -> None:
    with Client(ingest=threaded_address, features=threaded_address) as client:
        delivery = client.events.send(make_event(1))
        assert client.events.flush().accepted == 1
        assert delivery.result(1).event_id == "event-1"
        assert client.profiles.get("abc", service="shop")["length"] == 3
        assert [each.sequence for each in client.events.stream([make_event(2), make_event(3)], batch_size=1)] == [1, 2]
        for changes in client.profiles.watch(service="shop"):
            assert changes.profiles[0]["length"] == 1
            break
    assert set(store.events) == {"event-1", "event-2", "event-3"}
    with pytest.raises(ClientClosed):
        client.events.flush()
    client.close()


def test_every_public_method_has_its_synchronous_twin() -> None:
    faces = {
        "AsyncEvents": "Events",
        "AsyncCollections": "Collections",
        "AsyncDeadLetters": "DeadLetters",
        "AsyncProject": "Project",
        "AsyncDefinitions": "Definitions",
        "AsyncProfiles": "Profiles",
        "AsyncClient": "Client",
    }
    for asynchronous, blocking in faces.items():
        section = getattr(synchronous, asynchronous)
        public = {
            name
            for name, member in inspect.getmembers(section, inspect.isroutine)
            if not name.startswith("_") and name != "close"
        }
        missing = {name for name in public if not hasattr(getattr(synchronous, blocking), name)}
        assert not missing, f"{blocking} lacks {missing}"


def test_signatures_and_types_carry_over(tmp_path: Path) -> None:
    source = tmp_path / "typed.py"
    source.write_text(
        textwrap.dedent(
            """
            from collections.abc import Iterator
            from typing import assert_type

            from inkling import AsyncClient, Client
            from inkling.client import Profile, ProfileChanges
            from inkling.events import IngestResult

            def use(client: Client) -> None:
                assert_type(client.profiles.get("1", service="s", min_position=3), Profile)
                assert_type(client.profiles.watch(service="s"), Iterator[ProfileChanges])
                assert_type(client.events.flush(), IngestResult)
                client.profiles.get("1", servise="s")  # type: ignore[call-arg]
                client.profiles.get(1)  # type: ignore[arg-type]

            async def use_async(client: AsyncClient) -> None:
                assert_type(await client.profiles.get("1"), Profile)
            """
        )
    )
    root = Path(__file__).resolve().parents[2]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", str(source)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


def test_an_interrupt_cancels_the_call(threaded_address: str, store: Store, make_event, monkeypatch) -> None:
    import concurrent.futures

    with Client(ingest=threaded_address) as client:

        def interrupted(self: object, timeout: float | None = None) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(concurrent.futures.Future, "result", interrupted)
            with pytest.raises(KeyboardInterrupt):
                client.events.ingest([make_event(1)])


def test_names_differ_only_in_the_waiting() -> None:
    assert inspect.signature(AsyncClient.__init__) == inspect.signature(Client.__init__)
    assert CustomerEvent.__doc__
