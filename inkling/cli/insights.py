"""`inkling insights`: INFER queries checked, formatted and held to case files, without any service."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from inkling.cli import insights_served
from inkling.cli.console import existing, fail

app = typer.Typer(no_args_is_help=True, help="Insights: INFER queries kept true of every customer, and case files.")
insights_served.add_to(app)


class DialectName(StrEnum):
    """How queries are read."""

    STRICT = "strict"
    EXTENDED = "extended"


QueryFile = Annotated[Path, typer.Argument(help="A file with one INFER query; - reads standard input.")]
DialectOption = Annotated[DialectName, typer.Option("--dialect", help="How the query is read.")]


@app.command("conformance")
def conformance(file: Annotated[Path, typer.Argument(help="Cases, one JSON object a line.")]) -> None:
    """Runs every case through every evaluator; prints the failures, then how many passed."""
    try:
        from services.insights.conformance import evaluators, run_cases
    except ModuleNotFoundError as error:
        _not_installed(error)
    passed = failed = 0
    with existing(file).open(encoding="utf-8") as lines:
        for failures in run_cases(lines, evaluators()):
            passed += not failures
            failed += bool(failures)
            for failure in failures:
                sys.stdout.write(f"{failure}\n")
    sys.stdout.write(f"{passed} passed, {failed} failed\n")
    if failed:
        raise typer.Exit(1)


@app.command("check")
def check(file: QueryFile, dialect: DialectOption = DialectName.STRICT) -> None:
    """Checks a query over `transactions`: errors and warnings, each with its place; exit code 1 on errors."""
    try:
        from services.insights.language.check import check_query
        from services.insights.language.diagnostics import QueryError, with_caret
        from services.insights.language.sources import sources_of, transactions
        from services.insights.language.tree import Dialect
    except ModuleNotFoundError as error:
        _not_installed(error)
    text = _read(file)
    try:
        query = check_query(text, sources_of([transactions()]), Dialect(dialect.value))
    except QueryError as error:
        sys.stdout.write("\n".join(with_caret(text, each) for each in error.errors) + "\n")
        raise typer.Exit(1) from None
    for warning in query.warnings:
        sys.stdout.write(with_caret(text, warning) + "\n")
    sys.stdout.write(f"{query.name}: {len(query.warnings)} warnings\n" if query.warnings else f"{query.name}: fine\n")


@app.command("format")
def format_(file: QueryFile, dialect: DialectOption = DialectName.STRICT) -> None:
    """Prints a query laid out afresh, one clause and one condition a line."""
    try:
        from services.insights.language.diagnostics import QueryError, with_caret
        from services.insights.language.format import format_text
        from services.insights.language.tree import Dialect
    except ModuleNotFoundError as error:
        _not_installed(error)
    text = _read(file)
    try:
        sys.stdout.write(format_text(text, Dialect(dialect.value)))
    except QueryError as error:
        sys.stderr.write("\n".join(with_caret(text, each) for each in error.errors) + "\n")
        raise typer.Exit(1) from None


def _read(file: Path) -> str:
    if str(file) == "-":
        return sys.stdin.read()
    return existing(file).read_text("utf-8-sig", errors="replace")


def _not_installed(error: ModuleNotFoundError) -> NoReturn:
    fail(f"{error.name} is not installed: the language comes with `pip install inkling[insights]`")
