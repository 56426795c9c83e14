"""`inkling features eval` is worth what a direct computation in SQL is worth, at every instant."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .direct_sql import profiles
from .shared import EVENTS, GROUP, INSTANTS, instant, needs_shared

pytestmark = needs_shared


def evaluate(events: Path, as_of: str) -> list[dict[str, Any]]:
    """What the command prints: one object a line."""
    options = ["--group", str(GROUP), "--events", str(events), "--key", "domain_userid", "--as-of", as_of]
    command = [sys.executable, "-m", "inkling.cli", "features", "eval", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
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
