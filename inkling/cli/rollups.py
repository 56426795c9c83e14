"""`inkling rollups`: values of users at their account."""

from typing import Annotated, Any

import typer

from inkling.cli import connection
from inkling.cli.console import fail, out, print_table
from inkling.features.v1.rollup_service_pb2 import RollupFunction

app = typer.Typer(no_args_is_help=True, help="Declares values computed over the profiles that refer to one.")

Key = Annotated[str, typer.Option("--key", help="The attribute key of the profiles that have it, such as account_id.")]


@app.command("declare")
def declare(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The roll-up.")],
    key: Key,
    reference: Annotated[str, typer.Option(help="The property that refers, such as user_id:account.")],
    function: Annotated[str, typer.Option(help="sum, min, max, mean, count or count_distinct.")],
    attribute: Annotated[str, typer.Option(help="GROUP:ATTRIBUTE or properties.NAME; none: count profiles.")] = "",
    description: Annotated[str, typer.Option(help="What it says.")] = "",
) -> None:
    """Declares a roll-up."""
    known: Any = function
    if f"ROLLUP_FUNCTION_{function.upper()}" not in RollupFunction.keys():  # noqa: SIM118  (an enum, no mapping)
        fail("the function is sum, min, max, mean, count or count_distinct")
    with connection.of(context).client() as client:
        declared = client.properties.declare_rollup(
            name, known, attribute_key=key, reference=reference, attribute=attribute, description=description
        )
    out().print(declared.name)


@app.command("list")
def list_all(
    context: typer.Context, key: Annotated[str, typer.Option("--key", help="Only of this attribute key.")] = ""
) -> None:
    """Lists the declared roll-ups."""
    with connection.of(context).client() as client:
        found = client.properties.list_rollups(key)
    rows = [
        [
            each.name.split("/")[1],
            each.name.split("/")[3],
            RollupFunction.Name(each.function).removeprefix("ROLLUP_FUNCTION_").lower(),
            each.attribute,
            each.reference,
            each.description,
        ]
        for each in found
    ]
    print_table(["key", "roll-up", "function", "of", "reference", "description"], rows)


@app.command("delete")
def delete(context: typer.Context, name: Annotated[str, typer.Argument(help="The roll-up.")], key: Key) -> None:
    """Deletes a roll-up."""
    with connection.of(context).client() as client:
        client.properties.delete_rollup(name, attribute_key=key)
