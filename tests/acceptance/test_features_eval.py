"""`inkling features eval` is worth what a direct computation in SQL is worth, at every instant."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from inkling.cli import make_app

from .direct_sql import profiles
from .shared import EVENTS, GROUP, INSTANTS, instant, needs_shared

pytestmark = needs_shared


def options(events: Path, as_of: str) -> list[str]:
    """The command's words."""
    files = ["--group", str(GROUP), "--events", str(events)]
    return ["features", "eval", *files, "--key", "domain_userid", "--as-of", as_of]


def evaluate(events: Path, as_of: str) -> list[dict[str, Any]]:
    """What the command prints, run in this process: one object a line."""
    done = CliRunner().invoke(make_app(), options(events, as_of))
    assert done.exit_code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("as_of", INSTANTS)
def test_the_19_attributes_of_real_events_equal_those_computed_in_sql(as_of: str) -> None:
    assert evaluate(EVENTS, as_of + "Z") == profiles(GROUP, EVENTS, instant(as_of))


@pytest.mark.parametrize("as_of", INSTANTS[-4:])
def test_the_19_attributes_of_enriched_events_equal_those_computed_in_sql(enriched_events: Path, as_of: str) -> None:
    assert evaluate(enriched_events, as_of + "Z") == profiles(GROUP, enriched_events, instant(as_of))


def test_each_object_has_the_key_first_and_the_attributes_in_their_order() -> None:
    first = evaluate(EVENTS, "2025-04-10T00:00:00Z")[0]
    names = [attribute["name"] for attribute in json.loads(GROUP.read_text())["attributes"]]
    assert list(first) == ["domain_userid", *names]


def test_the_installed_command_prints_the_same() -> None:
    command = [str(Path(sys.executable).parent / "inkling"), *options(EVENTS, "2025-04-10T00:00:00Z")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert list(map(json.loads, done.stdout.splitlines())) == evaluate(EVENTS, "2025-04-10T00:00:00Z")
