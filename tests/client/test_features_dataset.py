"""`inkling features dataset`: each row as `inkling features eval` at the row's instant, offline."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from inkling.cli import make_app

from .test_features_eval import atomic, attribute, group

HEADER = "event_id,event_name,event_version,derived_tstamp,domain_userid,app_id,se_value,domain_sessionidx"
USERS = ("ada", "bob", "çiğdem")
INSTANTS = tuple(f"2025-01-0{day}T{hour}:00:00Z" for day in (1, 2, 3) for hour in ("00", "07", "14"))


def events() -> str:
    lines = [
        f"{i},{'view' if i % 3 else 'buy'},1-0-0,2025-01-0{1 + i % 2} {i * 7 % 24:02}:{i % 3 * 30:02}:00,"
        f"{USERS[i % 5 % 2]},{'web' if i % 4 else ''},{i / 8 if i % 3 else ''},{i % 6}"
        for i in range(60)
    ]
    return "\n".join([HEADER, *lines]) + "\n"


def every_type() -> dict[str, Any]:
    value, session = atomic("se_value"), atomic("domain_sessionidx")
    return group(
        attribute("views", "counter", period="P1D"),
        attribute("views_or_none", "counter", period="PT1H", default_value=0),
        attribute("total", "sum", "double", property=value),
        attribute("narrow", "mean", "float", property=value),
        attribute("sessions", "sum", "int64", property=session, period="PT12H"),
        attribute("largest", "max", "int32", property=session),
        attribute("app", "last", "string", property=atomic("app_id"), default_value="none"),
        attribute("apps", "unique_list", "string_list", property=atomic("app_id"), period="PT8H"),
        attribute("seen", "unique_list", "int64_list", property=session, period="PT8H", default_value=[]),
        attribute("values", "unique_list", "double_list", property=value, limit=2),
        attribute("by_app", "category_count", "dict", property=atomic("app_id")),
        attribute("usual", "most_frequent", "string", property=atomic("app_id")),
        attribute("distinct", "count_distinct", "int32", property=session, property_type="int64"),
        attribute("age", "time_since_first", "int64"),
        attribute("idle", "time_since_last", "double", ttl="PT6H"),
    )


class Datasets:
    """Runs the command over files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, document: Any, rows: str | bytes, out: str = "out.jsonl", *more: str) -> Result:
        self.write("group.json", json.dumps(document))
        self.write("rows.csv", rows)
        if not (self.folder / "events.csv").exists():
            self.write("events.csv", events())
        files = {"--group": "group.json", "--events": "events.csv", "--rows": "rows.csv", "--out": out}
        options = [part for option, name in files.items() for part in (option, str(self.folder / name))]
        return CliRunner().invoke(make_app(), ["features", "dataset", *options, *more])

    def filled(self, document: Any, rows: str | bytes, out: str, *more: str) -> Path:
        done = self.run(document, rows, out, *more)
        assert done.exit_code == 0, done.stderr
        assert sorted(path.name for path in self.folder.glob("out*")) == [out]
        return self.folder / out

    def write(self, name: str, content: str | bytes) -> None:
        (self.folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    def evaluated(self, as_of: str) -> dict[str, dict[str, Any]]:
        files = ["--group", str(self.folder / "group.json"), "--events", str(self.folder / "events.csv")]
        done = CliRunner().invoke(make_app(), ["features", "eval", *files, "--as-of", as_of])
        assert done.exit_code == 0, done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines()]
        return {each.pop("domain_userid"): each for each in found}


@pytest.fixture
def datasets(tmp_path: Path) -> Datasets:
    return Datasets(tmp_path)


def all_pairs() -> list[tuple[str, str]]:
    """Every user at every instant, in no order."""
    pairs = [(user, instant) for instant in INSTANTS for user in USERS]
    return [pairs[i * 11 % len(pairs)] for i in range(len(pairs))]


def test_each_row_is_what_eval_says_at_its_instant(datasets: Datasets) -> None:
    rows = "domain_userid,as_of\n" + "".join(f"{user},{instant}\n" for user, instant in all_pairs())
    found = [json.loads(line) for line in datasets.filled(every_type(), rows, "out.jsonl").read_text().splitlines()]
    by_instant = {instant: datasets.evaluated(instant) for instant in INSTANTS}
    assert [(row["domain_userid"], row["as_of"]) for row in found] == all_pairs()
    seen = 0
    for row in found:
        expected = by_instant[row["as_of"]].get(row["domain_userid"])
        if expected is not None:
            seen += 1
            assert {name: row[name] for name in expected} == expected
    assert seen > len(INSTANTS)


def test_a_key_without_events_has_the_defaults(datasets: Datasets) -> None:
    out = datasets.filled(every_type(), "domain_userid,as_of\nnobody,2025-01-02\n,2025-01-02\n", "out.jsonl")
    for line in out.read_text().splitlines():
        row = json.loads(line)
        given = {name: value for name, value in row.items() if value is not None and name != "domain_userid"}
        assert given == {"as_of": "2025-01-02", "views_or_none": 0, "app": "none", "seen": []}


def test_rows_keep_their_order_and_their_other_columns(datasets: Datasets) -> None:
    rows = 'Label,AS_OF,note,Domain_UserId\n1,2025-01-03,"a, ""b""\nc",ada\n,2025-01-01,007,bob\n0,2025-01-03,,ada\n'
    out = datasets.filled(group(attribute("views", "counter")), gzip.compress(rows.encode()), "out.jsonl")
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [list(row) for row in found] == [["Label", "AS_OF", "note", "Domain_UserId", "views"]] * 3
    assert [row["Label"] for row in found] == ["1", None, "0"]
    assert [row["note"] for row in found] == ['a, "b"\nc', "007", None]
    assert found[0]["views"] == found[2]["views"] > 0
    assert found[1]["views"] is None


