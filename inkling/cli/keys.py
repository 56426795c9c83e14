"""`inkling keys`: API keys, in the database that the services share. Runs where that database is."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from inkling.cli import connection
from inkling.cli.console import fail, out, print_table, say
from inkling.cli.local import needing

if TYPE_CHECKING:
    from services.runtime.auth import KeyInfo, KeyStore

app = typer.Typer(no_args_is_help=True, help="Makes, lists, revokes and rotates API keys.")
R = TypeVar("R")

DatabaseUrl = Annotated[
    str,
    typer.Option(
        "--database-url",
        envvar="INKLING_AUTH_DATABASE_URL",
        help="The database of keys. [default: auth.db in the data folder]",
    ),
]
KeyId = Annotated[str, typer.Argument(help="The key's id, from `inkling keys list`.")]


@app.command("create")
def create(
    context: typer.Context,
    role: Annotated[list[str], typer.Option(help="ingest, read, define, upload or operate. Repeatable.")],
    project: Annotated[str, typer.Option(help="The project that it belongs to.")] = "default",
    expires_in_days: Annotated[float | None, typer.Option(help="How long it works; for ever without.")] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    database_url: DatabaseUrl = "",
) -> None:
    """Makes a key and prints its secret, which is shown nowhere else."""
    with needing("runtime"):
        from services.runtime.auth import Role
    roles = [each for each in Role if each is not Role.SERVICE]
    wrong = [each for each in role if each not in {str(known) for known in roles}]
    if wrong:
        fail(f"there is no role {wrong[0]}: it is one of {', '.join(roles)}")
    expires_at_us = None if expires_in_days is None else time.time_ns() // 1_000 + round(expires_in_days * 86_400e6)
    key_id, secret = with_store(
        context,
        database_url,
        lambda store: store.create(project, [Role(each) for each in role], expires_at_us, description),
    )
    say(f"key {key_id} of project {project}:")
    out().print(secret)


@app.command("list")
def list_all(
    context: typer.Context,
    project: Annotated[str | None, typer.Option(help="Only those of this project.")] = None,
    database_url: DatabaseUrl = "",
) -> None:
    """Lists keys, never their secrets."""
    found = with_store(context, database_url, lambda store: store.list(project))
    print_table(
        ["id", "project", "roles", "created", "state", "description"],
        [
            [
                each.key_id,
                each.project,
                ", ".join(sorted(each.roles)),
                moment(each.created_at_us),
                state(each),
                each.description,
            ]
            for each in found
        ],
    )


@app.command("revoke")
def revoke(context: typer.Context, key_id: KeyId, database_url: DatabaseUrl = "") -> None:
    """Ends a key: in running services within seconds."""
    with_store(context, database_url, lambda store: store.revoke(key_id))
    say(f"key {key_id} is revoked")


@app.command("rotate")
def rotate(
    context: typer.Context,
    key_id: KeyId,
    overlap_seconds: Annotated[float, typer.Option(help="How long the old one goes on working.")] = 3_600.0,
    database_url: DatabaseUrl = "",
) -> None:
    """Makes a new key in place of an old one and prints its secret."""
    new_id, secret = with_store(context, database_url, lambda store: store.rotate(key_id, overlap_seconds))
    say(f"key {new_id} takes the place of {key_id}:")
    out().print(secret)


def with_store(context: typer.Context, database_url: str, use: "Callable[[KeyStore], Awaitable[R]]") -> R:
    """Opens the database of keys, uses it and closes it; its errors become messages."""
    with needing("runtime"):
        from services.runtime.auth import MIGRATIONS, KeyStore
        from services.runtime.database import Database
        from services.runtime.errors import InklingError
    url = database_url or local_url(connection.of(context).options.data_dir)

    async def run() -> R:
        async with Database.open(url, MIGRATIONS) as database:
            return await use(KeyStore(database))

    try:
        return asyncio.run(run())
    except InklingError as error:
        fail(str(error), code=1)


def local_url(data_dir: Path) -> str:
    """The embedded database of keys; a message and the end when there is none."""
    path = data_dir / "auth.db"
    if not path.is_file():
        fail(f"there is no {path}: `inkling up` makes it, or give --data-dir or --database-url")
    return f"sqlite:///{path}"


def moment(at_us: int) -> datetime:
    """An instant."""
    return datetime.fromtimestamp(at_us / 1e6, UTC)


def state(key: "KeyInfo") -> str:
    """Whether a key works."""
    if key.revoked_at_us is not None:
        return "revoked"
    if key.expires_at_us is None:
        return "active"
    verb = "expired" if key.expires_at_us <= time.time_ns() // 1_000 else "until"
    return f"{verb} {moment(key.expires_at_us):%Y-%m-%d %H:%M}"
