"""Where the services are and which key to show them: options, then the environment, then what `inkling up` wrote."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from inkling.client import Client, RetryPolicy
from inkling.client.asynchronous import usual_address

DATA_DIR = Path(".data")
FILE_NAME = "client.json"


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """What the caller said; None where nothing."""

    api_key: str | None = None
    ingest: str | None = None
    features: str | None = None
    data_dir: Path = DATA_DIR


@dataclass(frozen=True, slots=True)
class Addresses:
    """What a client needs to connect."""

    api_key: str
    ingest: str
    features: str


class Connection:
    """The connection of one run of the command line, opened when a command needs it."""

    def __init__(self, options: ConnectionOptions) -> None:
        self.options = options

    @property
    def addresses(self) -> Addresses:
        """Where to connect, from the options (which the environment fills), then the file of `inkling up`."""
        written = read_addresses(self.options.data_dir)
        return Addresses(
            api_key=self.options.api_key or (written.api_key if written else ""),
            ingest=self.options.ingest or (written.ingest if written else usual_address("ingest")),
            features=self.options.features or (written.features if written else usual_address("features")),
        )

    def client(self) -> Client:
        """A client, to be used in `with`."""
        found = self.addresses
        # A person waits: a service that is not there is told within a second.
        retry = RetryPolicy(attempts=4)
        return Client(api_key=found.api_key, ingest=found.ingest, features=found.features, retry=retry)


def of(context: typer.Context) -> Connection:
    """The connection of a command."""
    connection = context.find_root().obj
    assert isinstance(connection, Connection)
    return connection


def read_addresses(data_dir: Path) -> Addresses | None:
    """What `inkling up` wrote for clients on this machine; None when it wrote nothing."""
    try:
        content = json.loads((data_dir / FILE_NAME).read_text())
        return Addresses(**{name: str(content[name]) for name in ("api_key", "ingest", "features")})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_addresses(data_dir: Path, addresses: Addresses) -> Path:
    """Writes it for clients on this machine, readable by the owner only: it holds a key."""
    path = data_dir / FILE_NAME
    content = {"api_key": addresses.api_key, "ingest": addresses.ingest, "features": addresses.features}
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file, indent=1)
    return path


ApiKey = Annotated[str | None, typer.Option(envvar="INKLING_API_KEY", help="The API key.", show_default=False)]
IngestAddress = Annotated[
    str | None,
    typer.Option(
        "--ingest",
        envvar="INKLING_ADDRESS_INGEST",
        help=f"Where ingest is. [default: {usual_address('ingest')}]",
    ),
]
FeaturesAddress = Annotated[
    str | None,
    typer.Option(
        "--features",
        envvar="INKLING_ADDRESS_FEATURES",
        help=f"Where features is. [default: {usual_address('features')}]",
    ),
]
DataDir = Annotated[
    Path, typer.Option("--data-dir", envvar="INKLING_DATA_DIR", help="The folder of `inkling up` on this machine.")
]