def test_parquet_has_typed_columns(datasets: Datasets) -> None:
    rows = "domain_userid,as_of,label\nada,2025-01-03,1\nbob,2025-01-03,0\n"
    lines = datasets.filled(every_type(), rows, "out.jsonl")
    expected = [json.loads(line) for line in lines.read_text().splitlines()]
    lines.unlink()
    table = pq.read_table(datasets.filled(every_type(), rows, "out.parquet"))
    types = {field.name: field.type for field in table.schema}
    assert types["views"] == pa.int32()
    assert types["narrow"] == pa.float32()
    assert types["apps"].value_type == pa.string()
    assert types["by_app"] == pa.map_(pa.string(), pa.int64())
    assert [{**row, "by_app": dict(row["by_app"])} for row in table.to_pylist()] == expected


def test_csv_has_lists_as_json(datasets: Datasets) -> None:
    out = datasets.filled(every_type(), "domain_userid,as_of\nada,2025-01-03\nnobody,2025-01-03\n", "out.csv")
    with out.open(newline="", encoding="utf-8") as file:
        first, nobody = csv.DictReader(file)
    assert len(json.loads(first["values"])) == 2
    assert json.loads(first["by_app"])["web"] > 0
    assert (nobody["values"], nobody["seen"], nobody["views"]) == ("", "[]", "")


def test_instants_are_written_as_iso(datasets: Datasets) -> None:
    when = {"type": "event", "vendor": "v", "name": "view", "major_version": 1, "path": "when"}
    newest = attribute("newest", "max", "unix_timestamp", property=when, default_value="2020-01-01T00:00:00Z")
    rows = "domain_userid,as_of\nada,2025-01-03\n"
    assert json.loads(datasets.filled(group(newest), rows, "out.jsonl").read_text())["newest"] == "2020-01-01T00:00:00Z"
    (datasets.folder / "out.jsonl").unlink()
    assert "2020-01-01T00:00:00Z" in datasets.filled(group(newest), rows, "out.csv").read_text()


def test_what_does_not_fit_the_declared_type_is_null(datasets: Datasets) -> None:
    header = "event_id,event_name,derived_tstamp,domain_userid,se_value,domain_sessionidx"
    lines = [f"{i},view,2025-01-01,ada,1e200,999999999999999999" for i in range(12)]
    datasets.write("events.csv", "\n".join([header, *lines]))
    document = group(
        attribute("single", "max", "float", property=atomic("se_value"), default_value=1.5),
        attribute("narrow", "max", "int32", property=atomic("domain_sessionidx"), default_value=1),
        attribute("wide", "sum", "int64", property=atomic("domain_sessionidx"), default_value=1),
        attribute("long", "max", "int64", property=atomic("domain_sessionidx")),
    )
    rows = "domain_userid,as_of\nada,2025-01-02\nbob,2025-01-02\n"
    ada, bob = map(json.loads, datasets.filled(document, rows, "out.jsonl").read_text().splitlines())
    assert [ada[name] for name in ("single", "narrow", "wide", "long")] == [None, None, None, 10**18 - 1]
    assert [bob[name] for name in ("single", "narrow", "wide", "long")] == [1.5, 1, 1, None]


@pytest.mark.parametrize(
    ("rows", "out", "message"),
    [
        ("as_of\n2025-01-01\n", "out.csv", "rows.csv has no column domain_userid: it holds the key. There are as_of"),
        ("domain_userid,at\nu,2025-01-01\n", "out.csv", "rows.csv has no column as_of"),
        ('domain_userid,as_of\n"a\nb",2025-01-01\n\nu,soon\n', "out.csv", "rows.csv line 5: as_of: soon is not an"),
        ("domain_userid,as_of\nu,\n", "out.csv", "rows.csv line 2: as_of: there is no instant: write it as 2025-05"),
        ("domain_userid,as_of,As_Of\n", "out.csv", "rows.csv has two columns of the name as_of"),
        ("domain_userid,as_of,views\n", "out.csv", "rows.csv has a column views, which is the name of an attribute"),
        ("domain_userid,as_of\nu\n", "out.csv", "rows.csv cannot be read"),
        ("", "out.csv", "rows.csv is empty"),
        ("domain_userid,as_of\nu,2025-01-01\n", "out.xlsx", "out.xlsx has no ending that says its form: write it as"),
        ("domain_userid,as_of\nu,2025-01-01\n", "no/out.csv", "out.csv cannot be written: "),
    ],
)
def test_mistakes_are_told_with_what_to_do(datasets: Datasets, rows: str, out: str, message: str) -> None:
    done = datasets.run(group(attribute("views", "counter")), rows, out)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not list(datasets.folder.glob("out*"))


def test_no_rows_give_a_table_of_none(datasets: Datasets) -> None:
    table = pq.read_table(datasets.filled(every_type(), "domain_userid,as_of\n", "out.parquet"))
    assert (table.num_rows, table.num_columns) == (0, 17)


def test_the_key_may_be_another_column(datasets: Datasets) -> None:
    views = group(attribute("views", "counter"))
    out = datasets.filled(views, "app_id,as_of\nweb,2025-01-03\n", "out.jsonl", "--key", "APP_ID")
    assert json.loads(out.read_text())["views"] > 0
