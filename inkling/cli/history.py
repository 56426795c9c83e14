"""`inkling profile`, what is not the present of some keys: lists, the past, explanations, exports."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, cast

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from inkling.cli import connection
from inkling.cli.console import err, fail, out, print_json, print_table, say
from inkling.cli.profile import AttributeKey, Attributes, Groups, Json, Service, app, show
from inkling.client.history import Explanation
from inkling.client.operations import Progress as OperationProgress

__all__ = ["app"]

Properties = Annotated[list[str] | None, typer.Option("--property", help="A property. Repeatable; `*` is all.")]
KeyValue = Annotated[str, typer.Argument(help="The key value.", metavar="ID")]


@app.command("list")
def list_all(
    context: typer.Context,
    service: Service = "",
    group: Groups = None,
    attribute: Attributes = None,
    properties: Properties = None,
    attribute_key: AttributeKey = "",
    limit: Annotated[int, typer.Option(help="At most so many; 0 for all.", min=0)] = 100,
    as_json: Json = False,
) -> None:
    """Lists profiles by key value; without a selection only the key values of --key."""
    with connection.of(context).client() as client:
        found = client.history.list(
            service=service,
            groups=group or (),
            attributes=attribute or (),
            properties=properties or (),
            attribute_key=attribute_key,
            page_size=min(limit, 1_000) or 1_000,
        )
        for i, profile in enumerate(found):
            if profile.readings or profile.properties:
                show(profile, as_json)
            else:
                out().print(profile.key_value, markup=False, highlight=False)
            if i + 1 == limit:
                break


@app.command("history")
def history(
    context: typer.Context,
    key_value: KeyValue,
    as_of: Annotated[list[str] | None, typer.Option(help="An instant, such as 2026-09-01T12:00Z. Repeatable.")] = None,
    start: Annotated[str, typer.Option("--from", help="Or all instants from here,")] = "",
    end: Annotated[str, typer.Option("--to", help="up to here,")] = "",
    step: Annotated[float, typer.Option(help="so many hours apart.", min=0)] = 24.0,
    service: Service = "",
    group: Groups = None,
    attribute: Attributes = None,
    properties: Properties = None,
    attribute_key: AttributeKey = "",
    position: Annotated[int, typer.Option(help="By what the log held up to this position; 0 for all.")] = 0,
    as_json: Json = False,
) -> None:
    """Reads a profile as it was, recomputed from the log; without a selection everything known of it."""
    if bool(as_of) == bool(start and end):
        fail("say when: --as-of TIME, or --from TIME --to TIME")
    chosen = {
        "service": service,
        "groups": tuple(group or ()),
        "attributes": tuple(attribute or ()),
        "properties": tuple(properties or ()),
        "everything": not (service or group or attribute or properties),
        "attribute_key": attribute_key,
        "position": position,
    }
    with connection.of(context).client() as client:
        if as_of:
            found = client.history.at(key_value, [moment(each) for each in as_of], **chosen)  # type: ignore[arg-type]
        else:
            span = timedelta(hours=step)
            found = client.history.range(key_value, moment(start), moment(end), span, **chosen)  # type: ignore[arg-type]
    for profile in found:
        if not as_json and sys.stdout.isatty():
            say(f"as of {profile.as_of_time:%Y-%m-%d %H:%M:%S.%f} UTC")
        show(profile, as_json)


@app.command("explain")
def explain(
    context: typer.Context,
    key_value: KeyValue,
    value: Annotated[str, typer.Option(help="group:attribute, group/version:attribute or properties.NAME.")],
    as_of: Annotated[str, typer.Option(help="As of this instant; else now.")] = "",
    attribute_key: AttributeKey = "",
    events: Annotated[int, typer.Option(help="Tell of so many events at most.", min=1)] = 50,
    as_json: Json = False,
) -> None:
    """Says which events are behind a value, and which of them it is made of."""
    with connection.of(context).client() as client:
        found = client.history.explain(
            key_value,
            value,
            as_of=moment(as_of) if as_of else None,
            attribute_key=attribute_key,
            events=events,
        )
    if as_json or not sys.stdout.isatty():
        print_json(_as_object(found))
        return
    since = "the beginning" if found.window_start is None else f"{found.window_start:%Y-%m-%d %H:%M:%S} UTC"
    say(f"{value} is {found.reading.value!r} ({found.reading.status}), from {since} to {found.as_of_time:%F %T} UTC")
    say(f"made of {found.counted} of {found.relevant} relevant events")
    print_table(
        ["event", "type", "occurred", "term", ""],
        [
            [each.event_id, each.event_type, each.occurred_time, each.term, _role(each.counted, each.decisive)]
            for each in found.events
        ],
    )


@app.command("export")
def export(
    context: typer.Context,
    target: Annotated[Path, typer.Option("--out", help="The file: .parquet or .csv.")],
    service: Service = "",
    group: Groups = None,
    attribute: Attributes = None,
    properties: Properties = None,
    attribute_key: AttributeKey = "",
    segment: Annotated[str, typer.Option(help="Only the members of this segment.")] = "",
    statuses: Annotated[bool, typer.Option("--statuses", help="Also a column with the status of each value.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the file on the server too.")] = False,
    hours: Annotated[float, typer.Option(help="How long to wait for it.")] = 4.0,
) -> None:
    """Writes all profiles, as of one instant, to a file; without a selection everything known of them."""
    form = target.suffix.lower().removeprefix(".")
    if form not in ("parquet", "csv"):
        fail(f"{target} has no ending that says its form: write it as .parquet or .csv")
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with connection.of(context).client() as client, Progress(*columns, console=err(), transient=True) as bar:
        task = bar.add_task("profiles", total=None)

        def tell(progress: OperationProgress) -> None:
            bar.update(task, completed=progress.done, total=progress.total or None)

        made = client.exports.create(
            service=service,
            groups=group or (),
            attributes=attribute or (),
            properties=properties or (),
            everything=not (service or group or attribute or properties),
            attribute_key=attribute_key,
            segment=segment,
            format=cast("Literal['parquet', 'csv']", form),
            statuses=statuses,
            timeout=timedelta(hours=hours),
            on_progress=tell,
        )
        client.exports.download(made, target)
        if not keep:
            client.exports.delete(made.name)
    as_of = made.as_of_time.ToDatetime(UTC)
    say(f"{target}: {made.row_count:,} profiles of {len(made.columns) - 1} values, as of {as_of:%F %T} UTC")
    print_json({"file": str(target), "rows": made.row_count, "position": made.position, "as_of": as_of})


def moment(text: str) -> datetime:
    """An instant of ISO 8601; without a zone it is UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{text} is not an instant: write it as 2026-09-01T12:00:00Z")
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _role(counted: bool, decisive: bool) -> str:
    return "decides" if decisive else "counts" if counted else ""


def _as_object(found: Explanation) -> dict[str, object]:
    return {
        "value": found.reading.value,
        "status": str(found.reading.status),
        "as_of": found.as_of_time,
        "window_start": found.window_start,
        "position": found.position,
        "relevant": found.relevant,
        "counted": found.counted,
        "events": [
            {
                "event_id": each.event_id,
                "type": each.event_type,
                "occurred": each.occurred_time,
                "received": each.received_time,
                "term": each.term,
                "in_window": each.in_window,
                "counted": each.counted,
                "decisive": each.decisive,
            }
            for each in found.events
        ],
    }
