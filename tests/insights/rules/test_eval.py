"""`inkling rules eval`: files in, actions out."""

import gzip
from pathlib import Path

import pytest
from typer.testing import CliRunner

from inkling.cli import make_app

from .offline_runs import HEADER, START_MS, Offline, as_csv, count, event, rule

TWICE = [count("equal", 2, resetwhenreachtarget="yes")]


def test_the_fields_are_stable_and_ordered_by_instant(offline: Offline) -> None:
    table = [*TWICE, rule(operator_v="greater", target_v="1.5")]
    lines = [
        event(START_MS + 5, "b", metrics={"m": 2}),
        event(START_MS, "a", metrics={"m": 1}),
        event(START_MS + 1, "a", metrics={"m": 0.75}),
    ]
    assert offline.run(table, lines).stdout.splitlines() == [
        '{"instant": "2021-02-01T00:00:00.001000Z", "rule": "aggregator_buy", "user": "a", "action": "fire_event", '
        '"name": "trk_buy", "value": null, "count": 2, "sum": null}',
        '{"instant": "2021-02-01T00:00:00.001000Z", "rule": "aggregator_buy_2", "user": "a", "action": "set_property", '
        '"name": "buy", "value": "ready", "count": 2, "sum": 1.75}',
        '{"instant": "2021-02-01T00:00:00.005000Z", "rule": "aggregator_buy_2", "user": "b", "action": "set_property", '
        '"name": "buy", "value": "ready", "count": 1, "sum": 2}',
    ]


@pytest.mark.parametrize(
    "header",
    [
        "event_type,event_timestamp,user_id",
        "event_name,occurred_at,User ID",
        "EventType,timestamp,endpoint.User.UserId",
        "event,event_time,endpoint_user_user_id",
    ],
)
def test_columns_are_known_by_several_names(offline: Offline, header: str) -> None:
    lines = f"{header}\nbuy,{START_MS},u\nbuy,2021-02-01T01:00:01+01:00,u\n"
    assert offline.names(TWICE, lines) == [("fire_event", "trk_buy")]


def test_pinpoint_endpoints_and_single_columns_are_read(offline: Offline) -> None:
    table = [rule(attributename="course", attributevalue="C++", operator_v="greater_or_equal", target_v="3")]
    lines = [
        {
            "event_type": "buy",
            "event_timestamp": str(START_MS + i),
            "endpoint": '{"Id": "x", "User": {"UserId": "u"}}',
            "attributes.course": "C++",
            "metrics.minutes": "1.5",
            "session.session_id": "s",
        }
        for i in range(2)
    ]
    (action,) = offline.actions(table, lines)
    assert (action["name"], action["sum"], action["user"]) == ("buy_C++", 3, "u")


def test_any_other_column_is_an_attribute_and_a_metric(offline: Offline) -> None:
    table = [
        rule(attributename="size", attributevalue="3", operator_v="equal", target_v="6", metric="size"),
        rule(operator_v="equal", target_v="6", id="unnamed"),
    ]
    lines = [{**event(START_MS + i), "size": "3"} for i in range(2)]
    assert offline.names(table, lines) == [("set_property", "buy_3"), ("set_property", "buy")]


def test_without_a_name_the_metric_must_be_the_only_one(offline: Offline) -> None:
    table = [rule(operator_v="greater", target_v="0")]
    lines = [event(START_MS, metrics={"a": 1, "b": 2}), event(START_MS + 1, metrics={"b": 4})]
    (action,) = offline.actions(table, lines)
    assert (action["count"], action["sum"]) == (1, 4)
    (action,) = offline.actions(table, lines, "--metric", "b")
    assert (action["instant"], action["sum"]) == ("2021-02-01T00:00:00Z", 2)


def test_no_order_of_the_lines_changes_a_byte(offline: Offline) -> None:
    table = [*TWICE, count("equal", 3), rule(operator_v="every", target_v="2")]
    lines = [event(START_MS + i % 7, f"u{i % 3}", event_id=f"e{i}", metrics={"m": 0.7}) for i in range(40)]
    whole = offline.run(table, lines).stdout
    assert len(whole.splitlines()) > 20
    assert offline.run(table, lines[::-1]).stdout == whole
    assert offline.run(table, [*lines[20:], *lines[:30]]).stdout == whole


def test_lines_that_cannot_be_read_are_told_and_left_out(offline: Offline) -> None:
    lines = "event_type,event_timestamp,user_id,attributes\n" + "\n".join(
        [
            f"buy,{START_MS},u,",
            "buy,yesterday,u,",
            ",1,u,",
            "buy,,u,",
            "buy,1,u,[1]",
            "buy,1,u,,more",
            f"buy,{START_MS},u,",
        ]
    )
    done = offline.run(TWICE, lines)
    assert (done.exit_code, done.stdout.count("\n")) == (1, 1)
    for text in (
        "line 3, event_timestamp: is not a time",
        "line 4: has no event type",
        "line 5: has no time",
        "line 6, attributes: is not a JSON object",
        "line 7: has 5 cells, the header 4",
        "1 rules, 7 events: 0 repeated, 0 of nobody, 5 left out",
    ):
        assert text in done.stderr


@pytest.mark.parametrize(
    ("table", "events", "message"),
    [
        ("a,b\n", "event_type,event_timestamp\n", "rules.csv has an unknown column 'a'"),
        (HEADER, "event_type,user_id\n", "events.csv has no column event_timestamp or occurred_at"),
        (HEADER, "", "events.csv has no column event_type"),
    ],
)
def test_a_file_of_another_kind_ends_the_command(offline: Offline, table: str, events: str, message: str) -> None:
    done = offline.run(table, events)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_files_may_be_zipped(tmp_path: Path) -> None:
    (tmp_path / "rules.csv").write_bytes(gzip.compress(as_csv(TWICE).encode("utf-8-sig")))
    (tmp_path / "events.csv").write_bytes(gzip.compress(as_csv([event(1), event(2)]).encode()))
    files = ["--table", str(tmp_path / "rules.csv"), "--events", str(tmp_path / "events.csv")]
    done = CliRunner().invoke(make_app(), ["rules", "eval", *files])
    assert (done.exit_code, done.stdout.count("\n")) == (0, 1)
