"""How formatted queries look; that nothing is lost is in test_properties.py."""

import pytest

from services.insights.language.format import format_syntax, format_text
from services.insights.language.parsing import parse_term
from services.insights.language.tree import Dialect


def test_a_clause_and_a_condition_a_line() -> None:
    assert format_text("infer a from t where x=1 and 'b' in y having sum(z)>-2") == (
        'INFER a FROM t\nWHERE x = 1\n  AND "b" IN y\nHAVING SUM(z) > -2\n'
    )


def test_long_selects_take_lines_of_their_own() -> None:
    text = (
        "INFER a FROM t HAVING ABS(SUM(amount)) > SUM(SELECT amount FROM t WHERE 'income' IN tags AND currency = 'GBP' "
        "AND DATETIME_FROM(date_time, 0, 1, 0)) * 0.1"
    )
    assert format_text(text) == (
        "INFER a FROM t\n"
        "HAVING ABS(SUM(amount)) > SUM(SELECT amount FROM t\n"
        '    WHERE "income" IN tags\n'
        '      AND currency = "GBP"\n'
        "      AND DATETIME_FROM(date_time, 0, 1, 0)) * 0.1\n"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("((1))+(2*3)-4", "1 + (2 * 3) - 4"),
        ("(1+2)*3", "(1 + 2) * 3"),
        ("-(1+2)", "-(1 + 2)"),
        ("- - 1", "--1"),
        ("0.10", "0.1"),
        ("100000000000000000000000", "99999999999999991611392"),
        (r"'it\'s \"so\"'", r'"it' + r"'" + r's \"so\""'),
        ("'\u00a0\U000e0001'", r'"\u00a0\udb40\udc01"'),
        ("SUM((SELECT x FROM t))", "SUM(SELECT x FROM t)"),
    ],
)
def test_terms_are_written_in_one_way(text: str, expected: str) -> None:
    assert format_syntax(parse_term(text)) == expected
    assert parse_term(expected) == parse_term(text)


def test_the_extended_dialect_needs_no_parentheses_around_products() -> None:
    text = "INFER a FROM t WHERE x + (y * 2) > 1 OR (NOT (x = 1 OR y = 2) AND z NOT IN (1) AND z NOT BETWEEN 1 AND 2)"
    assert format_text(text, Dialect.EXTENDED) == (
        "INFER a FROM t\nWHERE x + y * 2 > 1 OR NOT (x = 1 OR y = 2) AND z NOT IN (1) AND z NOT BETWEEN 1 AND 2\n"
    )
