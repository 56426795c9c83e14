"""Characters, numbers, strings and words, each with its own error at its own place."""

import pytest

from services.insights.language.diagnostics import with_caret
from services.insights.language.tree import Dialect
from tests.insights.asking import checked, codes, errors, having, value, where


@pytest.mark.parametrize("text", ['"tesco"', "'tesco'", r'"tes\u0063o"'])
def test_strings_have_double_or_single_quotes(text: str) -> None:
    assert value(text, term=True) == "tesco"


def test_the_escapes_are_those_of_the_grammar() -> None:
    assert value(r'''"\"\'\\\n\t\u00e9"''', term=True) == "\"'\\\n\té"
    assert value(r"""'it\'s "so"'""", term=True) == 'it\'s "so"'
    assert value(r'"\ud83d\ude00"', term=True) == "😀"


@pytest.mark.parametrize("text", [r'"\x41"', r'"\u12"', '"\\', r'"\ud83d"', '"\ud83d"', "'abc", '"abc\\"'])
def test_a_bad_string_is_e_string(text: str) -> None:
    assert where(f"merchant = {text}") == ["E_STRING"]


def test_an_unknown_escape_is_shown_where_it_stands() -> None:
    (error,) = errors('INFER a FROM transactions\nWHERE merchant = "a\n b\\q"')
    assert (error.span.line, error.span.column) == (3, 3)
    assert "\\uXXXX" in error.hint


@pytest.mark.parametrize("text", ["0AND", "1e5", "1.", "1.2.3", "12abc", "1_000", "9" * 400])
def test_a_bad_number_is_one_bad_token(text: str) -> None:
    assert where(f"amount < {text}") == ["E_NUMBER"]


@pytest.mark.parametrize("character", ["“", "”", ";", ".", "!", "&", "%", "é", "\u200b", "\x00", "\ud800", "["])
def test_a_character_of_no_token_is_e_char(character: str) -> None:
    assert where(f"amount < 1 {character}") == ["E_CHAR"]


def test_typographic_quotes_are_hinted_at() -> None:
    assert "straight" in errors("INFER a FROM transactions WHERE merchant = “tesco”")[0].hint


def test_white_space_is_free_and_nbsp_is_white_space() -> None:
    assert checked("INFER\u00a0a\r\nFROM\ttransactions WHERE\u2003amount<0").name == "a"


def test_several_bad_tokens_are_told_at_once_with_line_and_column() -> None:
    found = errors("INFER a FROM transactions\n  WHERE amount < 1x\r\n  AND ; = “")
    assert [(each.code.value, each.span.line, each.span.column) for each in found] == [
        ("E_NUMBER", 2, 18),
        ("E_CHAR", 3, 7),
        ("E_CHAR", 3, 11),
    ]
    assert {each.phase.value for each in found} == {"lex"}


def test_a_caret_points_at_the_place() -> None:
    text = "INFER a FROM transactions\n\tWHERE amont < 1"
    assert with_caret(text, errors(text)[0]).split("\n")[1:3] == ["  \tWHERE amont < 1", "  \t      ^^^^^"]


def test_keywords_functions_and_truth_values_go_in_any_case_names_do_not() -> None:
    assert checked("infer a From transactions wHere amount < 0 hAving sum(amount) < 0 and True").having is not None
    assert where("AMOUNT < 0") == ["E_COLUMN"]
    assert codes("INFER a FROM Transactions WHERE amount < 0") == ["E_DATASOURCE"]


@pytest.mark.parametrize(
    "word", ["infer", "FROM", "where", "having", "select", "and", "or", "not", "in", "true", "FALSE"]
)
def test_keywords_are_no_names(word: str) -> None:
    assert codes(f"INFER {word} FROM transactions") == ["E_SYNTAX"]


def test_between_is_a_keyword_of_the_extended_dialect_alone() -> None:
    assert codes("INFER between FROM transactions WHERE amount < 0") == []
    assert codes("INFER between FROM transactions WHERE amount < 0", Dialect.EXTENDED) == ["E_SYNTAX"]


def test_numbers_are_doubles() -> None:
    assert value("42.42", term=True) == 42.42
    assert value("007", term=True) == 7.0
    assert having("9007199254740993 = 9007199254740992") == []
    assert value("9007199254740993 = 9007199254740992") is True
