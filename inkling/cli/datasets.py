"""`inkling datasets`: training sets, computed from the archive and downloaded as Parquet."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from inkling.cli import connection
from inkling.cli.console import err, existing, fail, print_json, print_table, read_json, say
from inkling.client.datasets import read_spec
from inkling.client.operations import Progress as OperationProgress
from inkling.features.v1.dataset_pb2 import Dataset, DatasetState
from inkling.values import instant

app = typer.Typer(no_args_is_help=True, help="Computes training sets: the values that serving would have answered.")

Name = Annotated[str, typer.Argument(help="datasets/{dataset}, or its id.")]
Out = Annotated[Path, typer.Option(help="The folder for the files.")]


@app.command("create")
def create(
    context: typer.Context,
    spec: Annotated[Path, typer.Argument(help="A specification as JSON, or a manifest to compute again.")],
    out: Annotated[Path | None, typer.Option(help="Also download the files into this folder.")] = None,
    rows: Annotated[Path | None, typer.Option(help="A table (CSV or Parquet) of the rows to compute.")] = None,
    instant_column: Annotated[str, typer.Option(help="The column of the rows' instants.")] = "as_of",
    check: Annotated[bool, typer.Option("--check", help="Say what is wrong with it; compute nothing.")] = False,
    hours: Annotated[float, typer.Option(help="How long to wait for it.")] = 24.0,
) -> None:
    """Computes a training set and waits until it is there."""
    try:
        message = read_spec(read_json(spec))
    except ValueError as error:
        fail(f"{spec} is not a specification: {error}")
    with connection.of(context).client() as client:
        if rows is not None:
            key = message.attribute_key or fail("say the attribute_key in the specification: it is the rows' column")
            uploaded = client.datasets.upload_rows(existing(rows), key_column=key, instant_column=instant_column)
            message.moments.rows.input = uploaded.input
        if check:
            client.datasets.check(message)
            say("nothing is wrong with it")
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
        with Progress(*columns, console=err(), transient=True) as bar:
            task = bar.add_task("planning", total=None)

            def show(progress: OperationProgress) -> None:
                bar.update(task, description=progress.stage, completed=progress.done, total=progress.total or None)

            dataset = client.datasets.create(message, timeout=timedelta(hours=hours), on_progress=show)
        if out is not None:
            client.datasets.download(dataset.name, out)
    say(f"{dataset.name}: {dataset.row_count:,} rows" + (f" in {out}" if out else ""))
    print_json(summary(dataset))


@app.command("list")
def list_all(context: typer.Context) -> None:
    """Lists training sets, the newest first."""
    with connection.of(context).client() as client:
        found = list(client.datasets.list())
    rows = [
        [
            each.name,
            DatasetState.Name(each.state).removeprefix("DATASET_STATE_").lower(),
            each.row_count,
            sum(file.size_bytes for file in each.files),
            instant(each.create_time),
        ]
        for each in found
    ]
    print_table(["dataset", "state", "rows", "bytes", "created"], rows)


@app.command("show")
def show(context: typer.Context, name: Name) -> None:
    """Prints what is known of a training set, as JSON."""
    with connection.of(context).client() as client:
        print_json(MessageToDict(client.datasets.get(name), preserving_proto_field_name=True))


@app.command("download")
def download(context: typer.Context, name: Name, out: Out) -> None:
    """Downloads the files of a training set, and checks them against their checksums."""
    with connection.of(context).client() as client:
        paths = client.datasets.download(name, out)
    say(f"{out}: {len(paths)} files")


@app.command("delete")
def delete(context: typer.Context, name: Name) -> None:
    """Deletes a training set with its files."""
    with connection.of(context).client() as client:
        client.datasets.delete(name)
    say(f"{name} deleted")


@app.command("cancel")
def cancel(context: typer.Context, name: Name) -> None:
    """Ends the computation of a training set."""
    with connection.of(context).client() as client:
        client.datasets.cancel(name)
    say(f"{name} is being cancelled")


def summary(dataset: Dataset) -> dict[str, Any]:
    """What one wants to know first."""
    labels = dataset.label_counts
    return {
        "name": dataset.name,
        "rows": dataset.row_count,
        "files": [file.name for file in dataset.files],
        "left_out": dict(sorted(dataset.left_out_counts.items())),
        **(
            {"goal": {"true": labels.true_count, "false": labels.false_count, "unknown": labels.unknown_count}}
            if dataset.HasField("label_counts")
            else {}
        ),
    }
