"""Random queries: the formatter loses nothing, the checker takes them, and no text makes anything crash."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.insights.language import syntax
from services.insights.language.check import check_query
from services.insights.language.completion import complete
from services.insights.language.diagnostics import with_caret
from services.insights.language.format import format_query, format_text
from services.insights.language.limits import MAX_BYTES
from services.insights.language.parsing import parse_query
from services.insights.language.tree import Dialect
from tests.insights.asking import SOURCES, errors
from tests.insights.strategies import near_queries, queries, query_trees

DIALECTS = st.sampled_from(Dialect)


@settings(max_examples=150, deadline=None)
@given(st.data(), DIALECTS)
def test_a_formatted_tree_parses_to_itself(data: st.DataObject, dialect: Dialect) -> None:
    tree: syntax.Query = data.draw(query_trees(dialect))
    text = format_query(tree, dialect)
    assert parse_query(text, dialect) == tree
    assert format_text(text, dialect) == text


@settings(max_examples=150, deadline=None)
@given(st.data(), DIALECTS)
def test_well_typed_queries_are_taken_and_equal_ones_are_equal(data: st.DataObject, dialect: Dialect) -> None:
    text = data.draw(queries(dialect))
    query = check_query(text, SOURCES, dialect)
    again = check_query("\n\n" + text.replace(" ", "\t "), SOURCES, dialect)
    assert query == again
    assert hash(query) == hash(again)


@settings(max_examples=300, deadline=None)
@given(near_queries() | st.text(max_size=60), DIALECTS)
@example('INFER a FROM transactions WHERE merchant = "\\ud83d"', Dialect.STRICT)
@example("\ufeffINFER", Dialect.STRICT)
@example("INFER a FROM transactions WHERE " + "-" * 400 + "amount = 1", Dialect.STRICT)
def test_every_text_is_a_query_or_has_errors_with_a_place(text: str, dialect: Dialect) -> None:
    for offset in (0, len(text) // 2, len(text)):
        complete(text, offset, SOURCES, dialect)
    lines = text.split("\n")
    for each in errors(text, dialect):
        assert 0 <= each.span.start <= each.span.end <= len(text)
        assert 1 <= each.span.column <= len(lines[each.span.line - 1]) + 1
        assert each.message
        assert with_caret(text, each)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from("(-,1a\"'\\. \n+=\u00a0;") | near_queries(), DIALECTS)
def test_long_repetition_neither_crashes_nor_recurses(data: st.DataObject, unit: str, dialect: Dialect) -> None:
    head = data.draw(st.sampled_from(("", "INFER a FROM transactions WHERE ", "INFER a FROM transactions HAVING SUM(")))
    text = (head + unit * (MAX_BYTES // max(1, len(unit.encode("utf-8", "surrogatepass")))))[:MAX_BYTES]
    errors(text, dialect)
