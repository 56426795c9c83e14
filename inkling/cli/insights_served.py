"""`inkling insights`, the commands that speak to the service: definitions, customers, dry runs, changes."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from inkling.cli import connection
from inkling.cli.console import existing, print_json, print_table, say
from inkling.client.insights import Dialect, InsightChange

Query = Annotated[str, typer.Argument(help="A query, or @FILE to read it from a file.")]
Insight = Annotated[str, typer.Argument(help="insights/{insight}, or its id.")]
Customer = Annotated[str, typer.Argument(help="The customer: the value of the attribute key.")]
Extended = Annotated[bool, typer.Option("--extended", help="Read the query in the extended dialect.")]


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the group."""
    app.command("create")(create)
    app.command("list")(list_)
    app.command("show")(show)
    app.command("activate")(activate)
    app.command("deactivate")(deactivate)
    app.command("delete")(delete)
    app.command("of")(of)
    app.command("evaluate")(evaluate)
    app.command("explain")(explain)
    app.command("plan")(plan)
    app.command("dry-run")(dry_run)
    app.command("watch")(watch)


def create(
    context: typer.Context,
    query: Query,
    insight_id: Annotated[str, typer.Option("--id", help="Its id; without one the service chooses.")] = "",
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    inactive: Annotated[bool, typer.Option("--inactive", help="Do not evaluate it yet.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Say what is wrong with it; create nothing.")] = False,
    extended: Extended = False,
) -> None:
    """Creates an insight, evaluated for all customers."""
    with connection.of(context).client() as client:
        made = client.insights.create(
            _text(query),
            insight_id=insight_id,
            dialect=_dialect(extended),
            active=not inactive,
            description=description,
            validate_only=check,
        )
    print_json(_plain(made))


def list_(context: typer.Context) -> None:
    """Lists the insights."""
    with connection.of(context).client() as client:
        rows = [
            (each.name, each.identifier, str(each.version), "yes" if each.active else "no", f"{each.applies_count:,}")
            for each in client.insights.list()
        ]
    print_table(("name", "identifier", "version", "active", "applies to"), rows)


def show(context: typer.Context, insight: Insight) -> None:
    """Shows an insight."""
    with connection.of(context).client() as client:
        print_json(_plain(client.insights.get(insight)))


def activate(context: typer.Context, insight: Insight) -> None:
    """Has an insight evaluated."""
    with connection.of(context).client() as client:
        print_json(_plain(client.insights.activate(insight)))


def deactivate(context: typer.Context, insight: Insight) -> None:
    """Has an insight evaluated no more."""
    with connection.of(context).client() as client:
        print_json(_plain(client.insights.deactivate(insight)))


def delete(
    context: typer.Context,
    insight: Annotated[str, typer.Argument(help="insights/{insight}, or its id.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Delete all insights of the project.")] = False,
) -> None:
    """Deletes an insight, or all of them."""
    if bool(insight) is every:
        raise typer.BadParameter("name an insight, or say --all")
    with connection.of(context).client() as client:
        if every:
            say(f"{client.insights.delete_all():,} insights deleted")
        else:
            client.insights.delete(insight)
            say(f"{insight} deleted")


def of(
    context: typer.Context,
    customer: Customer,
    key: Annotated[str, typer.Option(help="The attribute key; default customer_id.")] = "",
    applied: Annotated[bool, typer.Option("--applied", help="Only insights that apply.")] = False,
) -> None:
    """Shows what the active insights say of a customer."""
    with connection.of(context).client() as client:
        found = client.insights.of(customer, attribute_key=key, applied_only=applied)
    rows = [
        (each.insight, each.identifier, each.state, _time(each.since), _time(each.until), str(each.version))
        for each in found
    ]
    print_table(("insight", "identifier", "state", "since", "until", "version"), rows)


def evaluate(
    context: typer.Context,
    customer: Customer,
    query: Annotated[str, typer.Option(help="A query that is no insight, or @FILE.")] = "",
    insight: Annotated[list[str] | None, typer.Option(help="Only this insight; may be given again.")] = None,
    now: Annotated[datetime | None, typer.Option(help="The instant to evaluate at, UTC.")] = None,
    key: Annotated[str, typer.Option(help="The attribute key; default customer_id.")] = "",
    rows: Annotated[int, typer.Option(help="How many of the rows that WHERE keeps to show.")] = 0,
    extended: Extended = False,
) -> None:
    """Evaluates insights or a query about a customer at an instant; changes nothing."""
    with connection.of(context).client() as client:
        found = client.insights.evaluate(
            customer,
            now=None if now is None else _utc(now),
            insights=insight or (),
            query=_text(query),
            dialect=_dialect(extended),
            attribute_key=key,
            rows=rows,
        )
    print_json([_plain(each) for each in found])


def explain(
    context: typer.Context,
    insight: Insight,
    customer: Customer,
    rows: Annotated[int, typer.Option(help="How many of the rows that WHERE keeps to show.")] = 100,
) -> None:
    """Shows why an insight says what it says of a customer."""
    with connection.of(context).client() as client:
        print_json(_plain(client.insights.explain(insight, customer, rows=rows)))


def plan(context: typer.Context, query: Query, extended: Extended = False) -> None:
    """Shows how a query would be kept true, and what that costs."""
    with connection.of(context).client() as client:
        print_json(_plain(client.insights.plan(_text(query), dialect=_dialect(extended))))


def dry_run(
    context: typer.Context,
    query: Query,
    days: Annotated[int, typer.Option(help="Also at the end of each of so many last days.")] = 0,
    extended: Extended = False,
) -> None:
    """Shows how many customers a query applies to, before it is made an insight."""
    with connection.of(context).client() as client:
        found = client.insights.dry_run(_text(query), days=days, dialect=_dialect(extended))
    print_json(_plain(found))


def watch(
    context: typer.Context,
    insight: Annotated[list[str] | None, typer.Argument(help="Only these insights.")] = None,
    customer: Annotated[list[str] | None, typer.Option(help="Only this customer; may be given again.")] = None,
    resume: Annotated[str, typer.Option(help="Go on after this token.")] = "",
    present: Annotated[bool, typer.Option("--present", help="Begin with those they apply to now.")] = False,
    limit: Annotated[int, typer.Option(help="End after so many changes; 0: never.")] = 0,
) -> None:
    """Prints whom insights begin or cease to apply to, a line of JSON each."""
    with connection.of(context).client() as client:
        stream = client.insights.watch(
            insight or (), customers=customer or (), resume_token=resume, send_initial=present
        )
        for number, change in enumerate(stream, 1):
            print_json(_change(change))
            if number == limit:
                return


def _change(change: InsightChange) -> dict[str, Any]:
    return {
        "insight": change.insight,
        "customer": change.customer,
        "change": change.change,
        "at": _time(change.at),
        "position": change.position,
        "version": change.version,
        "resume_token": change.resume_token,
    }


def _text(query: str) -> str:
    return existing(Path(query[1:])).read_text("utf-8-sig") if query.startswith("@") else query


def _dialect(extended: bool) -> Dialect:
    return "extended" if extended else "strict"


def _time(instant: datetime | None) -> str:
    return "" if instant is None else instant.isoformat()


def _utc(instant: datetime) -> datetime:
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _plain(message: Message) -> Any:
    return MessageToDict(message, preserving_proto_field_name=True)
