"""A table of rules into a project, and out of it. Importing the same table again changes nothing."""

from dataclasses import dataclass, replace

from services.insights.rules.definitions import Rule
from services.insights.rules.service import Rules
from services.insights.rules.store import StoredRule
from services.insights.rules.table import RowProblem, TableError, read_table, write_table
from services.runtime.errors import InvalidArgument, Violation


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a table."""

    rules: tuple[StoredRule, ...]
    problems: tuple[RowProblem, ...]


async def import_table(
    rules: Rules, project: str, text: str, metric: str, zone: str, *, validate_only: bool, skip_bad_rows: bool
) -> Imported:
    """Makes the rules of a table, or new versions of those whose ids are there with another content.

    Raises InvalidArgument when it is no table, and, unless `skip_bad_rows`, when a row has a mistake: each is a
    violation.
    """
    try:
        table = read_table(text, metric, zone)
    except TableError as error:
        violation = Violation("table", str(error), "BAD_TABLE")
        raise InvalidArgument(f"the table {error}", reason="BAD_TABLE", violations=(violation,)) from None
    if table.errors and not skip_bad_rows and not validate_only:
        violations = [_violation(each) for each in table.errors]
        raise InvalidArgument(f"{len(violations)} mistakes in the table", reason="BAD_TABLE", violations=violations)
    present = {stored.rule.rule_id: stored for stored in await rules.all(project)}
    new = [rule for rule in table.rules if rule.rule_id not in present]
    changed = [rule for rule in table.rules if rule.rule_id in present and not _same(rule, present[rule.rule_id].rule)]
    paths = [f"table.line[{line}]" for rule, line in zip(table.rules, table.lines, strict=True) if rule in new]
    done = {
        each.rule.rule_id: each for each in await rules.create(project, new, validate_only=validate_only, paths=paths)
    }
    for rule in changed:
        stored = await rules.update(project, rule, "", validate_only=validate_only)
        done[rule.rule_id] = stored
    found = present | done
    return Imported(tuple(found[rule.rule_id] for rule in table.rules), table.problems)


async def export_table(rules: Rules, project: str) -> tuple[str, list[str]]:
    """The rules of a project as a table, and the ids of those that it cannot say."""
    said, left_out = [], []
    for stored in await rules.all(project):
        try:
            write_table([stored.rule])
            said.append(stored.rule)
        except TableError:
            left_out.append(stored.rule.rule_id)
    return write_table(said), left_out


def _same(new: Rule, old: Rule) -> bool:
    return replace(new, version=old.version, live_from_us=old.live_from_us) == old


def _violation(problem: RowProblem) -> Violation:
    text = f"{problem.description}: {problem.hint}" if problem.hint else problem.description
    return Violation(f"table.line[{problem.line}].{problem.column}", text, "BAD_RULE")
