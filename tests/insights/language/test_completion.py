"""What an editor offers at a place."""

import pytest

from services.insights.language.completion import CompletionKind, complete
from services.insights.language.sources import SourceSchema, sources_of, transactions
from services.insights.language.tree import Dialect
from services.insights.language.types import Type

SOURCES = sources_of([transactions(), SourceSchema("visits", {"pages": Type.named("numeric")})])


def offered(text: str, dialect: Dialect = Dialect.STRICT) -> list[str]:
    """What may stand at the | in the text."""
    before, _, after = text.partition("|")
    found = complete(before + after, len(before), SOURCES, dialect)
    return [item.text for item in found.items]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("|", ["INFER"]),
        ("INFER |", []),
        ("INFER a |", ["FROM"]),
        ("INFER a FROM |", ["transactions", "visits"]),
        ("INFER a FROM transactions |", ["HAVING", "WHERE"]),
        ("INFER a FROM transactions WHERE am|", ["amount"]),
        ("INFER a FROM transactions WHERE dat|", ["date_time", "DATETIME_FROM", "DATETIME_TO"]),
        ("INFER a FROM transactions WHERE amount > 1 |", ["AND", "HAVING", "+", "-", "*", "/"]),
        ("INFER a FROM transactions WHERE merchant = 'am|", []),
        ("INFER a FROM transactions WHERE WHERE |", []),
        ("INFER a FROM visits WHERE p|", ["pages"]),
        ("INFER a FROM visits HAVING SUM(SELECT am| FROM transactions) > 1", ["amount"]),
        ("INFER a FROM transactions HAVING SUM(SELECT p| FROM visits WHERE pages > 1) > 1", ["pages"]),
    ],
)
def test_what_may_follow_is_offered(text: str, expected: list[str]) -> None:
    assert offered(text) == expected


def test_dialects_offer_their_own() -> None:
    assert "NOT" not in offered("INFER a FROM transactions WHERE |")
    assert {"NOT", "COUNT"} <= set(offered("INFER a FROM transactions WHERE |", Dialect.EXTENDED))
    assert "BETWEEN" in offered("INFER a FROM transactions WHERE amount |", Dialect.EXTENDED)


def test_a_completion_says_what_it_is_and_what_it_replaces() -> None:
    text = "INFER a FROM transactions WHERE am > 1"
    found = complete(text, text.index("am") + 2, SOURCES)
    assert (found.start, found.end) == (32, 34)
    (item,) = found.items
    assert (item.kind, item.detail) == (CompletionKind.COLUMN, "numeric")
