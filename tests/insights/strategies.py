"""Random INFER: well-typed queries as syntax trees, the rows they are asked about, and texts that are nearly queries.

Names, values and instants come from small sets, so that conditions hold now and then and rows stand on the edges of
windows. `queries` and `rows` are what an evaluator's property needs; both speak of `transactions`.
"""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from services.insights.direct.outcome import Cell, Rows
from services.insights.language import syntax
from services.insights.language.diagnostics import Span
from services.insights.language.format import format_query
from services.insights.language.tree import ArithmeticOperator, ComparisonOperator, Dialect
from services.kernel.windows import cutoff_us
from tests.insights.asking import NOW_US

NOWHERE = Span(0, 0, 1, 1)
SOURCE = syntax.Name("transactions", NOWHERE)
WORDS = ("", "a", "b", "income", "GBP", "EUR")
STRING_COLUMNS = ("currency", "status", "category_l1", "merchant")
ARRAY_COLUMNS = ("tags", "names")
PERIODS = ((0, 0, 0), (0, 0, 1), (0, 0, 30), (0, 1, 0), (0, 1, 3), (1, 0, 0), (9000, 0, 0))
NUMBERS = (0.0, 1.0, 2.0, 3.0, 10.0, 0.1, 0.5, 1e16, 1e308)
_ORDERED = st.sampled_from(ComparisonOperator)
Draw = Callable[[SearchStrategy[Any]], Any]


@st.composite
def rows(draw: Draw, max_rows: int = 6, now_us: int = NOW_US) -> Rows:
    """A customer's transactions: missing values, huge and opposite amounts, instants on the cutoffs' edges."""
    count = draw(st.integers(0, max_rows))
    edges = sorted({cutoff_us(now_us, *period) for period in PERIODS[:-1]} | {now_us})
    instants = st.sampled_from(edges).flatmap(lambda edge: st.sampled_from((edge - 1, edge, edge + 1, edge + 10**12)))
    amounts = st.sampled_from((*NUMBERS, *(-number for number in NUMBERS))) | st.integers(-50, 50).map(float)
    words = st.sampled_from(WORDS)
    kinds: dict[str, SearchStrategy[Any]] = {
        "date_time": instants,
        "amount": amounts,
        **dict.fromkeys(STRING_COLUMNS, words),
        **dict.fromkeys(ARRAY_COLUMNS, st.lists(words, max_size=3).map(tuple)),
    }
    columns: dict[str, list[Cell]] = {
        name: draw(st.lists(st.none() | kind, min_size=count, max_size=count)) for name, kind in kinds.items()
    }
    return Rows(count, columns)


def queries(dialect: Dialect = Dialect.STRICT, *, whole_selects: bool = False) -> SearchStrategy[str]:
    """Texts of queries that the checker takes; see `query_trees`."""
    return query_trees(dialect, whole_selects=whole_selects).map(lambda tree: format_query(tree, dialect))


@st.composite
def query_trees(draw: Draw, dialect: Dialect = Dialect.STRICT, *, whole_selects: bool = False) -> syntax.Query:
    """Well-typed queries, within the limits.

    `whole_selects`: SELECTs give one value, so that no answer depends on how two vectors lie beside each other.
    """
    make = _Maker(draw, dialect, whole_selects)
    where = make.where(2) if draw(st.integers(0, 4)) else None
    having = make.conditions(2, vector=False) if draw(st.booleans()) else None
    return syntax.Query(syntax.Name("a", NOWHERE), SOURCE, where, having, NOWHERE)


@st.composite
def near_queries(draw: Draw) -> str:
    """Queries with pieces lost, doubled, swapped or put in: most are wrong somewhere."""
    text = draw(queries() | queries(Dialect.EXTENDED))
    pieces = text.split(" ")
    extra = st.sampled_from(
        ("(", ")", ",", "-", "NOT", "SELECT", "'", '"x', "\\", "1e5", "“", "\ud800", "\x00", "SUM(")
    )
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(pieces)))
        change = draw(st.integers(0, 2))
        if change == 0:
            pieces.insert(at, draw(extra | st.text(max_size=3)))
        elif change == 1:
            pieces[at : at + 1] = []
        else:
            pieces[at:at] = pieces[at : at + 2]
    return " ".join(pieces)


