"""What a query means: SEMANTICS 3, rule by rule, over one customer's rows."""

import math

import pytest

from services.insights.direct.outcome import Operand, Outcome, Rows, State
from services.insights.language.tree import Dialect
from tests.insights.asking import NOW_US, amounts, ask, table, us, value

FROM = "INFER a FROM transactions"
ROWS = amounts(-10.0, 5.0, None)
NUMBERS = ("numeric", [1.0, 2.0, 4.0])


def state(text: str, rows: Rows | None = None) -> State:
    return ask(text, rows).state


@pytest.mark.parametrize(
    ("term", "expected"),
    [("2 + 3 * 4", 20.0), ("10 - 2 * 3", 24.0), ("10 - 3 - 2", 5.0), ("100 / 10 / 2", 5.0), ("2 + (3 * 4)", 14.0)],
)
def test_arithmetic_is_one_level_from_left_to_right(term: str, expected: float) -> None:
    assert value(term, term=True) == expected


def test_arithmetic_binds_tighter_than_comparison_and_these_than_and() -> None:
    assert value("1 + 1 = 2 AND 4 = 2 + 2") is True
    assert value("1 + 1 IN (2) AND FALSE") is False
    assert value("-1 + 3 = 2") is True


def test_a_vector_and_a_single_value_make_a_vector_and_so_does_and() -> None:
    assert value("x > 1", {"x": NUMBERS}) == [False, True, True]
    assert value("1 < x AND TRUE", {"x": NUMBERS}) == [False, True, True]
    assert value("x + x = 2 * x AND x <> 2", {"x": NUMBERS}) == [True, False, True]
    assert value("1 < 2 AND TRUE") is True
    assert value("x > 1", {"x": ("numeric", [])}) == []


def test_vectors_of_different_lengths_are_e_length_for_this_customer() -> None:
    text = f"{FROM} WHERE amount > (SELECT amount FROM transactions WHERE amount > 0)"
    failed = ask(text, ROWS)
    assert (failed.state, failed.matched) == (State.ERROR, ())
    assert failed.error is not None
    assert (failed.error.code.value, failed.error.phase.value) == ("E_LENGTH", "eval")
    assert failed.error.span.line == 1
    assert ask(text, amounts(1.0)).state is State.NOT
    assert ask(f"{FROM} WHERE amount > 1 AND (SELECT TRUE FROM transactions WHERE amount > 0)", ROWS).error is not None
    assert ask(f"{FROM} WHERE (SELECT TRUE FROM transactions WHERE amount > 0)", ROWS).error is not None
    assert ask(f"{FROM} HAVING FALSE AND SUM(amount + (SELECT 1 FROM transactions WHERE amount > 0)) > 1", ROWS).error


@pytest.mark.parametrize(
    ("rest", "rows", "expected"),
    [
        ("WHERE amount > 0", ROWS, State.APPLIES),
        ("WHERE amount > 10", ROWS, State.NOT),
        ("WHERE amount > 0", amounts(), State.NOT),
        ("HAVING SUM(amount) < 0", ROWS, State.APPLIES),
        ("HAVING SUM(amount) > 0", ROWS, State.NOT),
        ("HAVING SUM(amount) = 0", amounts(), State.APPLIES),
        ("WHERE amount > 10 HAVING SUM(amount) = 0", ROWS, State.APPLIES),
        ("WHERE amount > 0 HAVING SUM(amount) = 0", ROWS, State.NOT),
        ("WHERE amount > 0 HAVING SUM(amount) = 5", ROWS, State.APPLIES),
        ("", ROWS, State.NOT),
    ],
)
def test_where_alone_having_alone_both_and_neither(rest: str, rows: Rows, expected: State) -> None:
    assert state(f"{FROM} {rest}", rows) is expected


def test_a_customer_without_the_source_has_no_rows() -> None:
    assert ask(f"{FROM} HAVING SUM(amount) = 0") == Outcome(
        State.APPLIES, (), (Operand("SUM(amount) = 0", 0.0, "=", 0.0, True),), 0
    )


