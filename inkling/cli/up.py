"""`inkling up`: the services on this machine, on SQLite and a folder."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from inkling.cli import connection
from inkling.cli.connection import Addresses, read_addresses, write_addresses
from inkling.cli.console import err, fail
from inkling.cli.ingest import pairs
from inkling.cli.local import needing
from inkling.cli.suite import SERVICES, Suite, SuiteError

PROJECT = "default"
COLOURS = ("cyan", "magenta", "green", "yellow", "blue")


def up(
    context: typer.Context,
    data_dir: Annotated[Path | None, typer.Option(help="Databases and blobs. [default: ./.data]")] = None,
    port: Annotated[
        list[str] | None, typer.Option(help="A service's port: ingest=7001; 0 is free. Repeatable.")
    ] = None,
) -> None:
    """Starts the services as processes on loopback and keeps them up until Ctrl-C.

    At the first start it prints a key. The key and the addresses are written into the data folder, where the other
    commands find them.
    """
    with needing("all"):
        import services.features
        import services.ingest  # noqa: F401
    known = {spec.name for spec in SERVICES}
    ports: dict[str, int] = {}
    for name, text in pairs(port, "--port ingest=7001").items():
        if name not in known or not text.isdigit():
            fail(f"{name}={text} is no service's port: the services are {', '.join(sorted(known))}")
        ports[name] = int(text)
    folder = data_dir or connection.of(context).options.data_dir
    try:
        code = asyncio.run(run(folder, ports))
    except SuiteError as error:
        fail(str(error), code=1)
    raise typer.Exit(code)


async def run(data_dir: Path, ports: dict[str, int]) -> int:
    """Runs the services until a signal (0); one that ends by itself is started again."""
    console = err()
    width = max(len(spec.name) for spec in SERVICES)
    colours = {spec.name: COLOURS[i % len(COLOURS)] for i, spec in enumerate(SERVICES)}

    def show(name: str, line: str) -> None:
        console.print(f"[{colours[name]}]{name:<{width}} |[/] {escape(line)}")

    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    async with Suite(data_dir, environ=os.environ, ports=ports, on_line=show) as suite:
        suite.reserve()
        # Shown and written at once: should a service fail to start, nobody could ask for the key again.
        key = await first_key(data_dir)
        if key is not None:
            console.print(f"API key of project {PROJECT} (shown once):  [bold]{escape(key)}[/]")
        path = remember(data_dir, suite, key)
        starting = asyncio.create_task(suite.start())
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if stopping.is_set():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return 0
        await starting
        announce(suite, path)
        keeping = asyncio.create_task(suite.keep(lambda text: console.print(f"[bold red]{escape(text)}[/]")))
        await asyncio.wait({keeping, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        console.print("stopping")
        return 0


async def first_key(data_dir: Path, project: str = PROJECT) -> str | None:
    """A key with every role a caller can have, when the folder has none yet; else None."""
    with needing("runtime"):
        from services.runtime.auth import MIGRATIONS, KeyStore, Role
        from services.runtime.database import Database
    url = os.environ.get("INKLING_INGEST_AUTH_DATABASE_URL") or f"sqlite:///{data_dir / 'auth.db'}"
    async with Database.open(url, MIGRATIONS) as database:
        roles = [role for role in Role if role is not Role.SERVICE]
        made = await KeyStore(database).create_first(project, roles, description="made by `inkling up`")
    return None if made is None else made[1]


def remember(data_dir: Path, suite: Suite, key: str | None) -> Path | None:
    """Writes addresses and key for the other commands; None when no key is known here."""
    written = read_addresses(data_dir)
    known = key or (written.api_key if written else "")
    addresses = [suite.address(name) for name in ("ingest", "features", "insights")]
    path = write_addresses(data_dir, Addresses(known, *addresses))
    return path if known else None


def announce(suite: Suite, path: Path | None) -> None:
    """Says where the services are, and where the other commands find the key."""
    console = err()
    console.print()
    for spec in SERVICES:
        console.print(f"[bold green]ready[/]  {spec.name:<10} {suite.address(spec.name)}")
    if path is None:
        console.print("\nNo key is known here: `inkling keys create` makes one; give it in INKLING_API_KEY.")
    else:
        console.print(f"\nCommands on this machine find the key in {escape(str(path))}. Try: inkling project get")
    console.print("Ctrl-C stops.\n")
