"""`inkling features eval` over Snowplow's CSV files, offline."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from inkling.cli import make_app

HEADER = "APP_ID,EVENT_ID,EVENT_VENDOR,EVENT_NAME,EVENT_VERSION,DERIVED_TSTAMP,COLLECTOR_TSTAMP,DOMAIN_USERID"


def attribute(name: str, aggregation: str, kind: str = "int32", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, "aggregation": aggregation, "events": [{"name": "view"}], **more}


def atomic(name: str) -> dict[str, Any]:
    return {"type": "atomic", "name": name}


def group(*attributes: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "web",
        "version": 1,
        "owner": "me@example.org",
        "attribute_key": {"name": "domain_userid"},
        "attributes": list(attributes),
    }


class Evaluation:
    """Runs the command over files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, document: Any, events: bytes, as_of: str, *more: str) -> Result:
        definition = self.folder / "group.json"
        definition.write_text(document if isinstance(document, str) else json.dumps(document))
        (self.folder / "events.csv").write_bytes(events)
        files = ["--group", str(definition), "--events", str(self.folder / "events.csv")]
        return CliRunner().invoke(make_app(), ["features", "eval", *files, "--as-of", as_of, *more])

    def values(self, document: Any, events: str | bytes, as_of: str, *more: str) -> list[dict[str, Any]]:
        done = self.run(document, events if isinstance(events, bytes) else events.encode(), as_of, *more)
        assert done.exit_code == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def evaluation(tmp_path: Path) -> Evaluation:
    return Evaluation(tmp_path)


def lines(*rows: str) -> str:
    return "\n".join([HEADER, *rows]) + "\n"


def row(event_id: str, at: str, user: str, app: str = "web", name: str = "view", collector: str = "") -> str:
    return f"{app},{event_id},v,{name},1-0-0,{at},{collector},{user}"


def test_windows_hold_their_start_and_not_the_instant(evaluation: Evaluation) -> None:
    views = attribute("views", "counter", period="PT1H")
    events = lines(
        row("a", "2025-01-01 00:00:00.000", "u"),
        row("b", "2025-01-01 00:30:00", "u"),
        row("c", "2025-01-01 01:00:00.000", "u"),
    )
    assert evaluation.values(group(views), events, "2025-01-01T01:00:00Z") == [{"domain_userid": "u", "views": 2}]
    one_later = evaluation.values(group(views), events, "2025-01-01T01:00:00.000001Z")
    assert one_later == [{"domain_userid": "u", "views": 2}]


def test_keys_are_those_with_an_event_before_the_instant_in_order(evaluation: Evaluation) -> None:
    events = lines(
        row("1", "2025-01-02", "late"),
        row("2", "2025-01-01", "zoe"),
        row("3", "2025-01-01", "adam", name="other"),
        row("4", "2025-01-01", ""),
    )
    found = evaluation.values(group(attribute("views", "counter")), events, "2025-01-02")
    assert found == [{"domain_userid": "adam", "views": None}, {"domain_userid": "zoe", "views": 1}]


def test_an_id_counts_once_and_the_first_in_the_file_wins(evaluation: Evaluation) -> None:
    apps = attribute("apps", "unique_list", "string_list", property=atomic("app_id"))
    events = lines(row("x", "2025-01-02", "u", app="first"), row("x", "2025-01-01", "u", app="second"))
    assert evaluation.values(group(apps), events, "2025-01-03") == [{"domain_userid": "u", "apps": ["first"]}]
    # The first one is not there yet, and the second one never counts.
    assert evaluation.values(group(apps), events, "2025-01-02") == []


def test_columns_come_in_either_case_zipped_or_not(evaluation: Evaluation) -> None:
    events = lines(row("1", "2025-01-01", "u")).replace(HEADER, HEADER.lower())
    last = attribute("app", "last", "string", property=atomic("app_id"))
    expected = [{"domain_userid": "u", "app": "web"}]
    assert evaluation.values(group(last), gzip.compress(events.encode()), "2025-02-01") == expected
    assert evaluation.values(group(last), "\ufeff" + events, "2025-02-01") == expected


def test_times_fall_back_to_the_collector_and_know_zones(evaluation: Evaluation) -> None:
    events = lines(
        row("1", "", "u", collector="2025-01-01 00:00:00.5"),
        row("2", "2025-01-01T01:00:00+01:00", "u"),
        row("3", "2025-01-01 00:00:00.123456 UTC", "u"),
        row("4", "2025-02-30", "u"),
        row("5", "", "u"),
    )
    done = evaluation.run(group(attribute("views", "counter")), events.encode(), "2025-01-01T00:00:01Z")
    assert json.loads(done.stdout) == {"domain_userid": "u", "views": 3}
    assert "2 of 5 events have no time" in done.stderr