def test_a_select_reads_the_unfiltered_source_wherever_it_stands() -> None:
    assert state(f"{FROM} WHERE amount < 0 HAVING SUM(SELECT amount FROM transactions) = -5", ROWS) is State.APPLIES
    assert ask(f"{FROM} WHERE amount > (SELECT SUM(amount) FROM transactions)", ROWS).matched == (1,)
    nested = "SUM(SELECT amount FROM transactions WHERE amount > (SELECT SUM(amount) FROM transactions))"
    assert state(f"{FROM} WHERE amount < 0 HAVING {nested} = 5", ROWS) is State.APPLIES


def test_a_selected_literal_stands_once_for_each_row_and_a_sum_once() -> None:
    assert state(f"{FROM} HAVING SUM(SELECT 1 FROM transactions WHERE amount < 6) = 2", ROWS) is State.APPLIES
    assert state(f"{FROM} HAVING SUM(SELECT 1 + 1 FROM transactions) = 6", ROWS) is State.APPLIES
    assert state(f"{FROM} HAVING SUM(SELECT SUM(amount) FROM transactions) = -5", ROWS) is State.APPLIES
    assert state(f"{FROM} HAVING SUM(SELECT 1 + SUM(1) FROM transactions) = 2", ROWS) is State.APPLIES
    assert ask(f"{FROM} WHERE amount * (SELECT 2 FROM transactions) > 4", ROWS).matched == (1,)


def test_an_aggregate_in_where_reads_the_unfiltered_source_one_in_having_the_filtered_rows() -> None:
    assert ask(f"{FROM} WHERE amount > SUM(amount) AND amount < 100", ROWS).matched == (1,)
    assert ask(f"{FROM} WHERE amount > 0 HAVING SUM(amount) = 5", ROWS).state is State.APPLIES
    inner = "SELECT amount FROM transactions WHERE amount > SUM(amount)"
    assert state(f"{FROM} WHERE amount < 0 HAVING SUM({inner}) = 5", ROWS) is State.APPLIES


def test_sum_takes_everything_exactly() -> None:
    assert value("SUM(1, 2, 3)", term=True) == 6.0
    assert value("SUM(x, 10, x)", {"x": NUMBERS}, term=True) == 24.0
    assert value("SUM(x)", {"x": ("numeric", [])}, term=True) == 0.0
    assert value("SUM(x)", {"x": ("numeric", [1e16, 1.0, -1e16])}, term=True) == 1.0
    assert value("SUM(x, 1)", {"x": ("numeric", [1e16, -1e16])}, term=True) == 1.0
    assert value("SUM(x)", {"x": ("numeric", [0.1] * 10)}, term=True) == 1.0
    assert value("SUM(x)", {"x": ("numeric", [1e308, 1e308, -1e308, -1e308, 7.0])}, term=True) == 7.0
    assert value("SUM(x)", {"x": ("numeric", [1e308, 1e308])}, term=True) is None
    assert value("SUM(x)", {"x": ("numeric", [1.0, None, 2.0])}, term=True) == 3.0


def test_abs_is_elementwise() -> None:
    assert value("ABS(x)", {"x": ("numeric", [-1.0, 0.0, None, 2.0])}, term=True) == [1.0, 0.0, None, 2.0]
    assert value("ABS(SUM(x))", {"x": ("numeric", [-5.0, 1.0])}, term=True) == 4.0
    assert value("-x", {"x": ("numeric", [-1.0, None])}, term=True) == [1.0, None]


