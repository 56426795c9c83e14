"""`inkling features`: attributes over a file of events, without any service."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inkling.cli.console import existing, fail, print_json, say
from inkling.cli.local import needing
from inkling.values import EPOCH

if TYPE_CHECKING:
    from services.features.definitions import AttributeGroup

app = typer.Typer(no_args_is_help=True, help="Evaluates attributes offline.")


@app.command("eval")
def evaluate(
    group: Annotated[Path, typer.Option(help="The attribute group: a Signals JSON document.")],
    events: Annotated[Path, typer.Option(help="Snowplow events: CSV, plain or gzip.")],
    as_of: Annotated[str, typer.Option(help="The instant, ISO 8601; UTC unless it names a zone.")],
    key: Annotated[str, typer.Option(help="The column of the key. [default: the group's attribute key]")] = "",
) -> None:
    """Prints the attributes of each key as of an instant, one JSON object a line, ordered by key.

    Only keys with an event before the instant; windows are `[t - period, t)`. This is the document's *test* step: the
    same definitions and the same code as the services, on a file.
    """
    with needing("features"):
        from services.features import offline
        from services.features.snowplow import SnowplowFileError, SnowplowReader

    as_of_us = parse_instant(as_of)
    definition = read_group(group)
    key = (key or definition.attribute_key).lower()
    try:
        reader = SnowplowReader(existing(events), key, offline.entities_of(definition))
        names = [attribute.name for attribute in definition.attributes]
        for found in offline.evaluate(definition, key, reader.batches(), as_of_us):
            values = (offline.as_json(each.value) for each in found.answers)
            print_json({key: found.key_value, **dict(zip(names, values, strict=True))})
    except SnowplowFileError as error:
        fail(f"{events} {error}")
    if reader.skipped:
        say(f"{reader.skipped} of {reader.rows} events have no time that can be read: left out")


@app.command()
def dataset(
    group: Annotated[Path, typer.Option(help="The attribute group: a Signals JSON document.")],
    events: Annotated[Path, typer.Option(help="Snowplow events: CSV, plain or gzip.")],
    rows: Annotated[Path, typer.Option(help="The rows to fill: CSV with the key's column and as_of, ISO 8601.")],
    out: Annotated[Path, typer.Option(help="The filled table: .parquet, .csv or .jsonl.")],
    key: Annotated[str, typer.Option(help="The column of the key. [default: the group's attribute key]")] = "",
) -> None:
    """Fills in the attributes of each row's key as of the row's instant: a training set that equals serving.

    Windows are `[as_of - period, as_of)`. Rows keep their order and their other columns, as text; in CSV, lists are
    JSON text.
    """
    with needing("features"):
        from services.features import dataset as datasets
        from services.features import dataset_files as files
        from services.features.offline import entities_of
        from services.features.snowplow import SnowplowFileError, SnowplowReader

    definition = read_group(group)
    key = (key or definition.attribute_key).lower()
    names = [attribute.name for attribute in definition.attributes]
    blamed = out
    try:
        files.writer_of(out)
        blamed = existing(rows)
        wanted = files.read_rows(rows, key, names)
        blamed = existing(events)
        reader = SnowplowReader(events, key, entities_of(definition))
        columns = datasets.fill(definition, key, reader.batches(), wanted.keys, wanted.instants_us)
        table = wanted.table
        for name, column in zip(names, columns, strict=True):
            table = table.append_column(name, column)
        blamed = out
        files.write(table, out)
    except (SnowplowFileError, files.RowsFileError) as error:
        fail(f"{blamed} {error}")
    if reader.skipped:
        say(f"{reader.skipped} of {reader.rows} events have no time that can be read: left out")
    say(f"{out}: {table.num_rows} rows, {len(names)} attributes")


def parse_instant(text: str) -> int:
    """Microseconds of an instant; else a message and the end."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{text} is not an instant: write it as 2025-05-01T00:00:00Z")
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // timedelta(microseconds=1)


def read_group(path: Path) -> "AttributeGroup":
    """The group in a file; mistakes are all named, with hints, and end the command."""
    from services.features.definitions import AttributeGroup
    from services.features.signals import JsonSyntaxError, read_document
    from services.features.validation import check_group

    try:
        document = read_document(existing(path).read_text("utf-8-sig", errors="replace"))
    except JsonSyntaxError as error:
        fail(f"{path} is not JSON: {error}")
    if not isinstance(document.definition, AttributeGroup):
        fail(f"{path} holds a service, not an attribute group: give the group that it names")
    problems = document.problems or tuple(check_group(document.definition))
    if problems:
        lines = [f"  {each.field}: {each.description}" + (f" ({each.hint})" if each.hint else "") for each in problems]
        fail("\n".join([f"{path} has {len(problems)} mistake{'s' if len(problems) > 1 else ''}", *lines]))
    return document.definition
