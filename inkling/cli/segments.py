"""`inkling segments`: who meets a named condition, now and as it changes."""

import itertools
import sys
from typing import Annotated

import typer

from inkling.cli import connection
from inkling.cli.console import err, out, print_json, print_table
from inkling.client.segments import Segment

app = typer.Typer(no_args_is_help=True, help="Defines segments of profiles, and tells who is in them.")

Id = Annotated[str, typer.Argument(help="The segment's id.", metavar="SEGMENT")]
Condition = Annotated[str, typer.Argument(help="Such as: plan = 'pro' and last_seen > now - 7 days.")]
Key = Annotated[str, typer.Option("--key", help="The attribute key of the profiles, such as user_id.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, also on a terminal.")]


@app.command("create")
def create(
    context: typer.Context,
    segment: Id,
    condition: Condition,
    key: Key,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    owner: Annotated[str, typer.Option(help="Who owns it.")] = "",
) -> None:
    """Creates a segment and says how many are in it."""
    with connection.of(context).client() as client:
        made = client.segments.create(segment, condition, attribute_key=key, description=description, owner=owner)
    out().print(f"{made.name}: {made.size:,} members, {made.state.lower()}", highlight=False)


@app.command("update")
def update(
    context: typer.Context,
    segment: Id,
    condition: Annotated[str | None, typer.Option(help="The new condition.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    owner: Annotated[str | None, typer.Option(help="Who owns it.")] = None,
) -> None:
    """Changes a segment; by a new condition profiles enter and leave."""
    with connection.of(context).client() as client:
        changed = client.segments.update(segment, condition=condition, description=description, owner=owner)
    out().print(f"{changed.name}: {changed.size:,} members, {changed.state.lower()}", highlight=False)


@app.command("list")
def list_all(context: typer.Context) -> None:
    """Lists segments with their sizes."""
    with connection.of(context).client() as client:
        rows = [_row(each) for each in client.segments.list()]
    print_table(["segment", "of", "members", "state", "condition"], rows)


def _row(segment: Segment) -> list[object]:
    name, state = segment.name.removeprefix("segments/"), segment.state.lower()
    return [name, segment.attribute_key, segment.size, state, segment.condition]


@app.command("preview")
def preview(
    context: typer.Context,
    condition: Condition,
    key: Key,
    sample: Annotated[int, typer.Option(help="How many members to show.", min=1, max=100)] = 10,
) -> None:
    """Says how many would be in a segment and shows some; or every mistake of the condition."""
    with connection.of(context).client() as client:
        found = client.segments.preview(condition, attribute_key=key, sample_size=sample)
    for mistake in found.mistakes:
        err().print(str(mistake), highlight=False, markup=False)
    if found.mistakes:
        raise typer.Exit(2)
    out().print(f"{found.size:,} of {found.profiles:,} profiles", highlight=False)
    for key_value in found.sample:
        out().print(key_value, highlight=False, markup=False)


@app.command("members")
def members(
    context: typer.Context,
    segment: Id,
    limit: Annotated[int, typer.Option(help="How many at most; 0: all.")] = 0,
    as_json: Json = False,
) -> None:
    """Lists the members, by key value: one a line, with since when."""
    with connection.of(context).client() as client:
        for each in itertools.islice(client.segments.members(segment), limit or None):
            _show(each.key_value, "member", each.since, as_json)


@app.command("check")
def check(
    context: typer.Context,
    segment: Id,
    keys: Annotated[list[str], typer.Argument(help="Key values.", metavar="KEY...")],
    min_position: Annotated[int, typer.Option(help="Answer once this position of the log is applied.")] = 0,
    as_json: Json = False,
) -> None:
    """Says whether profiles are in a segment."""
    with connection.of(context).client() as client:
        found = client.segments.check(segment, keys, min_position=min_position)
    if as_json or not sys.stdout.isatty():
        for key_value, member in found.items():
            print_json({"key_value": key_value, "member": member})
    else:
        print_table(["key", "member"], [[key_value, member] for key_value, member in found.items()])


@app.command("watch")
def watch(
    context: typer.Context,
    segment: Id,
    keys: Annotated[list[str] | None, typer.Argument(help="Key values; none: all.", metavar="[KEY...]")] = None,
    resume_token: Annotated[str, typer.Option(help="Go on after what an earlier run has shown.")] = "",
    initial: Annotated[bool, typer.Option("--initial", help="Begin with the present members.")] = False,
    as_json: Json = False,
) -> None:
    """Shows who enters and leaves, by events or by time alone, until interrupted."""
    with connection.of(context).client() as client:
        for changes in client.segments.watch(segment, keys or (), resume_token=resume_token, send_initial=initial):
            for each in changes.changes:
                _show(each.key_value, each.change.lower(), each.time, as_json)
            if changes.resume_token and (as_json or not sys.stdout.isatty()):
                print_json({"resume_token": changes.resume_token})
            sys.stdout.flush()


@app.command("delete")
def delete(context: typer.Context, segment: Id) -> None:
    """Deletes a segment."""
    with connection.of(context).client() as client:
        client.segments.delete(segment)


def _show(key_value: str, what: str, when: object, as_json: bool) -> None:
    if as_json or not sys.stdout.isatty():
        print_json({"key_value": key_value, "change": what, "time": when})
    else:
        out().print(f"{when}  {what:8}  {key_value}", highlight=False, markup=False)