def test_in_is_row_wise_whatever_side_is_a_column() -> None:
    columns = {
        "x": ("string", ["a", "b", None]),
        "many": ("stringArray", [("a", "c"), ("c",), None]),
        "n": ("numeric", [1.0, None, 3.0]),
        "ns": ("numericArray", [(1.0,), (2.0,), (1.0, 3.0)]),
        "b": ("boolean", [True, False, None]),
    }
    assert value("x IN many", columns) == [True, False, False]
    assert value("'c' IN many", columns) == [True, True, False]
    assert value("x IN ('a', '')", columns) == [True, False, True]
    assert value("n IN (1, 3)", columns) == [True, False, True]
    assert value("n IN ns", columns) == [True, False, True]
    assert value("b IN (FALSE)", columns) == [False, True, False]
    assert value("2 IN (1, 2, 3)") is True


def test_strings_go_by_code_points_and_exactly() -> None:
    assert value("'a' < 'b' AND 'Z' < 'a' AND 'a' < 'aa' AND 'é' > 'z'") is True
    assert value("'\uffff' < '\U00010000'") is True
    assert value("'gbp' = 'GBP'") is False
    assert value("'é' = 'e\u0301'") is False


def test_booleans_compare_for_equality() -> None:
    assert value("TRUE = TRUE AND TRUE <> FALSE AND FALSE != TRUE") is True
    assert value("flag", {"flag": ("boolean", [True, False, None])}) == [True, False, None]
    assert value("flag AND TRUE", {"flag": ("boolean", [True, False, None])}) == [True, False, False]
    assert value("flag = FALSE", {"flag": ("boolean", [True, False, None])}) == [False, True, False]


@pytest.mark.parametrize("sign", ["=", "<>", "!=", ">", ">=", "<", "<="])
def test_division_by_zero_and_overflow_are_undefined_and_every_comparison_with_them_false(sign: str) -> None:
    huge = "1" + "0" * 308
    for term in ("1 / 0", "0 / 0", f"{huge} * 10", f"-{huge} - {huge}", "1 / 0 * 0", "-(1 / 0)", "ABS(1 / 0)"):
        assert value(f"{term} {sign} 0") is False
        assert value(f"0 {sign} {term}") is False
        assert value(f"{term} {sign} {term}") is False


def test_sum_skips_the_undefined_and_in_does_not_hold_it() -> None:
    columns = {"x": NUMBERS, "y": ("numeric", [1.0, 0.0, 2.0])}
    assert value("SUM(x / y)", columns, term=True) == 3.0
    assert value("SUM(1 / 0)", term=True) == 0.0
    assert value("1 / 0 IN (0, 1)") is False


def test_the_explanation_counts_the_undefined() -> None:
    found = ask(f"{FROM} WHERE amount / 0 > 1 AND amount > 0 HAVING SUM(amount, 1 / 0) > 1 / 0", ROWS)
    # Three rows against 1, the missing amount against 0, and in HAVING an element and a side.
    assert found.undefined_count == 3 + 1 + 1 + 1
    assert ask(f"{FROM} WHERE amount > 0", amounts(1.0)).undefined_count == 0


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_rows_without_a_finite_number_have_none(bad: float) -> None:
    assert ask(f"{FROM} WHERE amount = amount", amounts(bad, 1.0)).matched == (1,)


def test_missing_values_are_the_empty_string_the_empty_array_and_undefined() -> None:
    rows = table([{}])
    assert state(f"{FROM} WHERE merchant = ''", rows) is State.APPLIES
    assert state(f"{FROM} WHERE merchant <> 'a'", rows) is State.APPLIES
    assert ask(f"{FROM} WHERE '' IN tags", rows) == Outcome(State.NOT)
    for condition in (
        "amount = amount",
        "amount <> 1",
        "date_time = date_time",
        "DATETIME_FROM(date_time, 9000, 0, 0)",
    ):
        assert state(f"{FROM} WHERE {condition}", rows) is State.NOT
    assert state(f"{FROM} WHERE DATETIME_TO(date_time, 0, 0, 0)", rows) is State.NOT
    assert state(f"{FROM} WHERE merchant = ''", Rows(1, {})) is State.APPLIES


