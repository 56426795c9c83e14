"""`inkling definitions`: attribute groups and services, from Signals JSON documents."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from inkling.cli import connection
from inkling.cli.console import cell, err, out, print_json, print_table, read_json, say
from inkling.client.definitions import Plan
from inkling.client.operations import Progress as OperationProgress
from inkling.features.v1.attribute_group_pb2 import GroupState

app = typer.Typer(no_args_is_help=True, help="Plans, publishes and reads attribute groups and feature services.")

File = Annotated[Path, typer.Argument(help="A Signals JSON document: a group or a service.")]


@app.command("plan")
def plan(
    context: typer.Context,
    file: File,
    sample: Annotated[int, typer.Option(help="How many profiles to sample.")] = 5,
    key: Annotated[list[str] | None, typer.Option(help="A profile to sample besides. Repeatable.")] = None,
) -> None:
    """Says what publishing a group would do: mistakes with hints, changes, old and new values. Changes nothing."""
    document = read_json(file)
    with connection.of(context).client() as client:
        show_plan(client.definitions.plan(document, sample_size=sample, key_values=key or ()))


@app.command("apply")
def apply(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="Signals JSON documents: groups before the services.")],
    publish: Annotated[bool, typer.Option("--publish", help="Publish groups, filling them from the log.")] = False,
) -> None:
    """Stores definitions, and publishes groups with --publish. A published version is immutable."""
    documents = [read_json(file) for file in files]
    # A service names groups, which must be there before it.
    documents.sort(key=lambda document: "attributes" not in document)
    with connection.of(context).client() as client:
        for document in documents:
            with Progress(
                *(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()), console=err(), transient=True
            ) as bar:
                task = bar.add_task(str(document.get("name", "")), total=None)

                def show(progress: OperationProgress, bar: Progress = bar, task: Any = task) -> None:
                    bar.update(task, completed=progress.done, total=progress.total or None)

                applied = client.definitions.apply(document, publish=publish, on_progress=show)
            out().print(f"{applied.name} {'published' if applied.published else 'stored'}")
    say(f"{len(documents)} objects applied")


@app.command("list")
def list_all(context: typer.Context) -> None:
    """Lists groups and services."""
    with connection.of(context).client() as client:
        groups = client.definitions.list_groups()
        services = client.definitions.list_services()
    rows = [
        [
            group.name,
            group.attribute_key,
            len(group.attributes),
            GroupState.Name(group.state).removeprefix("GROUP_STATE_").lower(),
            group.owner,
        ]
        for group in groups
    ]
    print_table(["group", "key", "attributes", "state", "owner"], rows)
    print_table(
        ["service", "groups", "owner"],
        [[each.name, ", ".join(each.attribute_groups), each.owner] for each in services],
    )


@app.command("export")
def export(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="attributeGroups/{group}/versions/{version} or featureServices/{name}")],
) -> None:
    """Prints a definition as a Signals JSON document."""
    with connection.of(context).client() as client:
        print_json(client.definitions.export(name))


def show_plan(plan: Plan) -> None:
    """Prints a plan; with mistakes it ends the command in code 1."""
    for problem in plan.problems:
        say(str(problem))
    if plan.problems:
        raise typer.Exit(1)
    print_table(["attribute", "change"], [[name, change.lower()] for name, change in plan.changes.items()])
    for sample in plan.samples:
        out().print()
        names = list(dict.fromkeys([*sample.old, *sample.new]))
        rows = []
        for name in names:
            old, new = sample.old.get(name), sample.new.get(name)
            rows.append([name, old.value if old else None, new.value if new else None])
        print_table([cell(sample.key_value), "now", "then"], rows)
