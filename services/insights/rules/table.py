"""The original's table of rules, as CSV: in with every mistake by row, and out again.

Columns are found by their names, in any order and either case. The twelve of the original: RuleType, EventName,
AttributeName, AttributeValue, Operator-C, Target-C, Operator-V, Target-V, ResetWhenReachTarget, StartDate, FinishDate
and Key (a formula there, ignored here). Unused cells hold `na` (operators, AttributeName), `999` (targets,
AttributeValue) or `9999-99-99` (dates), or nothing; a sentinel of one column means nothing special in another. Three
more may follow: Metric (the original saw only the first metric of an event; without a name it is the event's only
number), Zone (of the dates; else UTC) and Id.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches

from services.insights.rules.definitions import (
    RULE_ID,
    ActionKind,
    AttributeFilter,
    Condition,
    Constant,
    Operator,
    Period,
    Rule,
    RuleAction,
    SumCondition,
    text_of,
)
from services.insights.rules.validation import OPERATORS, check_rule

COLUMNS = (
    "RuleType",
    "EventName",
    "AttributeName",
    "AttributeValue",
    "Operator-C",
    "Target-C",
    "Operator-V",
    "Target-V",
    "ResetWhenReachTarget",
    "StartDate",
    "FinishDate",
    "Key",
)
MORE_COLUMNS = ("Metric", "Zone", "Id")
AGGREGATOR, DATE = "aggregator", "date"
NO_NAME, NO_NUMBER, NO_DATE = "na", "999", "9999-99-99"
MAX_ROWS = 10_000
MAX_BYTES = 16 << 20
_OPERATORS = {operator.value: operator for operator in Operator} | {
    "smaller": Operator.LESS,
    "=": Operator.EQUAL,
    ">": Operator.GREATER,
    ">=": Operator.GREATER_OR_EQUAL,
    "<": Operator.LESS,
    "<=": Operator.LESS_OR_EQUAL,
}
_ID_LENGTH = 90
_CONDITIONS = {"Operator-C", "Target-C", "Operator-V", "Target-V"}
_COLUMN_OF = {
    "event_name": "EventName",
    "attribute": "AttributeValue",
    "attribute.name": "AttributeName",
    "count": "Operator-C",
    "count.operator": "Operator-C",
    "count.target": "Target-C",
    "sum.operator": "Operator-V",
    "sum.target": "Target-V",
    "sum.metric": "Metric",
    "reset": "ResetWhenReachTarget",
    "period.start": "StartDate",
    "period.end": "FinishDate",
    "period.zone": "Zone",
    "rule_id": "Id",
}


class TableError(ValueError):
    """The file is no table of rules; the text says why."""


@dataclass(frozen=True, slots=True)
class RowProblem:
    """A mistake in a row, or only something that is not used as it stands there."""

    line: int
    """The row's first line in the file; the header is line 1."""
    column: str
    """Empty: the row as a whole."""
    description: str
    hint: str = ""
    is_warning: bool = False

    def __str__(self) -> str:
        """As one text."""
        place = f"line {self.line}" + (f", {self.column}" if self.column else "")
        return f"{place}: {self.description}" + (f" ({self.hint})" if self.hint else "")


@dataclass(frozen=True, slots=True)
class Table:
    """What a file says: the rules of its sound rows, and what is wrong with the others."""

    rules: tuple[Rule, ...]
    lines: tuple[int, ...]
    """Where each rule stands."""
    problems: tuple[RowProblem, ...]

    @property
    def errors(self) -> list[RowProblem]:
        """The mistakes: their rows are left out."""
        return [problem for problem in self.problems if not problem.is_warning]


def read_table(text: str, metric: str = "", zone: str = "UTC") -> Table:
    """The rules of a table; `metric` and `zone` are for rows that name none. Raises TableError."""
    if len(text) > MAX_BYTES:
        raise TableError(f"has more than {MAX_BYTES >> 20} MiB")
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    rules: list[Rule] = []
    lines: list[int] = []
    problems: list[RowProblem] = []
    taken: set[str] = set()
    try:
        header = next(reader, [])
        places = _places(header)
        line = reader.line_num + 1
        for cells in reader:
            if any(cell.strip() for cell in cells):
                row = _Row(line, places, cells, len(header))
                rule = row.rule(metric, zone, taken)
                if not row.has_errors:
                    rules.append(replace(rule, rule_id=_free(rule.rule_id, taken)))
                    lines.append(line)
                problems += row.problems
            if len(rules) > MAX_ROWS:
                raise TableError(f"has more than {MAX_ROWS} rules")
            line = reader.line_num + 1
    except csv.Error as error:
        raise TableError(f"is not CSV: line {reader.line_num}: {error}") from None
    return Table(tuple(rules), tuple(lines), tuple(problems))


