"""`inkling rules`, the commands that speak to the service."""

import itertools
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from inkling.cli import connection
from inkling.cli.console import existing, out, print_json, print_table, say
from inkling.insights.v1 import rule_pb2
from inkling.values import instant

RuleName = Annotated[str, typer.Argument(help="rules/{rule}, or its id.")]


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the group."""
    app.command("import")(import_)
    app.command("export")(export)
    app.command("list")(list_)
    app.command("show")(show)
    app.command("on")(on)
    app.command("off")(off)
    app.command("delete")(delete)
    app.command("of")(of)
    app.command("statistics")(statistics)
    app.command("actions")(actions)
    app.command("back-test")(back_test)
    app.command("webhook-secret")(webhook_secret)


def import_(
    context: typer.Context,
    table: Annotated[Path, typer.Argument(help="The table: CSV with the twelve columns of the original.")],
    metric: Annotated[str, typer.Option(help="The metric of rows that name none. [default: the only one]")] = "",
    zone: Annotated[str, typer.Option(help="The zone of dates in rows that name none. [default: UTC]")] = "",
    check: Annotated[bool, typer.Option("--check", help="Say what is wrong with it; make nothing.")] = False,
    skip: Annotated[bool, typer.Option("--skip-bad-rows", help="Make the rules of the sound rows.")] = False,
) -> None:
    """Makes the rules of a table; the same table again changes nothing."""
    text = existing(table).read_text("utf-8-sig")
    with connection.of(context).client() as client:
        done = client.rules.import_table(text, metric=metric, zone=zone, validate_only=check, skip_bad_rows=skip)
    for each in done.problems:
        place = f"{table} line {each.line}" + (f", {each.column}" if each.column else "")
        say(f"{'warning: ' if each.warning else ''}{place}: {each.description} {each.hint}".rstrip())
    _table(done.rules)
    if any(not each.warning for each in done.problems):
        raise typer.Exit(1)


def export(context: typer.Context) -> None:
    """Prints the rules as a table."""
    with connection.of(context).client() as client:
        done = client.rules.export_table()
    out().out(done.table, end="")
    for each in done.left_out:
        say(f"{each} is left out: the table has no columns for all of it")


def list_(context: typer.Context) -> None:
    """Lists the rules."""
    with connection.of(context).client() as client:
        _table(list(client.rules.list()))


def show(context: typer.Context, rule: RuleName) -> None:
    """Prints a rule, as JSON."""
    with connection.of(context).client() as client:
        print_json(_plain(client.rules.get(rule)))


def on(context: typer.Context, rule: RuleName) -> None:
    """Switches a rule on, filled from the log."""
    with connection.of(context).client() as client:
        print_json(_plain(client.rules.activate(rule)))


def off(context: typer.Context, rule: RuleName) -> None:
    """Switches a rule off: what it had set is withdrawn, unless it is sticky."""
    with connection.of(context).client() as client:
        print_json(_plain(client.rules.activate(rule, active=False)))


def delete(context: typer.Context, rule: RuleName) -> None:
    """Deletes a rule and its state at once."""
    with connection.of(context).client() as client:
        client.rules.delete(rule)


def of(
    context: typer.Context,
    user: Annotated[str, typer.Argument(help="The user: the value of the user key.")],
    key: Annotated[str, typer.Option(help="The attribute key. [default: user_id]")] = "",
) -> None:
    """Shows what the rules say of a user."""
    with connection.of(context).client() as client:
        found = client.rules.results(user, user_key=key)
    rows = [
        [each.rule.removeprefix("rules/"), each.holds, each.count, each.sum, each.hit_count, each.property_set]
        for each in found.results
    ]
    print_table(["rule", "holds", "count", "sum", "hits", "property set"], rows)


def statistics(context: typer.Context, rule: RuleName) -> None:
    """Prints what a rule has done, as JSON."""
    with connection.of(context).client() as client:
        print_json(_plain(client.rules.statistics(rule)))


def actions(
    context: typer.Context,
    rule: Annotated[str, typer.Argument(help="Only this rule's.")] = "",
    limit: Annotated[int, typer.Option(help="How many at most.")] = 50,
) -> None:
    """Lists what rules asked for, the newest first, and what became of it."""
    with connection.of(context).client() as client:
        found = list(itertools.islice(client.rules.actions(rule), limit))
    rows = [
        [
            instant(each.create_time),
            each.rule.removeprefix("rules/"),
            each.user,
            each.effect,
            each.action_name,
            rule_pb2.RuleActionState.Name(each.state).removeprefix("RULE_ACTION_STATE_").lower(),
            each.reason,
        ]
        for each in found
    ]
    print_table(["asked", "rule", "user", "action", "name", "state", "reason"], rows)


def back_test(
    context: typer.Context,
    rule: RuleName,
    days: Annotated[int, typer.Option(help="How many days back.")] = 30,
    hits: Annotated[int, typer.Option(help="How many hits to show.")] = 20,
) -> None:
    """Says whom a rule would have hit over the last days."""
    with connection.of(context).client() as client:
        found = client.rules.back_test(rule, days=days, max_hits=hits)
    print_table(["when", "user", "count", "sum"], [[instant(h.event_time), h.user, h.count, h.sum] for h in found.hits])
    if found.HasField("complete_since_time"):
        say(f"the log was trimmed: events before {instant(found.complete_since_time)} are lacking")
    say(f"{found.hit_count:,} hits of {found.user_count:,} users; it holds for {found.holding_count:,} at the end")


def webhook_secret(context: typer.Context) -> None:
    """Prints what the project's webhooks are signed with."""
    with connection.of(context).client() as client:
        out().out(client.rules.webhook_secret())


def _table(rules: Any) -> None:
    rows = [
        [each.name.removeprefix("rules/"), each.version, each.active, each.event_name, each.action_name]
        for each in rules
    ]
    print_table(["rule", "version", "active", "event", "fires or sets"], rows)


def _plain(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)
