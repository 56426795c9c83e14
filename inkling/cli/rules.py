"""`inkling rules`: rules on counts and sums, and what they do."""

from pathlib import Path
from typing import Annotated

import typer

from inkling.cli import rules_served
from inkling.cli.console import existing, fail, print_json, say
from inkling.cli.local import needing

app = typer.Typer(no_args_is_help=True, help="Rules on counts and sums of events.")
rules_served.add_to(app)

SHOWN_PROBLEMS = 20


@app.command("eval")
def evaluate(
    table: Annotated[Path, typer.Option(help="The table of rules: CSV with the twelve columns of the original.")],
    events: Annotated[Path, typer.Option(help="The events: CSV, with the names of Pinpoint or ours.")],
    metric: Annotated[str, typer.Option(help="The metric of rows that name none. [default: the only one]")] = "",
    zone: Annotated[str, typer.Option(help="The zone of dates in rows that name none.")] = "UTC",
    as_they_came: Annotated[
        bool,
        typer.Option(help="Take the events as they stand in the file: late ones then fire nothing for the past."),
    ] = False,
) -> None:
    """Prints the actions that a table of rules asks for, one JSON object a line, ordered by instant.

    Each has `instant`, `rule`, `user`, `action` (`fire_event`, `set_property`, `unset_property`), `name`, `value`,
    `count` and `sum`. Rows and lines with mistakes are told on stderr and left out; the code is then 1.
    """
    with needing("insights"):
        from services.insights.rules import offline
        from services.insights.rules.definitions import DEFAULT_USER_KEY
        from services.insights.rules.events_cells import EventsError
        from services.insights.rules.events_csv import EventsReader
        from services.insights.rules.table import TableError, read_table

    try:
        read = read_table(read_text(table), metric, zone)
    except TableError as error:
        fail(f"{table} {error}")
    for problem in read.problems:
        say(f"{'warning: ' if problem.is_warning else ''}{table} {problem}")
    try:
        reader = EventsReader(read_text(events), DEFAULT_USER_KEY)
    except EventsError as error:
        fail(f"{events} {error}")
    lines = list(reader.events())
    if not as_they_came:
        lines.sort(key=lambda event: event[:2])
    actions = offline.evaluate(read.rules, lines, DEFAULT_USER_KEY)
    for action in sorted(actions, key=lambda action: (action.at_us, action.user, action.rule_id)):
        print_json(offline.as_json(action))
    for wrong in reader.problems[:SHOWN_PROBLEMS]:
        say(f"{events} {wrong}")
    if len(reader.problems) > SHOWN_PROBLEMS:
        say(f"{events}: {len(reader.problems) - SHOWN_PROBLEMS} lines more")
    say(
        f"{len(read.rules)} rules, {reader.lines} events: {reader.duplicates} repeated, {reader.anonymous} of nobody, "
        f"{len(reader.problems)} left out"
    )
    if read.errors or reader.problems:
        raise typer.Exit(1)


def read_text(path: Path) -> str:
    """The text of a file, plain or gzip; else a message and the end."""
    import gzip

    data = existing(path).read_bytes()
    try:
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError):
        fail(f"{path} is no UTF-8 text")