def within(period: str, instants: list[str | None], now: str = "2024-06-15T12:00:00", name: str = "FROM") -> list[bool]:
    items = [None if instant is None else us(instant) for instant in instants]
    found: list[bool] = value(f"DATETIME_{name}(at, {period})", {"at": ("datetime", items)}, now_us=us(now))
    return found


def test_datetime_from_is_exclusive_and_the_future_is_inside() -> None:
    instants = ["2024-06-12T12:00:00.000001", "2024-06-12T12:00:00", "2030-01-01T00:00:00"]
    assert within("0, 0, 3", instants) == [True, False, True]
    assert within("0, 0, 0", ["2024-06-15T12:00:00", "2024-06-15T12:00:01"]) == [False, True]


def test_datetime_to_is_the_exact_complement() -> None:
    instants = ["2024-06-12T12:00:00.000001", "2024-06-12T12:00:00", "2030-01-01T00:00:00"]
    assert within("0, 0, 3", instants, name="TO") == [False, True, False]


def test_years_and_months_go_first_then_days_of_24_hours() -> None:
    # 30 March less a month is the last instant of 28 February; a day less, of the 27th.
    assert within("0, 1, 1", ["2023-02-27T23:59:59.999999", "2023-02-28T00:00:00"], "2023-03-30T09:00:00") == [
        False,
        True,
    ]
    assert within("1, 1, 0", ["2023-05-15T12:00:00", "2023-05-15T12:00:01"]) == [False, True]


def test_a_day_the_month_does_not_have_becomes_the_last_instant_of_that_month() -> None:
    assert within("0, 1, 0", ["2023-02-28T18:00:00", "2023-03-01T00:00:00"], "2023-03-31T12:00:00") == [False, True]
    assert within("0, 1, 0", ["2024-02-29T23:00:00", "2024-03-01T00:00:00"], "2024-03-31T00:00:00") == [False, True]
    assert within("1, 0, 0", ["2023-02-28T23:59:59", "2023-03-01T00:00:00"], "2024-02-29T12:00:00") == [False, True]


def test_a_period_beyond_year_1_has_no_lower_bound() -> None:
    assert within("9000, 0, 0", ["1970-01-01T00:00:00"]) == [True]
    assert within(f"0, {'9' * 300}, {'9' * 300}", ["1970-01-01T00:00:00", None]) == [True, False]


def test_now_is_an_input() -> None:
    rows = table([{"date_time": us("2024-06-10T00:00:00")}])
    text = f"{FROM} WHERE DATETIME_FROM(date_time, 0, 1, 0)"
    assert ask(text, rows, now_us=NOW_US).state is State.APPLIES
    assert ask(text, rows, now_us=us("2024-07-10T00:00:00")).state is State.NOT
    assert ask(text, rows, now_us=us("2024-07-09T23:59:59")).state is State.APPLIES


def test_a_computed_period_that_is_not_whole_is_e_integer_for_this_customer() -> None:
    text = f"{FROM} WHERE DATETIME_FROM(date_time, 0, 0, SUM(amount))"
    rows = table([{"amount": 3.0, "date_time": NOW_US}])
    assert ask(text, rows).state is State.APPLIES
    for bad in (1.5, -1.0):
        failed = ask(text, table([{"amount": bad, "date_time": NOW_US}]))
        assert failed.state is State.ERROR
        assert failed.error is not None
        assert (failed.error.code.value, failed.error.phase.value) == ("E_INTEGER", "eval")
    undefined = f"{FROM} WHERE DATETIME_FROM(date_time, 0, 0, 1 / SUM(amount))"
    assert ask(undefined, table([{"amount": 0.0, "date_time": NOW_US}])).state is State.ERROR


