"""`inkling collections`: declared schemas."""

from typing import Annotated

import typer
from google.protobuf.json_format import MessageToDict

from inkling.cli import connection
from inkling.cli.console import print_json, print_table
from inkling.ingest.v1.collection_pb2 import FieldType, Strictness

app = typer.Typer(no_args_is_help=True, help="Declares what events look like.")


@app.command("list")
def list_all(context: typer.Context) -> None:
    """Lists the project's collections."""
    with connection.of(context).client() as client:
        found = client.collections.list()
    rows = [
        [
            each.name.removeprefix("collections/"),
            each.event_type.name,
            ", ".join(
                f"{field.name}: {FieldType.Name(field.type).removeprefix('FIELD_TYPE_').lower()}"
                for field in each.fields
            ),
            Strictness.Name(each.strictness).removeprefix("STRICTNESS_").lower(),
        ]
        for each in found
    ]
    print_table(["collection", "event", "fields", "strictness"], rows)


@app.command("get")
def get(context: typer.Context, name: Annotated[str, typer.Argument(help="The collection.")]) -> None:
    """Prints one as JSON."""
    with connection.of(context).client() as client:
        print_json(MessageToDict(client.collections.get(name), preserving_proto_field_name=True))