def write_table(rules: Iterable[Rule]) -> str:
    """Rules as a table with all columns. Raises TableError for a rule that it cannot say."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*COLUMNS, *MORE_COLUMNS])
    for rule in rules:
        writer.writerow(_cells(rule))
    return out.getvalue()


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _places(header: Sequence[str]) -> dict[str, int]:
    """By column its place in the header."""
    known = {_key(name): name for name in (*COLUMNS, *MORE_COLUMNS)}
    places: dict[str, int] = {}
    for place, cell in enumerate(header):
        name = known.get(_key(cell))
        if name is None:
            if not cell.strip():
                continue
            near = get_close_matches(_key(cell), known, n=1)
            hint = f": is it {known[near[0]]}?" if near else f": the columns are {', '.join(known.values())}"
            raise TableError(f"has an unknown column {cell.strip()[:80]!r}{hint}")
        if name in places:
            raise TableError(f"has two columns {name}")
        places[name] = place
    missing = [name for name in COLUMNS[:-1] if name not in places]
    if missing:
        raise TableError(f"lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}")
    return places


class _Row:
    """One row on its way to a rule."""

    def __init__(self, line: int, places: dict[str, int], cells: list[str], width: int) -> None:
        self.line = line
        self.problems: list[RowProblem] = []
        self._cells = {name: cells[place].strip() if place < len(cells) else "" for name, place in places.items()}
        if len(cells) > width:
            self._error("", f"has {len(cells)} cells, the header {width}", "put cells with commas in double quotes")

    @property
    def has_errors(self) -> bool:
        """Whether a mistake was found."""
        return any(not problem.is_warning for problem in self.problems)

    def _error(self, column: str, description: str, hint: str = "") -> None:
        self.problems.append(RowProblem(self.line, column, description, hint))

    def _warn(self, column: str, description: str, hint: str = "") -> None:
        self.problems.append(RowProblem(self.line, column, description, hint, is_warning=True))

    def _cell(self, column: str, unused: str = "") -> str:
        """The text of a cell; nothing for the sentinel."""
        text = self._cells.get(column, "")
        return "" if text.lower() == unused else text

    def rule(self, metric: str, zone: str, taken: set[str]) -> Rule:
        """The rule of the row; when `has_errors`, it is none that may be used. `taken` are the ids of other rows."""
        kind = self._cell("RuleType").lower()
        if kind not in (AGGREGATOR, DATE):
            self._error("RuleType", f"must be {AGGREGATOR} or {DATE}")
        count = self._condition("C")
        total = self._condition("V")
        summed = None if total is None else SumCondition(self._cell("Metric", NO_NAME) or metric, total)
        reset = self._reset(kind)
        period = self._period(kind, zone)
        action = RuleAction(ActionKind.FIRE_EVENT if reset else ActionKind.SET_PROPERTY)
        name = self._cell("EventName")
        rule = Rule("r", name, count, summed, attribute=self._attribute(), period=period, action=action, reset=reset)
        rule = replace(rule, rule_id=self._cell("Id") or _slug(f"{kind}_{rule.derived_event}"))
        if self._cell("Id") in taken:
            self._error("Id", "is used twice")
        reported = {problem.column for problem in self.problems if not problem.is_warning}
        for problem in check_rule(rule):
            column = _COLUMN_OF.get(problem.field, "")
            if column not in reported and not (problem.field == "count" and _CONDITIONS & reported):
                self._error(column, problem.description, problem.hint)
        return rule

    def _condition(self, which: str) -> Condition | None:
        word, target = self._cell(f"Operator-{which}", NO_NAME).lower(), self._cell(f"Target-{which}")
        if not word:
            if target and target.lower() not in (NO_NUMBER, NO_NAME):
                self._warn(f"Target-{which}", f"is not used, because Operator-{which} is `na`")
            return None
        operator = _OPERATORS.get(re.sub(r"[ -]", "_", word))
        if operator is None:
            near = get_close_matches(word, _OPERATORS, n=1)
            hint = f"is it {near[0]}?" if near else f"one of na, {OPERATORS}"
            self._error(f"Operator-{which}", f"{word[:80]!r} is not an operator", hint)
            return None
        number = _decimal(target)
        if number is None:
            self._error(f"Target-{which}", "is not a number", f"what Operator-{which} compares with")
            return None
        return Condition(operator, number)

    def _attribute(self) -> AttributeFilter | None:
        name, value = self._cell("AttributeName", NO_NAME), self._cell("AttributeValue")
        if not name:
            if value and value.lower() not in (NO_NUMBER, NO_NAME):
                self._warn("AttributeValue", "is not used, because AttributeName is `na`")
            return None
        if not value:
            self._error("AttributeValue", "is missing", "the exact value that the attribute must have")
        return AttributeFilter(name, _readings(value))

    def _reset(self, kind: str) -> bool:
        word = self._cell("ResetWhenReachTarget", NO_NAME).lower()
        if word not in ("", "yes", "no", "true", "false"):
            self._error("ResetWhenReachTarget", "must be yes or no")
        reset = word in ("yes", "true")
        if reset and kind == DATE:
            self._warn("ResetWhenReachTarget", "is not used by rules with dates")
        return reset and kind != DATE

    def _period(self, kind: str, zone: str) -> Period:
        start, end = self._cell("StartDate", NO_DATE), self._cell("FinishDate", NO_DATE)
        if kind == AGGREGATOR:
            for column, text in (("StartDate", start), ("FinishDate", end)):
                if text:
                    self._warn(column, f"is not used, because RuleType is {AGGREGATOR}", f"{DATE} counts between dates")
            return Period()
        if kind == DATE and not start and not end:
            self._error("StartDate", "neither start nor finish is given", f"RuleType {AGGREGATOR} counts without dates")
        return Period(start, end, self._cell("Zone", NO_NAME) or zone)


def _decimal(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _readings(text: str) -> tuple[Constant, ...]:
    """What a text can stand for: itself, and the number or truth value that is written so."""
    readings: list[Constant] = [text]
    if re.fullmatch(r"-?(0|[1-9]\d{0,17})", text):
        readings.append(int(text))
    elif re.fullmatch(r"-?(0|[1-9]\d{0,17})\.\d{1,17}", text):
        readings.append(float(text))
    elif text in ("true", "false"):
        readings.append(text == "true")
    return tuple(readings)


def _slug(text: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:_ID_LENGTH].rstrip("_")
    return slug if RULE_ID.fullmatch(slug) else f"rule_{slug}".rstrip("_")


def _free(rule_id: str, taken: set[str]) -> str:
    """The id, or with the next number when it is taken."""
    free, number = rule_id, 1
    while free in taken:
        number += 1
        free = f"{rule_id}_{number}"
    taken.add(free)
    return free


def _cells(rule: Rule) -> Iterator[str]:
    _refuse_inexpressible(rule)
    kind = DATE if rule.has_dates else AGGREGATOR
    filtered = rule.attribute
    yield from (kind, rule.event_name)
    yield from (filtered.name, text_of(filtered.values[0])) if filtered else (NO_NAME, NO_NUMBER)
    for condition in (rule.count, rule.sum.condition if rule.sum else None):
        if condition is None or condition.operator is None or condition.target is None:
            yield from (NO_NAME, NO_NUMBER)
        else:
            yield from (condition.operator.value, str(condition.target))
    yield "yes" if rule.reset else "no"
    yield from (rule.period.start or NO_DATE, rule.period.end or NO_DATE)
    yield from (kind + rule.event_name, rule.sum.metric if rule.sum else "", rule.period.zone, rule.rule_id)


def _refuse_inexpressible(rule: Rule) -> None:
    said = Rule(
        rule.rule_id,
        rule.event_name,
        rule.count,
        rule.sum,
        attribute=rule.attribute,
        period=rule.period,
        action=RuleAction(ActionKind.FIRE_EVENT if rule.reset else ActionKind.SET_PROPERTY),
        reset=rule.reset,
        version=rule.version,
        description=rule.description,
        live_from_us=rule.live_from_us,
        act_on_past=rule.act_on_past,
    )
    # The compatible name may be spelled out.
    short = replace(rule, action=replace(rule.action, name="")) if rule.action_name == rule.compatible_name else rule
    readable = rule.attribute is None or _readings(text_of(rule.attribute.values[0])) == rule.attribute.values
    if short != said or not readable or (rule.reset and rule.has_dates):
        raise TableError(f"cannot say the rule {rule.rule_id}: the table has no columns for all of it")
