"""Runs `inkling rules eval` over files made on the spot."""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from inkling.cli import make_app

HEADER = (
    "RuleType,EventName,AttributeName,AttributeValue,Operator-C,Target-C,Operator-V,Target-V,"
    "ResetWhenReachTarget,StartDate,FinishDate,Key"
)
UNUSED = {
    "RuleType": "aggregator",
    "EventName": "buy",
    "AttributeName": "na",
    "AttributeValue": "999",
    "Operator-C": "na",
    "Target-C": "999",
    "Operator-V": "na",
    "Target-V": "999",
    "ResetWhenReachTarget": "no",
    "StartDate": "9999-99-99",
    "FinishDate": "9999-99-99",
    "Key": "",
}
DAY_MS = 86_400_000
START_MS = 1_612_137_600_000  # 2021-02-01T00:00:00Z


def rule(**cells: str) -> dict[str, str]:
    """A row of the table; `operator_c` stands for Operator-C."""
    names = {name.lower().replace("-", "_"): name for name in (*UNUSED, "Metric", "Zone", "Id")}
    row = UNUSED | {names[name.lower()]: text for name, text in cells.items()}
    return row | {"Key": row["RuleType"] + row["EventName"]}


def count(operator: str, target: int, **more: str) -> dict[str, str]:
    """A row with a condition on the count."""
    return rule(operator_c=operator, target_c=str(target), **more)


def event(at_ms: int, user: str = "u", name: str = "buy", **more: Any) -> dict[str, str]:
    """A line of events; `attributes` and `metrics` are objects."""
    cells = {key: value if isinstance(value, str) else json.dumps(value) for key, value in more.items()}
    return {"event_type": name, "event_timestamp": str(at_ms), "user_id": user, **cells}


def as_csv(rows: Iterable[dict[str, str]]) -> str:
    """Rows as CSV under all of their columns."""
    rows = list(rows)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(name for row in rows for name in row)), restval="")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


class Offline:
    """Runs the command in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, table: str | list[dict[str, str]], events: str | list[dict[str, str]], *more: str) -> Result:
        for name, content in (("rules.csv", table), ("events.csv", events)):
            (self.folder / name).write_text(content if isinstance(content, str) else as_csv(content), encoding="utf-8")
        files = ["--table", str(self.folder / "rules.csv"), "--events", str(self.folder / "events.csv")]
        return CliRunner().invoke(make_app(), ["rules", "eval", *files, *more])

    def actions(
        self, table: str | list[dict[str, str]], events: str | list[dict[str, str]], *more: str
    ) -> list[dict[str, Any]]:
        done = self.run(table, events, *more)
        assert done.exit_code == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def names(
        self, table: str | list[dict[str, str]], events: str | list[dict[str, str]], *more: str
    ) -> list[tuple[str, str]]:
        return [(action["action"], action["name"]) for action in self.actions(table, events, *more)]
