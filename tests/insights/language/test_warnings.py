"""What a query is asked about although it is taken."""

import pytest

from services.insights.language.check import check_query
from services.insights.language.diagnostics import QueryError
from services.insights.language.tree import Dialect
from tests.insights.asking import SOURCES, checked, warnings

BOUND = "DATETIME_FROM(date_time, 0, 1, 0)"
QUIET = f"INFER a FROM transactions WHERE {BOUND} AND currency = 'GBP' AND status = 'booked'"


def test_a_careful_query_draws_none() -> None:
    assert warnings(f"{QUIET} HAVING SUM(amount) > 100") == []


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("WHERE amount > 1", 1),
        (f"WHERE amount > 1 AND {BOUND}", 0),
        ("WHERE amount > 1 AND DATETIME_TO(date_time, 0, 1, 0)", 1),
        (f"WHERE {BOUND} = TRUE", 1),
        (f"WHERE {BOUND} AND amount > (SELECT SUM(amount) FROM transactions)", 1),
        (f"WHERE {BOUND} AND amount > (SELECT SUM(amount) FROM transactions WHERE {BOUND})", 0),
        (f"WHERE {BOUND} AND amount > SUM(amount)", 1),
        ("HAVING SUM(amount) > 1", 1),
        ("HAVING SUM(1, 2) > 2", 0),
    ],
)
def test_columns_read_without_a_top_level_datetime_from_are_unbounded(rest: str, expected: int) -> None:
    assert warnings(f"INFER a FROM transactions {rest}").count("W_UNBOUNDED") == expected


def test_a_policy_makes_unbounded_an_error() -> None:
    text = "INFER a FROM transactions WHERE amount > 1"
    with pytest.raises(QueryError) as caught:
        check_query(text, SOURCES, unbounded_is_error=True)
    assert [each.code.value for each in caught.value.errors] == ["W_UNBOUNDED"]
    assert check_query(f"{text} AND {BOUND}", SOURCES, unbounded_is_error=True).warnings == ()


@pytest.mark.parametrize(
    ("term", "mixed"),
    [("2 + 3 * 4", True), ("10 - 2 / 3", True), ("2 * 3 + 4", False), ("2 + (3 * 4)", False), ("1 - 2 - 3", False)],
)
def test_products_after_sums_are_mixed_precedence(term: str, mixed: bool) -> None:
    found = warnings(f"INFER a FROM transactions HAVING SUM(amount) > {term}")
    assert ("W_MIXED_PRECEDENCE" in found) is mixed
    assert "W_MIXED_PRECEDENCE" not in warnings(f"INFER a FROM transactions HAVING 1 > {term}", Dialect.EXTENDED)


@pytest.mark.parametrize(
    ("condition", "doubtful"),
    [
        ("0.1 + 0.2 = 0.3", True),
        ("SUM(amount) = 0.3", True),
        ("SUM(amount) <> 3", True),
        ("SUM(amount) >= 3", False),
        ("SUM(1, 2, 3) = 6", False),
        ("SUM(SELECT 1 FROM transactions) = 2", False),
        ("6 / 3 = 2", True),
        ("ABS(-2) * 2 - 1 != 3", False),
    ],
)
def test_equality_of_computed_numbers_is_doubted(condition: str, doubtful: bool) -> None:
    assert ("W_FLOAT_EQ" in warnings(f"INFER a FROM transactions HAVING {condition}")) is doubtful


def test_equality_of_what_is_only_read_is_not_doubted() -> None:
    assert "W_FLOAT_EQ" not in warnings("INFER a FROM transactions WHERE amount = 0.1 AND -amount = ABS(amount)")
    assert "W_FLOAT_EQ" in warnings("INFER a FROM transactions WHERE amount * 1.1 = 11")


@pytest.mark.parametrize(
    "rest", ["", "WHERE amount > 0 AND FALSE", "WHERE amount > 0 AND 1 > 2", "HAVING 1 / 0 <> 0", "HAVING 'a' IN ('b')"]
)
def test_what_is_never_true_is_told(rest: str) -> None:
    assert "W_NEVER" in warnings(f"INFER a FROM transactions {rest}")


def test_what_is_always_true_is_told() -> None:
    assert warnings("INFER a FROM transactions HAVING SUM(1, 2, 3) = 6") == ["W_ALWAYS"]
    assert warnings("INFER a FROM transactions HAVING TRUE AND 'a' IN ('a')") == ["W_ALWAYS"]
    assert "W_ALWAYS" not in warnings("INFER a FROM transactions HAVING TRUE AND SUM(amount) > 1")


@pytest.mark.parametrize(
    ("condition", "mixed"),
    [
        ("amount < 0", True),
        ("currency = 'GBP'", False),
        ("'GBP' = currency", False),
        ("currency IN ('GBP')", False),
        ("currency IN ('GBP', 'EUR')", True),
        ("currency <> 'GBP'", True),
    ],
)
def test_amounts_of_one_currency_are_added_up_or_a_warning_is(condition: str, mixed: bool) -> None:
    outer = warnings(f"INFER a FROM transactions WHERE {condition} HAVING SUM(amount) > 1")
    inner = warnings(f"INFER a FROM transactions HAVING SUM(SELECT amount FROM transactions WHERE {condition}) > 1")
    assert [("W_MIXED_CURRENCY" in found) for found in (outer, inner)] == [mixed, mixed]
    assert "W_MIXED_CURRENCY" not in warnings(f"INFER a FROM transactions WHERE {condition}")


def test_counting_adds_no_amounts_up() -> None:
    for term in ("COUNT(amount)", "COUNT(SELECT amount FROM transactions)", "COUNT_DISTINCT(amount)"):
        assert "W_MIXED_CURRENCY" not in warnings(f"INFER a FROM transactions HAVING {term} > 1", Dialect.EXTENDED)
    assert "W_MIXED_CURRENCY" in warnings("INFER a FROM transactions HAVING MAX(amount) > 1", Dialect.EXTENDED)


def test_sums_without_a_condition_on_status_hold_pending_rows() -> None:
    text = f"INFER a FROM transactions WHERE {BOUND} AND currency = 'GBP'"
    assert warnings(f"{text} HAVING SUM(amount) > 1") == ["W_PENDING"]
    assert warnings(f"{text} AND status <> 'pending' HAVING SUM(amount) > 1") == []
    assert warnings(text) == []


def test_warnings_stand_where_the_doubt_is() -> None:
    (warning,) = checked(f"{QUIET}\nHAVING SUM(amount) / 2 = 1").warnings
    assert (warning.code.value, warning.span.line, warning.span.column) == ("W_FLOAT_EQ", 2, 8)
    assert warning.hint