class _Maker:
    """Draws the parts of one query; `depth` is how much nesting may still come."""

    def __init__(self, draw: Draw, dialect: Dialect, whole_selects: bool) -> None:
        self._draw = draw
        self._extended = dialect is Dialect.EXTENDED
        self._whole_selects = whole_selects

    def where(self, depth: int) -> syntax.Syntax:
        """Conditions of which one at least is a vector: the first compares a column."""
        first = self.row_condition(depth)
        rest = [self.condition(depth, vector=self._draw(st.booleans())) for _ in range(self._draw(st.integers(0, 2)))]
        if not rest:
            return first
        joined = syntax.Either if self._extended and self._draw(st.booleans()) else syntax.Every
        return joined((first, *rest), NOWHERE)

    def conditions(self, depth: int, *, vector: bool) -> syntax.Syntax:
        """One condition or several."""
        parts = tuple(self.condition(depth, vector=vector) for _ in range(self._draw(st.integers(1, 3))))
        if len(parts) == 1:
            return parts[0]
        return syntax.Every(parts, NOWHERE)

    def row_condition(self, depth: int) -> syntax.Syntax:
        """A condition about a column."""
        draw = self._draw
        kind = draw(st.integers(0, 6))
        if kind <= 1:
            return self.within()
        if kind == 2:
            column = syntax.Reference(draw(st.sampled_from(ARRAY_COLUMNS)), NOWHERE)
            return syntax.In(self.word(), column, NOWHERE)
        if kind == 3:
            return syntax.In(self.word_column(), self.words(), NOWHERE)
        if kind == 4:
            return syntax.Comparison(draw(_ORDERED), self.word_column(), self.word(), NOWHERE)
        amount = syntax.Reference("amount", NOWHERE)
        return syntax.Comparison(draw(_ORDERED), amount, self.number(depth, vector=True), NOWHERE)

    def condition(self, depth: int, *, vector: bool) -> syntax.Syntax:
        """A condition; without `vector` one value for certain."""
        draw = self._draw
        if self._extended and depth and draw(st.integers(0, 2)) == 0:
            return self._extended_condition(depth - 1, vector)
        kind = draw(st.integers(0, 5))
        if vector and kind <= 2:
            return self.row_condition(depth)
        if kind == 3:
            return syntax.Literal(draw(st.booleans()), NOWHERE)
        if kind == 4:
            return syntax.In(self.word(), self.words(), NOWHERE)
        sides = (self.number(depth, vector=vector), self.number(depth, vector=vector))
        return syntax.Comparison(draw(_ORDERED), *sides, NOWHERE)

    def _extended_condition(self, depth: int, vector: bool) -> syntax.Syntax:
        kind = self._draw(st.integers(0, 4))
        if kind == 0:
            return syntax.Inverse(self.condition(depth, vector=vector), NOWHERE)
        if kind == 1:
            return syntax.Between(*(self.number(depth, vector=vector) for _ in range(3)), NOWHERE)
        if kind == 2:
            select = syntax.Subselect(self.word_column(), SOURCE, self.where(0), NOWHERE)
            return syntax.In(self.word_column() if vector else self.word(), select, NOWHERE)
        joined = syntax.Either if kind == 3 else syntax.Every
        return joined(tuple(self.condition(depth, vector=vector) for _ in range(2)), NOWHERE)

    def number(self, depth: int, *, vector: bool) -> syntax.Syntax:
        """A numeric term."""
        draw = self._draw
        kind = draw(st.integers(0, 7))
        if vector and kind <= 1:
            return syntax.Reference("amount", NOWHERE)
        if depth == 0 or kind <= 2:
            return syntax.Literal(draw(st.sampled_from(NUMBERS)), NOWHERE)
        if kind == 3:
            return syntax.Negation(self.number(depth - 1, vector=vector), NOWHERE)
        if kind == 4:
            return self._call("ABS", self.number(depth - 1, vector=vector))
        if kind == 5:
            return self._chain(depth - 1, vector)
        if kind == 6 and vector and not self._whole_selects:
            return self._select(depth - 1)
        return self._aggregate(depth - 1)

    def _chain(self, depth: int, vector: bool) -> syntax.Syntax:
        draw = self._draw
        signs = st.sampled_from(ArithmeticOperator)
        if self._extended:
            products = draw(st.booleans())
            signs = st.sampled_from(list(ArithmeticOperator)[2:] if products else list(ArithmeticOperator)[:2])
        rest = tuple((draw(signs), self.number(depth, vector=vector)) for _ in range(draw(st.integers(1, 3))))
        return syntax.Chain(self.number(depth, vector=vector), rest, NOWHERE)

    def _aggregate(self, depth: int) -> syntax.Syntax:
        draw = self._draw
        name = "SUM"
        if self._extended:
            name = draw(st.sampled_from(("SUM", "COUNT", "AVG", "MIN", "MAX", "COUNT_DISTINCT")))
        if draw(st.integers(0, 2)) == 0:
            return self._call(name, self._select(depth))
        return self._call(name, *(self.number(depth, vector=True) for _ in range(draw(st.integers(1, 2)))))

    def _select(self, depth: int) -> syntax.Syntax:
        where = self.where(depth) if self._draw(st.booleans()) else None
        return syntax.Subselect(self.number(min(depth, 1), vector=True), SOURCE, where, NOWHERE)

    def within(self) -> syntax.Syntax:
        """A window on the rows' instants."""
        draw = self._draw
        name = draw(st.sampled_from(("DATETIME_FROM", "DATETIME_TO")))
        parts = [syntax.Literal(float(each), NOWHERE) for each in draw(st.sampled_from(PERIODS))]
        if self._extended and draw(st.booleans()):
            parts += [syntax.Literal(float(draw(st.integers(0, 30))), NOWHERE) for _ in range(draw(st.integers(1, 2)))]
        return self._call(name, syntax.Reference("date_time", NOWHERE), *parts)

    def word(self) -> syntax.Syntax:
        """A string."""
        return syntax.Literal(self._draw(st.sampled_from(WORDS)), NOWHERE)

    def word_column(self) -> syntax.Syntax:
        """A column of strings."""
        return syntax.Reference(self._draw(st.sampled_from(STRING_COLUMNS)), NOWHERE)

    def words(self) -> syntax.Syntax:
        """An array of strings."""
        return syntax.Array(tuple(self.word() for _ in range(self._draw(st.integers(1, 3)))), NOWHERE)

    @staticmethod
    def _call(name: str, *arguments: syntax.Syntax) -> syntax.Syntax:
        return syntax.Call(syntax.Name(name, NOWHERE), arguments, NOWHERE)
