"""`inkling dead-letters`: what was refused."""

import itertools
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToDict

from inkling.cli import connection
from inkling.cli.console import fail, out, print_json, print_table
from inkling.ingest.v1.error_reason_pb2 import ErrorReason
from inkling.values import instant

app = typer.Typer(no_args_is_help=True, help="Looks after refused events.")

Names = Annotated[list[str] | None, typer.Argument(help="Dead letters, by name or id.", metavar="[NAME...]")]
Reason = Annotated[str, typer.Option(help="Only those of this reason, such as BAD_KEY.")]


@app.command("list")
def list_all(
    context: typer.Context,
    reason: Reason = "",
    limit: Annotated[int, typer.Option(help="How many at most.")] = 50,
) -> None:
    """Lists dead letters, newest first."""
    with connection.of(context).client() as client:
        try:
            letters = list(itertools.islice(client.dead_letters.list(reason=reason), limit))
        except ValueError as error:
            fail(str(error))
    rows = [
        [
            each.name.removeprefix("deadLetters/"),
            instant(each.create_time),
            ErrorReason.Name(each.reason).removeprefix("ERROR_REASON_"),
            each.field,
            each.message,
        ]
        for each in letters
    ]
    print_table(["id", "refused", "reason", "field", "message"], rows)


@app.command("get")
def get(context: typer.Context, name: Annotated[str, typer.Argument(help="The dead letter.")]) -> None:
    """Prints one with its payload, as JSON."""
    with connection.of(context).client() as client:
        print_json(MessageToDict(client.dead_letters.get(name), preserving_proto_field_name=True))


@app.command("replay")
def replay(context: typer.Context, names: Names = None, reason: Reason = "") -> None:
    """Sends dead letters again as they are; those accepted are removed."""
    if not names and not reason:
        fail("say which: names, or --reason")
    with connection.of(context).client() as client:
        result = client.dead_letters.replay(names or (), reason=reason)
    out().print(f"{result.accepted_count:,} accepted, {len(result.rejected):,} refused again")
    if result.rejected:
        raise typer.Exit(1)


@app.command("purge")
def purge(
    context: typer.Context,
    names: Names = None,
    everything: Annotated[bool, typer.Option("--all", help="All of the project.")] = False,
) -> None:
    """Deletes dead letters for good."""
    if bool(names) == everything:
        fail("say which: names, or --all")
    with connection.of(context).client() as client:
        out().print(f"{client.dead_letters.purge(names or (), everything=everything):,} deleted")
