"""The case file, and the commands that need no service."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from inkling.cli import make_app
from services.insights.conformance import evaluators, run_cases

CASES = Path(__file__).parents[1] / "conformance" / "infer_cases.jsonl"
LINES = CASES.read_text("utf-8").splitlines()


def run(*arguments: str, given: str | None = None) -> tuple[int, str]:
    """A command's exit code and output."""
    result = CliRunner().invoke(make_app(), ["insights", *arguments], input=given)
    return result.exit_code, result.output


@pytest.mark.parametrize("line", LINES, ids=[json.loads(line)["id"] for line in LINES])
def test_every_evaluator_passes_the_case(line: str) -> None:
    assert list(run_cases([line], evaluators())) == [()]


def test_the_command_counts_the_cases() -> None:
    code, output = run("conformance", str(CASES))
    assert (code, output) == (0, "116 passed, 0 failed\n")


def test_a_failure_is_shown_and_makes_the_exit_code_1(tmp_path: Path) -> None:
    wrong = json.loads(LINES[0])
    wrong["expect"] = {"applies": False}
    broken = {"id": "x", "kind": "term", "query": "1 +", "data": {}, "expect": {"value": 1.0}}
    file = tmp_path / "cases.jsonl"
    file.write_text("\n".join([LINES[0], json.dumps(wrong), "", json.dumps(broken), "{", '{"id": "y"}']))
    code, output = run("conformance", str(file))
    assert code == 1
    assert output.splitlines()[-1] == "1 passed, 4 failed"
    assert "bud-001 (direct)" in output
    assert '"applies": true' in output
    assert "E_SYNTAX" in output
    assert "line 5" in output


def test_each_part_of_an_expectation_is_compared() -> None:
    case = {"id": "x", "kind": "expr", "query": "1 + 1 = 2", "data": {}}
    right = {"value": True, "type": "boolean", "vector": False, "warnings": []}
    for key, other in {"value": False, "type": "numeric", "vector": True, "warnings": ["W_NEVER"]}.items():
        assert list(run_cases([json.dumps(case | {"expect": right})], evaluators())) == [()]
        (failures,) = run_cases([json.dumps(case | {"expect": right | {key: other}})], evaluators())
        assert len(failures) == len(evaluators())


def test_check_shows_errors_with_carets(tmp_path: Path) -> None:
    file = tmp_path / "query.infer"
    file.write_text("INFER a FROM transactions\nWHERE amont > 1\n")
    code, output = run("check", str(file))
    assert code == 1
    assert output == (
        "E_COLUMN at line 2, column 7: transactions has no column amont\n"
        "  WHERE amont > 1\n"
        "        ^^^^^\n"
        "  hint: did you mean amount?\n"
    )
    code, output = run("check", "-", given="INFER a FROM transactions WHERE amount > 1")
    assert code == 0
    assert output.startswith("W_UNBOUNDED")
    assert run("check", "-", "--dialect", "extended", given="INFER a FROM transactions HAVING NOT FALSE")[0] == 0


def test_format_prints_the_query_afresh() -> None:
    assert run("format", "-", given="infer a from t having 1=1") == (0, "INFER a FROM t\nHAVING 1 = 1\n")
    assert run("format", "-", given="infer a from t having")[0] == 1


def test_the_guides_query_is_laid_out_as_the_formatter_does() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "infer.md").read_text("utf-8")
    query = guide.split("```sql\n")[1].split("```")[0]
    assert run("format", "-", given=query) == (0, query)
    assert run("check", "-", given=query)[0] == 0
