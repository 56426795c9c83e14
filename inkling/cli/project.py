"""`inkling project`: how the project's events are taken and kept."""

from datetime import timedelta
from typing import Annotated, cast

import typer

from inkling.cli import connection
from inkling.cli.console import fail, print_table
from inkling.client import ProjectSettings
from inkling.client.project import Clock

app = typer.Typer(no_args_is_help=True, help="Reads and changes the project's settings.")


@app.command("get")
def get(context: typer.Context) -> None:
    """Shows the settings."""
    with connection.of(context).client() as client:
        show(client.project.get())


@app.command("set")
def set_all(
    context: typer.Context,
    clock: Annotated[str | None, typer.Option(help="wall, or log (only while the log is empty).")] = None,
    retention_days: Annotated[float | None, typer.Option(help="Keep events so long; 0 for ever.")] = None,
    horizon_days: Annotated[float | None, typer.Option(help="Remember event ids so long.")] = None,
    max_lead_seconds: Annotated[float | None, typer.Option(help="How far ahead an event may be.")] = None,
) -> None:
    """Changes what is given."""
    if clock not in (None, "wall", "log"):
        fail(f"there is no clock {clock}: it is wall or log")
    with connection.of(context).client() as client:
        show(
            client.project.set(
                clock=cast("Clock | None", clock),
                retention=None if retention_days is None else timedelta(days=retention_days),
                deduplication_horizon=None if horizon_days is None else timedelta(days=horizon_days),
                max_lead=None if max_lead_seconds is None else timedelta(seconds=max_lead_seconds),
            )
        )


def show(settings: ProjectSettings) -> None:
    """Prints settings."""
    print_table(
        ["setting", "value"],
        [
            ["clock", settings.clock],
            ["retention", str(settings.retention) if settings.retention else "for ever"],
            ["deduplication horizon", str(settings.deduplication_horizon)],
            ["max lead", str(settings.max_lead)],
        ],
    )
