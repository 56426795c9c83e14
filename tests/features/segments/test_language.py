"""The language of conditions: what is refused, with which hint; and that nothing breaks it."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from services.features.segments.checking import check
from services.features.segments.language import MAX_NESTING, MAX_TEXT, ConditionError, ConditionParser, Mistake
from tests.features.segments.conditions import SCHEMA, TEXT_CONDITIONS

PARSER = ConditionParser()


def refused(text: str) -> tuple[Mistake, ...] | None:
    """What is wrong with a text; None when it is a condition."""
    try:
        check(PARSER, text, SCHEMA)
    except ConditionError as error:
        return error.mistakes
    return None


def mistakes(text: str) -> list[str]:
    """The same as people read it."""
    return [str(each) for each in refused(text) or ()]


@pytest.mark.parametrize(
    ("text", "place", "part"),
    [
        ("", "line 1, column 1", "there is no condition"),
        ("plan equals 'pro'", "line 1, column 6", "`equals` is no operator"),
        ("plan == 'pro'", "line 1, column 6", "equality is `=`"),
        ("plan = 'pro", "line 1, column 8", "does not end"),
        ("plan = 'a' && churned", "line 1, column 12", "write `and`"),
        ("plan = ", "line 1, column 6", "ends too early"),
        ("plan = 'a'\nand (churned", "line 2, column 6", "ends too early"),
        ("3 = views", "line 1, column 3", "name on the left"),
        ("plan is nul", "line 1, column 9", "expected `null` or `not null`"),
        ("last_seen > now - 3 months", "line 1, column 21", "days or weeks"),
        ("last_seen > now - 999999999 days", "line 1, column 19", "too far from now"),
        ("plna = 'a'", "line 1, column 1", "did you mean `plan`?"),
        ("views = 1", "line 1, column 1", "write `web.views` or `shop.views`"),
        ("wob.views = 1", "line 1, column 1", "did you mean `web`?"),
        ("web.vievs = 1", "line 1, column 1", "did you mean `views`?"),
        ("plan = 3", "line 1, column 8", "write 'text' in quotes"),
        ("web.views = '3'", "line 1, column 13", "without quotes"),
        ("plan", "line 1, column 1", "is no boolean"),
        ("churned > true", "line 1, column 9", "use = or !="),
        ("churned = 'true'", "line 1, column 11", "with true or false"),
        ("plan = null", "line 1, column 8", "write `is null`"),
        ("plan in ('a', 3, null)", "line 1, column 15", "is compared with a number"),
        ("last_seen > 5", "line 1, column 13", "now - 7 days"),
        ("last_seen > 'soon'", "line 1, column 13", "is an instant"),
        ("web.views > now", "line 1, column 13", "is no instant"),
        ("idle > now - 1 day", "line 1, column 8", "seconds, as a number"),
        ("pages = 'x'", "line 1, column 7", "write `contains`"),
        ("address = 'x'", "line 1, column 9", "only null tests"),
        ("plan contains 'x'", "line 1, column 1", "like '%…%' searches a text"),
        ("pages contains 3", "line 1, column 16", "holds texts"),
        ("sizes contains 'x'", "line 1, column 16", "holds numbers"),
        ("web.views like '3%'", "line 1, column 1", "is no text"),
        ("spent > 1e999", "line 1, column 9", "too large"),
    ],
)
def test_a_mistake_has_a_place_and_a_hint(text: str, place: str, part: str) -> None:
    found = mistakes(text)
    assert found[0].startswith(f"{place}: "), found
    assert part in found[0]


def test_all_mistakes_are_named_at_once() -> None:
    found = mistakes("plna = 'a' or plan in (1, 2) and not (churned > true or web.views like 'x')")
    assert [each.split(":")[0].split()[-1] for each in found] == ["1", "24", "27", "47", "57"]


def test_texts_nesting_lists_and_names_are_bounded() -> None:
    assert "at most 16384" in mistakes("churned or " * MAX_TEXT + "churned")[0]
    assert "nested too deeply" in mistakes("not " * (MAX_NESTING + 1) + "churned")[0]
    check(PARSER, "(" * 500 + "churned" + ")" * 500, SCHEMA)
    assert "at most 1000" in mistakes(f"web.views in ({','.join(['1'] * 1001)})")[0]


@settings(max_examples=300, deadline=None)
@given(st.text("abpln.'\"`()=<>!,+-%_ 0159ewo\n\u00e9", max_size=40) | st.text(max_size=20))
def test_any_text_is_a_condition_or_has_mistakes(text: str) -> None:
    found = refused(text)
    lines = text.splitlines() or [""]
    assert found is None or found
    assert all(1 <= each.line <= len(lines) + 1 and each.column >= 1 for each in found or ())


WORDS = st.sampled_from(
    [
        "plan",
        "web.views",
        "spent",
        "churned",
        "last_seen",
        "pages",
        "tags",
        "idle",
        "and",
        "or",
        "not",
        "(",
        ")",
        "in",
        "like",
        "between",
        "is",
        "null",
        "contains",
        "=",
        "!=",
        "<",
        ",",
        "'pro'",
        "3",
        "2.5",
        "true",
        "now",
        "-",
        "7",
        "days",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, max_size=25).map(" ".join))
def test_any_words_of_the_language_are_a_condition_or_have_mistakes(text: str) -> None:
    assert refused(text) != ()


@settings(max_examples=100, deadline=None)
@given(TEXT_CONDITIONS)
def test_case_and_space_of_the_words_mean_nothing(text: str) -> None:
    spaced = text.replace(" and ", "\n\tAND ").replace(" or ", "  Or ").replace("not (", "NOT(")
    assert check(PARSER, spaced, SCHEMA).tree == check(PARSER, text, SCHEMA).tree