def test_numbers_are_typed_and_what_is_no_number_is_null(evaluation: Evaluation) -> None:
    header = "event_id,event_name,derived_tstamp,domain_userid,domain_sessionidx,se_value,tr_total"
    events = "\n".join(
        [
            header,
            "1,view,2025-01-01,u,3,1.5,1e999",
            "2,view,2025-01-01,u,4.00,2.25,nan",
            "3,view,2025-01-01,u,many,,",
        ]
    )
    document = group(
        attribute("sessions", "max", "int64", property=atomic("domain_sessionidx")),
        attribute("value", "sum", "double", property=atomic("se_value")),
        attribute("total", "sum", "double", property=atomic("tr_total")),
    )
    assert evaluation.values(document, events, "2025-02-01") == [
        {"domain_userid": "u", "sessions": 4, "value": 3.75, "total": None}
    ]


def test_json_columns_become_entities_and_data(evaluation: Evaluation) -> None:
    entity = {"type": "entity", "vendor": "nl.basjes", "name": "yauaa_context", "major_version": 1, "index": 0}
    own = {"type": "event", "vendor": "com.acme", "name": "view", "major_version": 1, "path": "cart.size"}
    document = group(
        attribute("device", "last", "string", property={**entity, "path": "deviceClass"}),
        attribute("size", "sum", "int64", property=own, events=[{"vendor": "com.acme", "name": "view"}]),
    )

    def quoted(value: Any) -> str:
        return '"' + json.dumps(value).replace('"', '""') + '"'

    contexts = {"data": [{"schema": "iglu:nl.basjes/yauaa_context/jsonschema/1-0-4", "data": {"deviceClass": "Phone"}}]}
    unstruct = {"data": {"schema": "iglu:com.acme/view/jsonschema/1-0-0", "data": {"cart": {"size": 3}}}}
    self_describing = "\n".join(
        [
            "event_id,event_vendor,event_name,event_version,derived_tstamp,domain_userid,contexts,unstruct_event",
            f"1,com.acme,view,1-0-0,2025-01-01,u,{quoted(contexts)},{quoted(unstruct)}",
            "2,com.acme,view,1-0-0,2025-01-02,u,not json,",
        ]
    )
    columns = "contexts_nl_basjes_yauaa_context_1,unstruct_event_com_acme_view_1"
    warehouse = "\n".join(
        [
            f"event_id,event_vendor,event_name,event_version,derived_tstamp,domain_userid,{columns}",
            f"1,com.acme,view,1-0-0,2025-01-01,u,{quoted([{'deviceClass': 'Phone'}])},{quoted({'cart': {'size': 3}})}",
        ]
    )
    for events in (self_describing, warehouse):
        assert evaluation.values(document, events, "2025-02-01") == [
            {"domain_userid": "u", "device": "Phone", "size": 3}
        ]


def test_the_key_may_be_another_column(evaluation: Evaluation) -> None:
    events = lines(row("1", "2025-01-01", "u"), row("2", "2025-01-01", "v"))
    found = evaluation.values(group(attribute("views", "counter")), events, "2025-02-01", "--key", "app_id")
    assert found == [{"app_id": "web", "views": 2}]


@pytest.mark.parametrize(
    ("document", "events", "as_of", "message"),
    [
        ('{"name": ', "x", "2025-01-01", "is not JSON: line 1"),
        (group(attribute("total", "sum")), "x", "2025-01-01", "attributes[0].property"),
        ({"name": "s", "attribute_groups": []}, "x", "2025-01-01", "holds a service, not an attribute group"),
        (group(attribute("views", "counter")), "a,b\n1,2\n", "2025-01-01", "no column domain_userid"),
        (group(attribute("views", "counter")), "", "2025-01-01", "is empty"),
        (group(attribute("views", "counter")), lines("1,2"), "2025-01-01", "cannot be read"),
        (group(attribute("views", "counter")), lines(), "yesterday", "write it as 2025-05-01T00:00:00Z"),
    ],
)
def test_mistakes_are_told_with_what_to_do(
    evaluation: Evaluation, document: Any, events: str, as_of: str, message: str
) -> None:
    done = evaluation.run(document, events.encode(), as_of)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_file_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("{}")
    (tmp_path / "events.csv").write_text(HEADER)
    files = ["--group", str(tmp_path / "their.json"), "--events", str(tmp_path / "events.csv")]
    done = CliRunner().invoke(make_app(), ["features", "eval", *files, "--as-of", "2025-01-01"])
    assert (done.exit_code, "there.json" in done.stderr) == (2, True)
