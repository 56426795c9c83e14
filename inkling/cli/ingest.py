"""`inkling ingest`: events from files."""

import time
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from inkling.cli import connection
from inkling.cli.console import err, existing, fail, out, say
from inkling.client import CsvProgress
from inkling.client.csv_import import ColumnType

app = typer.Typer(no_args_is_help=True, help="Sends events.")

SHOWN_ERRORS = 20


@app.callback()
def group() -> None:
    """Sends events."""


@app.command("csv")
def csv(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The file, plain or gzip; its first line names the columns.")],
    key: Annotated[
        list[str] | None, typer.Option(help="An attribute key and its column: user_id=CUSTOMER. Repeatable.")
    ] = None,
    time_column: Annotated[str, typer.Option("--time", help="The column of the event time.")] = "",
    event: Annotated[str, typer.Option(help="The event type of every line: name or vendor/name/version.")] = "",
    event_column: Annotated[
        str, typer.Option(help="The column of the event's name, or those of VENDOR/NAME/VERSION.")
    ] = "",
    id_column: Annotated[str, typer.Option("--id", help="The column of the event id; else derived.")] = "",
    column: Annotated[
        list[str] | None,
        typer.Option("--type", help="A column's type: AMOUNT=number (integer, boolean, timestamp). Repeatable."),
    ] = None,
    collection: Annotated[str, typer.Option(help="A declared collection that says all of this.")] = "",
    delimiter: Annotated[str, typer.Option(help="The separator.")] = ",",
) -> None:
    """Imports a CSV file. Doing it again adds nothing. Refused lines become dead letters, and make the exit code 1."""
    path = existing(file)
    if not collection and not (key and time_column and (event or event_column)):
        fail("say what the columns are: --key, --time and --event (or --event-column), or --collection")
    vendor, name, version = event_parts(event)
    vendor_column, name_column, version_column = event_parts(event_column)
    started = time.monotonic()
    with connection.of(context).client() as client, progress_bar() as bar:
        task = bar.add_task(path.name, total=path.stat().st_size, lines="")

        def show(progress: CsvProgress) -> None:
            bar.update(task, completed=progress.bytes_sent, lines=f"{progress.lines:,} lines")

        try:
            result = client.events.import_csv(
                path,
                occurred_at_column=time_column,
                key_columns=pairs(key, "--key user_id=CUSTOMER"),
                event_name=name,
                event_vendor=vendor,
                event_version=version,
                event_name_column=name_column,
                event_vendor_column=vendor_column,
                event_version_column=version_column,
                event_id_column=id_column,
                collection=collection,
                column_types=cast("dict[str, ColumnType]", pairs(column, "--type AMOUNT=number")),
                delimiter=delimiter,
                on_progress=show,
            )
        except ValueError as error:
            fail(str(error))
    seconds = time.monotonic() - started
    for each in result.errors[:SHOWN_ERRORS]:
        place = f"line {each.line}" + (f", column {each.column}" if each.column else "")
        say(f"{place}: {each.message} [{each.reason}]")
    if result.rejected > SHOWN_ERRORS:
        say(f"... {result.rejected - SHOWN_ERRORS:,} more: inkling dead-letters list")
    out().print(
        f"{result.accepted:,} events accepted, {result.rejected:,} refused, in {seconds:.1f} s; "
        f"position {result.position}"
    )
    if result.rejected:
        raise typer.Exit(1)


def event_parts(event: str) -> tuple[str, str, str]:
    """Vendor, name and version (or their columns) of `name` or `vendor/name/version`."""
    parts = event.split("/")
    if len(parts) == 1:
        return "", event, ""
    if len(parts) != 3:
        fail(f"{event} is not an event type: write name, or vendor/name/version")
    return parts[0], parts[1], parts[2]


def pairs(given: list[str] | None, example: str) -> dict[str, str]:
    """Options of the form NAME=VALUE as a mapping."""
    found: dict[str, str] = {}
    for each in given or ():
        name, separator, value = each.partition("=")
        if not (name and separator and value):
            fail(f"{each} is not of the form {example}")
        found[name] = value
    return found


def progress_bar() -> Progress:
    """A bar on stderr, over bytes."""
    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[lines]}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=err(), transient=True)
