"""`inkling properties`: what other systems know about a key."""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from inkling.cli import connection
from inkling.cli.console import existing, fail, out, print_table, read_json, say
from inkling.client.properties import PropertySpec, PropertyWrite
from inkling.features.v1.property_service_pb2 import (
    MergeStrategy,
    PropertyDeclaration,
    PropertyType,
    PropertyVisibility,
)
from inkling.values import NestedValue

app = typer.Typer(no_args_is_help=True, help="Declares properties and sets them.")

Key = Annotated[str, typer.Option("--key", help="The attribute key, such as user_id.")]
_SHOWN = 20


class BadTextError(ValueError):
    """A text that is no value of its property's type."""


@app.command("declare")
def declare(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The property, or FILE.json with several (a list under `properties`).")],
    key: Key,
    kind: Annotated[str, typer.Option("--type", help="boolean, numeric, string, date, array or record.")] = "string",
    description: Annotated[str, typer.Option(help="What it says.")] = "",
    source: Annotated[str, typer.Option(help="Where it comes from.")] = "",
    merge: Annotated[str, typer.Option(help="first, most_recent, max or sum.")] = "most_recent",
    refers_to: Annotated[str, typer.Option(help="The attribute key of the profile that a value names.")] = "",
    hidden: Annotated[bool, typer.Option("--hidden", help="Read it only when it is named.")] = False,
) -> None:
    """Declares a property, or all of a file."""
    if name.endswith(".json"):
        specs = [spec_of(each) for each in read_json(Path(name)).get("properties", [])]
    else:
        content = {"name": name, "type": kind, "description": description, "source": source, "merge": merge}
        specs = [spec_of({**content, "refers_to": refers_to, "visibility": "hidden" if hidden else "visible"})]
    with connection.of(context).client() as client:
        for each in client.properties.declare_many(specs, attribute_key=key):
            out().print(each.name)


@app.command("list")
def list_all(
    context: typer.Context, key: Annotated[str, typer.Option("--key", help="Only of this attribute key.")] = ""
) -> None:
    """Lists the declared properties."""
    with connection.of(context).client() as client:
        found = client.properties.list(key)
    rows = [
        [
            each.name.split("/")[1],
            each.name.split("/")[3],
            type_of(each),
            MergeStrategy.Name(each.merge_strategy).removeprefix("MERGE_STRATEGY_").lower(),
            PropertyVisibility.Name(each.visibility).removeprefix("PROPERTY_VISIBILITY_").lower(),
            each.refers_to,
            each.source,
            each.description,
        ]
        for each in found
    ]
    print_table(["key", "property", "type", "merge", "visibility", "refers to", "source", "description"], rows)


@app.command("delete")
def delete(context: typer.Context, name: Annotated[str, typer.Argument(help="The property.")], key: Key) -> None:
    """Deletes a declaration; its values stay in the log."""
    with connection.of(context).client() as client:
        client.properties.delete(name, attribute_key=key)


@app.command("set")
def set_values(
    context: typer.Context,
    key_value: Annotated[str, typer.Argument(help="Whose: the value of the attribute key.")],
    values: Annotated[list[str], typer.Argument(help="NAME=VALUE.", metavar="NAME=VALUE...")],
    key: Key,
    at: Annotated[str, typer.Option(help="When it became so (ISO 8601); default: now.")] = "",
) -> None:
    """Sets properties of one profile; values are read by the declared types."""
    pairs = [each.partition("=") for each in values]
    if any(not separator for _, separator, _ in pairs):
        fail("give each value as NAME=VALUE")
    with connection.of(context).client() as client:
        types = {each.name.split("/")[3]: type_of(each) for each in client.properties.list(key)}
        try:
            parsed = {name: parse(name, text, types) for name, _, text in pairs}
            event_time = instant_of(at) if at else None
        except BadTextError as error:
            fail(str(error))
        position = client.properties.set(key_value, parsed, attribute_key=key, event_time=event_time)
    out().print(f"position {position}")


