"""Where the services are and which key to show them: options, then the environment, then what `inkling up` wrote."""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from inkling.client import Client, RetryPolicy
from inkling.client.asynchronous import HOST, PORTS, usual_address

DATA_DIR = Path(".data")
FILE_NAME = "client.json"


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """What the caller said; None where nothing."""

    api_key: str | None = None
    ingest: str | None = None
    features: str | None = None
    insights: str | None = None
    data_dir: Path = DATA_DIR


@dataclass(frozen=True, slots=True)
class Addresses:
    """What a client needs to connect."""

    api_key: str
    ingest: str
    features: str
    insights: str = f"{HOST}:{PORTS['insights']}"


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
            insights=self.options.insights or (written.insights if written else usual_address("insights")),
        )

    def client(self) -> Client:
        """A client, to be used in `with`."""
        found = self.addresses
        # A person waits: a service that is not there is told within a second.
        retry = RetryPolicy(attempts=4)
        return Client(
            api_key=found.api_key, ingest=found.ingest, features=found.features, insights=found.insights, retry=retry
        )


def of(context: typer.Context) -> Connection:
    """The connection of a command."""
    connection = context.find_root().obj
    assert isinstance(connection, Connection)
    return connection


def read_addresses(data_dir: Path) -> Addresses | None:
    """What `inkling up` wrote for clients on this machine; None when it wrote nothing."""
    try:
        content = json.loads((data_dir / FILE_NAME).read_text())
        found = Addresses(**{name: str(content[name]) for name in ("api_key", "ingest", "features")})
        # A folder of a time before insights says nothing of them.
        return replace(found, insights=str(content.get("insights", found.insights)))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_addresses(data_dir: Path, addresses: Addresses) -> Path:
    """Writes it for clients on this machine, readable by the owner only: it holds a key."""
    path = data_dir / FILE_NAME
    content = asdict(addresses)
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
InsightsAddress = Annotated[
    str | None,
    typer.Option(
        "--insights",
        envvar="INKLING_ADDRESS_INSIGHTS",
        help=f"Where insights is. [default: {usual_address('insights')}]",
    ),
]
DataDir = Annotated[
    Path, typer.Option("--data-dir", envvar="INKLING_DATA_DIR", help="The folder of `inkling up` on this machine.")
]