def test_the_explanation_has_the_rows_kept_and_the_operands() -> None:
    rows = table(
        [
            {"amount": -250.0, "merchant": "b"},
            {"amount": 2000.0, "tags": ("income",)},
            {"amount": -1.0, "merchant": "b"},
        ]
    )
    found = ask(
        f"{FROM} WHERE merchant = 'b'\nHAVING ABS(SUM(amount)) >\n SUM(SELECT amount FROM transactions "
        "WHERE 'income' IN tags) * 0.1 AND 'x' IN ('x', 'y') AND TRUE",
        rows,
    )
    assert found.state is State.APPLIES
    assert found.matched == (0, 2)
    first, second, third = found.operands
    assert (first.left, first.operator, first.right, first.result) == (251.0, ">", 200.0, True)
    assert [each.values for each in found.operands] == ["251 > 200", '"x" IN ("x", "y")', "TRUE"]
    assert first.text.startswith("ABS(SUM(amount)) >\n")
    assert (second.left, second.operator, second.right) == ("x", "IN", ("x", "y"))
    assert third == Operand("TRUE", True, "", None, True)


def test_operands_are_shown_for_people() -> None:
    assert Operand("", 0.1 + 0.2, "<>", None, False).values == "0.3 <> undefined"
    assert Operand("", NOW_US, ">", NOW_US - 1, True).values == "2024-06-15T12:00:00Z > 2024-06-15T11:59:59.999999Z"


def test_an_instant_that_no_calendar_has_is_shown_in_microseconds() -> None:
    assert Operand("", 2**62, "=", True, False).values == f"{2**62} us = TRUE"


def test_the_extended_dialect() -> None:
    def extended(text: str, columns: dict[str, tuple[str, list[object]]] | None = None) -> object:
        return value(text, columns, dialect=Dialect.EXTENDED)

    columns: dict[str, tuple[str, list[object]]] = {
        "x": ("numeric", [1.0, 2.0, None]),
        "at": ("datetime", [NOW_US - 3_600_000_000, NOW_US - 1, None]),
    }
    assert extended("2 + 3 * 4 = 14 AND (2 + 3) * 4 = 20 AND 10 - 4 - 3 = 3") is True
    assert extended("TRUE OR FALSE AND FALSE") is True
    assert extended("(TRUE OR FALSE) AND FALSE") is False
    assert extended("NOT x > 1", columns) == [True, False, True]
    assert extended("NOT flag", {"flag": ("boolean", [True, False, None])}) == [False, True, True]
    assert extended("NOT 1 = 2 AND FALSE") is False
    assert extended("x > 1 OR FALSE", columns) == [False, True, False]
    assert extended("x BETWEEN 1 AND 1 + 1 AND TRUE", columns) == [True, True, False]
    assert extended("x NOT BETWEEN 1 AND 1", columns) == [False, True, True]
    assert extended("x NOT IN (1)", columns) == [False, True, True]
    assert extended("x IN (SELECT x FROM columns WHERE x > 1)", columns) == [False, True, False]
    assert extended("DATETIME_FROM(at, 0, 0, 0, 1)", columns) == [False, True, False]
    assert extended("DATETIME_FROM(at, 0, 0, 0, 1, 1) AND DATETIME_TO(at, 0, 0, 0, 0, 1)", columns) == [
        True,
        False,
        False,
    ]
    assert extended("COUNT(x) = 2 AND COUNT(x, 1) = 3 AND COUNT(SELECT 1 FROM columns) = 3", columns) is True
    assert extended("AVG(x) = 1.5 AND MIN(x) = 1 AND MAX(x, 7) = 7 AND COUNT_DISTINCT(x, 1) = 2", columns) is True
    assert extended("MAX(at) > MIN(at) AND DATETIME_FROM(MAX(at), 0, 0, 0, 0, 1)", columns) is True
    assert extended("MIN(x) = 0 OR MAX(x) <> 0 OR AVG(x) = 0", {"x": ("numeric", [])}) is False
    assert extended("MIN('b', 'a') = 'a' AND AVG(1, 2) = 1.5 AND MAX(1, 2) = 2 AND COUNT_DISTINCT(1, 1) = 1") is True