@app.command("unset")
def unset(
    context: typer.Context,
    key_value: Annotated[str, typer.Argument(help="Whose: the value of the attribute key.")],
    names: Annotated[list[str], typer.Argument(help="The properties.", metavar="NAME...")],
    key: Key,
) -> None:
    """Takes values away."""
    with connection.of(context).client() as client:
        position = client.properties.set(key_value, attribute_key=key, unset=names)
    out().print(f"position {position}")


@app.command("import")
def import_csv(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A CSV file whose first line names the properties.")],
    key: Annotated[str, typer.Option("--key", help="KEY=COLUMN: the attribute key and the column of its values.")],
    time: Annotated[str, typer.Option(help="The column of the event time (ISO 8601); none: now.")] = "",
    source: Annotated[str, typer.Option(help="Who sets them: api:LABEL.")] = "",
) -> None:
    """Sets properties from a CSV file. Empty cells are left out; the same file again adds nothing."""
    attribute_key, _, column = key.partition("=")
    batch_id = hashlib.sha256(existing(file).read_bytes() + f"{key}\n{time}".encode()).hexdigest()[:32]
    with connection.of(context).client() as client, file.open(encoding="utf-8-sig", newline="") as lines:
        types = {each.name.split("/")[3]: type_of(each) for each in client.properties.list(attribute_key)}
        reader = csv.DictReader(lines)
        needed = {column or attribute_key, *([time] if time else [])}
        missing = needed - set(reader.fieldnames or ())
        if missing:
            fail(f"the file has no column {', '.join(sorted(missing))}")
        writes = writes_of(reader, column or attribute_key, time, types)
        try:
            result = client.properties.set_many(writes, attribute_key=attribute_key, source=source, batch_id=batch_id)
        except BadTextError as error:
            fail(f"line {reader.line_num}: {error}; what stands before is set")
    out().print(f"{result.accepted} profiles set, {len(result.rejected)} refused, position {result.position}")
    for each in result.rejected[:_SHOWN]:
        say(f"line {each.index + 2}: {each.field.partition('.')[2]}: {each.message} ({each.reason})")
    if result.rejected:
        raise typer.Exit(1)


def writes_of(
    reader: "csv.DictReader[str]", key_column: str, time_column: str, types: Mapping[str, str]
) -> Iterator[PropertyWrite]:
    """One write for each line that has a value."""
    for line in reader:
        cells = {name: text for name, text in line.items() if text and name not in (key_column, time_column)}
        yield PropertyWrite(
            line[key_column],
            {name: parse(name, text, types) for name, text in cells.items()},
            event_time=instant_of(line[time_column]) if time_column else None,
        )


def parse(name: str, text: str, types: Mapping[str, str]) -> NestedValue:
    """A value from its text, by the declared type; what is not declared is a string, for the service to refuse."""
    kind = types.get(name, "string")
    try:
        match kind:
            case "numeric":
                return float(text)
            case "boolean":
                return {"true": True, "1": True, "false": False, "0": False}[text.strip().lower()]
            case "date":
                return instant_of(text)
            case "array" | "record":
                value: NestedValue = json.loads(text)
                return value
            case _:
                return text
    except (ValueError, KeyError):
        raise BadTextError(f"{name}: {text[:80]!r} is not a {kind}") from None


def instant_of(text: str) -> datetime:
    """An instant; UTC unless the text says otherwise."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadTextError(f"{text[:80]!r} is not a time: write 2026-01-31 or 2026-01-31T12:00:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def spec_of(content: Mapping[str, Any]) -> PropertySpec:
    """What to declare, from JSON."""
    try:
        spec = PropertySpec(**content)
        spec.to_message()
    except (TypeError, ValueError, AttributeError) as error:
        fail(f"this is no declaration: {error}")
    return spec


def type_of(declaration: PropertyDeclaration) -> str:
    """The type of a property as a word."""
    return PropertyType.Name(declaration.type).removeprefix("PROPERTY_TYPE_").lower()
