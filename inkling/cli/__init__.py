"""The `inkling` command line.

Exit codes: 0 done; 1 a service refused or failed, or some lines or events were refused; 2 the input or the command is
wrong; 130 interrupted.
"""

import sys

import typer

from inkling.cli import (
    collections,
    datasets,
    dead_letters,
    definitions,
    features,
    history,
    ingest,
    insights,
    keys,
    project,
    properties,
    rollups,
    rules,
    segments,
    up,
)
from inkling.cli.connection import (
    DATA_DIR,
    ApiKey,
    Connection,
    ConnectionOptions,
    DataDir,
    FeaturesAddress,
    IngestAddress,
    InsightsAddress,
)
from inkling.cli.console import explain, fail
from inkling.errors import InklingError


def make_app() -> typer.Typer:
    """The commands, one module for each group."""
    app = typer.Typer(
        name="inkling",
        help="Events in, exact attributes out. Start with `inkling up`.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )
    app.callback()(connect)
    app.command("up")(up.up)
    app.add_typer(ingest.app, name="ingest")
    app.add_typer(history.app, name="profile")
    app.add_typer(definitions.app, name="definitions")
    app.add_typer(features.app, name="features")
    app.add_typer(insights.app, name="insights")
    app.add_typer(datasets.app, name="datasets")
    app.add_typer(collections.app, name="collections")
    app.add_typer(dead_letters.app, name="dead-letters")
    app.add_typer(project.app, name="project")
    app.add_typer(properties.app, name="properties")
    app.add_typer(rollups.app, name="rollups")
    app.add_typer(rules.app, name="rules")
    app.add_typer(segments.app, name="segments")
    app.add_typer(keys.app, name="keys")
    return app


def connect(
    context: typer.Context,
    api_key: ApiKey = None,
    ingest: IngestAddress = None,
    features: FeaturesAddress = None,
    insights_address: InsightsAddress = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Events in, exact attributes out. Start with `inkling up`."""
    context.obj = Connection(ConnectionOptions(api_key, ingest, features, insights_address, data_dir))


def main() -> None:
    """Runs the command line; errors become messages and exit codes."""
    try:
        make_app()()
    except InklingError as error:
        fail(explain(error), code=1)
    except KeyboardInterrupt:
        sys.exit(130)
