"""The grammar, clause by clause, and what a syntax error says."""

import pytest

from services.insights.language.parsing import parse_expression, parse_query
from services.insights.language.syntax import Array, In, Literal, Negation
from tests.insights.asking import codes, errors, having, where


@pytest.mark.parametrize(
    "text",
    [
        "",
        "INFER",
        "INFER a",
        "INFER a FROM",
        "INFER a WHERE amount > 0",
        "INFER a FROM transactions WHERE",
        "INFER a FROM transactions HAVING",
        "INFER a FROM transactions HAVING SUM(amount) > 1 WHERE amount > 0",
        "INFER a FROM transactions WHERE amount > 0 WHERE amount > 0",
        "INFER a FROM transactions INFER b FROM transactions",
        "INFER 'a' FROM transactions",
        "SELECT amount FROM transactions",
        "HAVING SUM(1) = 1",
    ],
)
def test_a_query_is_infer_from_where_having_in_this_order(text: str) -> None:
    (error,) = errors(text)
    assert (error.code.value, error.phase.value) == ("E_SYNTAX", "parse")


@pytest.mark.parametrize(
    "condition",
    [
        "amount = 1 = 1",
        "1 < amount < 3",
        "amount == 1",
        "amount > SELECT amount FROM transactions",
        "amount > SUM(SELECT amount FROM transactions, 10)",
        "amount > SUM(1, SELECT amount FROM transactions)",
        "amount > (SELECT amount, amount FROM transactions)",
        "amount > (SELECT amount FROM transactions HAVING 1 = 1)",
        "currency IN ()",
        "currency IN 'a', 'b'",
        "currency IN ('a', currency)",
        "amount IN (1, 1 + 1)",
        "amount IN (1, --1)",
        "(amount > 1)",
        "(amount > 1 AND amount < 2)",
        "amount > +1",
        "amount > 1 AND",
        "AND amount > 1",
        "amount > (1",
        "amount > 1)",
        "amount BETWEEN 1 AND 2",
        "merchant LIKE 'a'",
        "amount IS NULL",
        "amount amount > 1",
        "SUM amount > 1",
    ],
)
def test_what_the_grammar_does_not_have_is_e_syntax(condition: str) -> None:
    assert where(condition) == ["E_SYNTAX"]


@pytest.mark.parametrize("condition", ["amount > 1 OR amount < 0", "NOT amount > 0", "amount NOT IN (1)", "or"])
def test_or_and_not_are_unsupported_and_the_extended_dialect_is_named(condition: str) -> None:
    (error,) = errors(f"INFER a FROM transactions WHERE {condition}")
    assert (error.code.value, error.phase.value) == ("E_UNSUPPORTED", "parse")
    assert "extended" in error.hint


@pytest.mark.parametrize(
    ("condition", "hint"),
    [
        ("amount BETWEEN 1 AND 2", "extended"),
        ("amount == 1", "single ="),
        ("amount = 1 = 2", "AND"),
        ("amount > SELECT amount FROM transactions", "parentheses"),
        ("currency IN ()", "at least one"),
        ("amount > 1 HAVING 1 = 1 WHERE amount > 2", "before HAVING"),
        ("merchant LIKE 'a'", "no LIKE"),
        ("(amount > 1)", "parentheses around conditions"),
        ("(TRUE AND FALSE)", "parentheses around conditions"),
    ],
)
def test_common_mistakes_have_hints(condition: str, hint: str) -> None:
    (error,) = errors(f"INFER a FROM transactions WHERE {condition}")
    assert hint in error.hint


def test_later_conditions_with_errors_of_their_own_are_told_too() -> None:
    text = (
        "INFER a FROM transactions\nWHERE amount BETWEEN 1 AND 2 AND amount == 3 AND currency IN ()\n"
        "  AND amount > 1 OR merchant = 'a'\nHAVING SUM(amount) > 1 2 AND (amount > 1 AND amount == 2) AND SUM("
    )
    assert [(each.code.value, each.span.line, each.span.column) for each in errors(text)] == [
        ("E_SYNTAX", 2, 14),
        ("E_SYNTAX", 2, 42),
        ("E_SYNTAX", 2, 63),
        ("E_UNSUPPORTED", 3, 18),
        ("E_SYNTAX", 4, 24),
        ("E_SYNTAX", 4, 38),
    ]
    assert len(where(" AND ".join(["amount == 1"] * 100))) == 20
    assert codes("INFER and FROM transactions WHERE amount > 0 AND amount == 1") == ["E_SYNTAX", "E_SYNTAX"]
    assert where("amount > 0 OR amount == 1") == ["E_UNSUPPORTED", "E_SYNTAX"]


def test_one_parenthesised_literal_is_an_array_right_of_in_alone() -> None:
    assert isinstance(parse_in("amount IN (5)").right, Array)
    assert isinstance(parse_in("amount IN (-5)").right, Array)
    assert isinstance(parse_in("amount IN ((5))").right, Literal)
    assert isinstance(parse_in("amount IN ((-5))").right, Negation)
    assert having("SUM(amount) > (10)") == []
    assert where("amount IN ((5))") == ["E_TYPE"]
    assert where("amount IN (amount)") == ["E_TYPE"]
    assert where("'a' IN (tags)") == []
    assert where("'a' IN ((tags))") == []


def test_redundant_parentheses_leave_no_trace() -> None:
    one = parse_query("INFER a FROM t WHERE ((x)) + (1) > (((2))) HAVING SUM((SELECT x FROM t)) = 1")
    assert one == parse_query("INFER a FROM t WHERE x + 1 > 2 HAVING SUM(SELECT x FROM t) = 1")


def test_the_last_place_of_an_error_is_the_end_of_the_text() -> None:
    (error,) = errors("INFER a FROM transactions WHERE\n  ")
    assert (error.span.line, error.span.column) == (2, 3)
    assert "end of the text" in error.message


def test_names_follow_the_grammar() -> None:
    assert codes(f"INFER {'a' * 64} FROM transactions WHERE amount > 0") == []
    assert codes(f"INFER {'a' * 65} FROM transactions WHERE amount > 0") == ["E_LIMIT"]
    assert codes("INFER _A9 FROM transactions WHERE amount > 0") == []
    assert codes("INFER a-b FROM transactions WHERE amount > 0") == ["E_SYNTAX"]


def parse_in(text: str) -> In:
    found = parse_expression(text)
    assert isinstance(found, In)
    return found
