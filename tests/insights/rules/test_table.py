"""The original's table: in with every mistake by row, and out again."""

import contextlib
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.insights.rules.definitions import ActionKind, AttributeFilter, Operator, Rule, RuleAction
from services.insights.rules.table import TableError, read_table, write_table

from .offline_runs import HEADER, as_csv, count, rule
from .strategies import rules


def one(**cells: str) -> Rule:
    table = read_table(as_csv([rule(**cells)]))
    assert not table.errors
    return table.rules[0]


def mistakes(**cells: str) -> list[tuple[str, str]]:
    return [(problem.column, problem.description) for problem in read_table(as_csv([rule(**cells)])).errors]


def test_a_row_says_what_the_original_made_of_it() -> None:
    fired = one(operator_c="greater", target_c="3", resetwhenreachtarget="yes", attributename="a", attributevalue="x y")
    assert (fired.action.kind, fired.reset, fired.action_name) == (ActionKind.FIRE_EVENT, True, "trk_buy_x y")
    dated = one(operator_v="smaller", target_v="2.50", ruletype="date", startdate="2021-02-01")
    assert dated.sum is not None
    assert (dated.sum.condition.operator, dated.sum.condition.target) == (Operator.LESS, Decimal("2.5"))
    assert (dated.count, dated.period.end, dated.action_name) == (None, "", "trk_date_buy")


def test_a_sentinel_of_one_column_is_a_value_in_another() -> None:
    row = one(operator_c="equal", target_c="999", attributename="999", attributevalue="na", eventname="999")
    assert row.count is not None
    assert (row.count.target, row.attribute, row.event_name) == (999, AttributeFilter("999", ("na",)), "999")


def test_a_value_stands_for_the_text_and_for_what_is_written_so() -> None:
    values = {
        text: one(operator_c="equal", target_c="1", attributename="a", attributevalue=text)
        for text in ("3", "1.50", "true", "03")
    }
    readings = {text: row.attribute.values for text, row in values.items() if row.attribute}
    assert readings == {"3": ("3", 3), "1.50": ("1.50", 1.5), "true": ("true", True), "03": ("03",)}


@pytest.mark.parametrize(
    ("cells", "column", "text"),
    [
        ({"ruletype": "dates"}, "RuleType", "must be aggregator or date"),
        ({"eventname": ""}, "EventName", "is missing"),
        ({"eventname": "trk_buy"}, "EventName", "begin with `trk_`"),
        ({"eventname": "_email.open"}, "EventName", "begin with"),
        ({"attributename": "a", "attributevalue": ""}, "AttributeValue", "is missing"),
        ({"operator_c": "at least"}, "Operator-C", "is not an operator"),
        ({"target_c": "three"}, "Target-C", "is not a number"),
        ({"target_c": "2.5"}, "Target-C", "whole number"),
        ({"target_c": "nan"}, "Target-C", "is not a number"),
        ({"target_c": "0"}, "Target-C", "can never be met"),
        ({"operator_v": "every", "target_v": "-1"}, "Target-V", "must be positive"),
        ({"resetwhenreachtarget": "maybe"}, "ResetWhenReachTarget", "must be yes or no"),
        ({"ruletype": "date"}, "StartDate", "neither start nor finish"),
        ({"ruletype": "date", "startdate": "2021-02-30"}, "StartDate", "is not a date"),
        ({"ruletype": "date", "finishdate": "01/02/2021"}, "FinishDate", "is not a date"),
        ({"ruletype": "date", "startdate": "2021-02-02", "finishdate": "2021-02-01"}, "FinishDate", "before the start"),
        ({"ruletype": "date", "startdate": "2021-02-02", "zone": "Mars/Base"}, "Zone", "is not a zone"),
        ({"id": "Not An Id"}, "Id", "lower-case letter"),
    ],
)
def test_each_mistake_is_told_where_it_stands(cells: dict[str, str], column: str, text: str) -> None:
    found = mistakes(**({"operator_c": "equal", "target_c": "1"} | cells))
    assert len(found) == 1
    assert found[0][0] == column
    assert text in found[0][1]


def test_all_mistakes_of_a_table_are_told_at_once_and_sound_rows_are_kept() -> None:
    text = as_csv([count("what", 1, ruletype="x"), count("equal", 1), rule(operator_c="equal", target_c="")])
    table = read_table(text)
    assert [(problem.line, problem.column) for problem in table.errors] == [
        (2, "RuleType"),
        (2, "Operator-C"),
        (4, "Target-C"),
    ]
    assert (len(table.rules), table.lines) == (1, (3,))


def test_rules_of_the_same_name_get_numbers_and_ids_are_kept() -> None:
    table = read_table(as_csv([count("equal", 1), count("equal", 2), count("equal", 3, id="mine")]))
    assert [each.rule_id for each in table.rules] == ["aggregator_buy", "aggregator_buy_2", "mine"]
    assert read_table(write_table(table.rules)).rules == table.rules
    twice = read_table(as_csv([count("equal", 1, id="mine"), count("equal", 2, id="mine")]))
    assert [problem.description for problem in twice.errors] == ["is used twice"]


def test_what_stands_unused_is_a_warning() -> None:
    table = read_table(
        as_csv(
            [
                count("equal", 1, startdate="2021-02-01", target_v="5"),
                count("equal", 1, ruletype="date", startdate="2021-02-01", resetwhenreachtarget="yes"),
            ]
        )
    )
    assert not table.errors
    assert [problem.column for problem in table.problems] == ["Target-V", "StartDate", "ResetWhenReachTarget"]
    assert not table.rules[0].has_dates
    assert not table.rules[1].reset


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the columns RuleType"),
        (HEADER.replace("Operator-C,", ""), "lacks the column Operator-C"),
        (HEADER + ",Metrik", "is it Metric?"),
        (HEADER + ",Target-C", "two columns Target-C"),
        (HEADER + '\naggregator,"buy', "is not CSV"),
    ],
)
def test_a_file_that_is_no_table_says_why(text: str, message: str) -> None:
    with pytest.raises(TableError) as caught:
        read_table(text)
    assert message in str(caught.value)


def test_cells_with_line_ends_and_quotes_survive() -> None:
    row = one(operator_c="equal", target_c="1", attributename='a"b', attributevalue="x\ny, z")
    assert row.attribute == AttributeFilter('a"b', ("x\ny, z",))
    assert read_table(write_table([row])).rules == (row,)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(definition=rules())
def test_what_can_be_written_reads_back_the_same(definition: Rule) -> None:
    try:
        text = write_table([definition])
    except TableError:
        return
    assert read_table(text).rules == (definition,)


def test_what_the_table_cannot_say_is_refused() -> None:
    plain = one(operator_c="equal", target_c="1")
    for other in (
        replace(plain, sticky=True),
        replace(plain, action=RuleAction(ActionKind.SET_PROPERTY, "vip")),
        replace(plain, attribute=AttributeFilter("a", (3,))),
    ):
        with pytest.raises(TableError, match="cannot say the rule"):
            write_table([other])


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(cells=st.lists(st.text(max_size=12), max_size=14), tail=st.text(max_size=40))
def test_no_text_makes_reading_fail_otherwise(cells: list[str], tail: str) -> None:
    for text in (HEADER + "\n" + ",".join(cells) + "\n" + tail, tail):
        with contextlib.suppress(TableError):
            read_table(text)
