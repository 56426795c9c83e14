"""`inkling profile`: what is known of a key, now."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from inkling.cli import connection
from inkling.cli.console import fail, out, print_json, print_table, say
from inkling.client import Profile

app = typer.Typer(no_args_is_help=True, help="Reads and watches profiles.")

Service = Annotated[str, typer.Option("--service", help="The feature service to read.")]
Groups = Annotated[list[str] | None, typer.Option("--group", help="A group, or group/version. Repeatable.")]
Attributes = Annotated[list[str] | None, typer.Option("--attribute", help="group:attribute. Repeatable.")]
AttributeKey = Annotated[str, typer.Option("--key", help="The attribute key; needed when the project has several.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, also on a terminal.")]


@app.command("get")
def get(
    context: typer.Context,
    keys: Annotated[list[str], typer.Argument(help="Key values.", metavar="KEY...")],
    service: Service = "",
    group: Groups = None,
    attribute: Attributes = None,
    attribute_key: AttributeKey = "",
    min_position: Annotated[int, typer.Option(help="Answer once this position of the log is applied.")] = 0,
    as_json: Json = False,
) -> None:
    """Reads profiles: a table on a terminal, else JSON lines with values and statuses.

    Without a selection: everything known of the attribute key.
    """
    with connection.of(context).client() as client:
        for found in client.profiles.batch_get(
            keys,
            service=service,
            groups=group or (),
            attributes=attribute or (),
            everything=not (service or group or attribute),
            attribute_key=attribute_key,
            min_position=min_position,
        ):
            show(found, as_json)


@app.command("watch")
def watch(
    context: typer.Context,
    keys: Annotated[list[str] | None, typer.Argument(help="Key values; none: all.", metavar="[KEY...]")] = None,
    service: Service = "",
    group: Groups = None,
    attribute: Attributes = None,
    attribute_key: AttributeKey = "",
    resume_token: Annotated[str, typer.Option(help="Go on after what an earlier run has shown.")] = "",
    interval: Annotated[float, typer.Option(help="Changes closer together (seconds) come as one.")] = 0.1,
    as_json: Json = False,
) -> None:
    """Shows profiles as they change, by events or by time alone, until interrupted.

    Without a selection: everything known of the attribute key.
    """
    with connection.of(context).client() as client:
        for changes in client.profiles.watch(
            keys or (),
            service=service,
            groups=group or (),
            attributes=attribute or (),
            everything=not (service or group or attribute),
            attribute_key=attribute_key,
            resume_token=resume_token,
            min_interval=timedelta(seconds=interval),
            send_initial=bool(keys),
        ):
            for found in changes.profiles:
                show(found, as_json)
            sys.stdout.flush()


@app.command("erase")
def erase(
    context: typer.Context,
    subject: Annotated[str, typer.Argument(help="Whom: user_id=4711.", metavar="KEY=VALUE")],
    receipt: Annotated[Path | None, typer.Option(help="Write the receipt to this file, as JSON.")] = None,
    request_id: Annotated[str, typer.Option(help="The same again gives the same receipt.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erases what the suite holds of a key value: events, state, snapshots, dead letters. There is no way back."""
    key, _, value = subject.partition("=")
    if not key or not value:
        fail("say whom to erase: KEY=VALUE, such as user_id=4711")
    if not yes:
        typer.confirm(f"Erase everything of {subject}? There is no way back", abort=True)
    with connection.of(context).client() as client:
        done = client.subjects.erase(key, value, request_id=request_id)
    if receipt is not None:
        receipt.write_text(done.content_json + "\n", encoding="utf-8")
    print_table([f"erased ({done.name})", "count"], [[store, count] for store, count in done.stores.items()])
    out().print(f"position {done.position}, receipt sha256:{done.digest}")
    for note in (*done.notes, *done.files):
        say(note)


def show(profile: Profile, as_json: bool) -> None:
    """Prints a profile."""
    if as_json or not sys.stdout.isatty():
        print_json(
            {
                profile.attribute_key: profile.key_value,
                **profile.values,
                **(
                    {"$properties": {n: each.value for n, each in profile.properties.items()}}
                    if profile.properties
                    else {}
                ),
                **({"$rollups": {n: each.value for n, each in profile.rollups.items()}} if profile.rollups else {}),
                **({"$segments": list(profile.segments)} if profile.segments else {}),
                "$status": {name: str(status) for name, status in profile.statuses.items()},
                "$position": profile.position,
                "$as_of": profile.as_of_time,
            }
        )
        return
    print_table(
        [f"{profile.attribute_key} {profile.key_value}", "value", "status", "last event"],
        [
            *([name, each.value, str(each.status), each.last_event_time] for name, each in profile.readings.items()),
            *(
                [f"{name} (set by {each.source or 'nobody'})", each.value, str(each.status), each.event_time]
                for name, each in profile.properties.items()
            ),
            *(
                [f"{name} (roll-up)", each.value, str(each.status), each.last_event_time]
                for name, each in profile.rollups.items()
            ),
            *([["in segments", ", ".join(profile.segments), "", None]] if profile.segments else []),
        ],
    )
