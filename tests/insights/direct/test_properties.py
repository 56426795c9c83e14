"""Random queries over random rows: what must hold whatever they say."""

from itertools import pairwise

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from services.insights.direct.evaluator import evaluate
from services.insights.direct.outcome import Outcome, Rows, State
from services.insights.language.constants import is_constant
from services.insights.language.constants import value_of as constant_value
from services.insights.language.format import format_text
from services.insights.language.tree import Dialect, conjuncts
from tests.insights.asking import NOW_US, ask, checked, warnings
from tests.insights.strategies import PERIODS, queries, rows

DIALECTS = st.sampled_from(Dialect)
DAY_US = 86_400_000_000


@settings(max_examples=150, deadline=None)
@given(st.data(), DIALECTS, rows())
def test_an_evaluation_answers_every_well_typed_query(data: st.DataObject, dialect: Dialect, given_rows: Rows) -> None:
    text = data.draw(queries(dialect))
    found = ask(text, given_rows, dialect=dialect)
    assert found == ask(format_text(text, dialect), given_rows, dialect=dialect)
    assert (found.error is not None) is (found.state is State.ERROR)
    if found.error is None:
        query = checked(text, dialect)
        assert list(found.matched) == sorted(set(found.matched) & set(range(given_rows.count)))
        assert len(found.operands) == len(conjuncts(query.having))
        if query.having is not None:
            assert (found.state is State.APPLIES) is all(operand.result for operand in found.operands)
        else:
            assert (found.state is State.APPLIES) is bool(query.where is not None and found.matched)


@settings(max_examples=100, deadline=None)
@given(queries(), rows())
def test_a_strict_query_means_the_same_in_the_extended_dialect(text: str, given_rows: Rows) -> None:
    assume("W_MIXED_PRECEDENCE" not in warnings(text))
    strict, extended = (ask(text, given_rows, dialect=dialect) for dialect in Dialect)
    assert (strict.state, strict.matched) == (extended.state, extended.matched)


@settings(max_examples=100, deadline=None)
@given(st.data(), DIALECTS, rows())
def test_no_answer_depends_on_the_order_of_rows(data: st.DataObject, dialect: Dialect, given_rows: Rows) -> None:
    text = data.draw(queries(dialect, whole_selects=True))
    order = data.draw(st.permutations(range(given_rows.count)))
    shuffled = Rows(given_rows.count, {name: [values[i] for i in order] for name, values in given_rows.columns.items()})
    one, other = (ask(text, each, dialect=dialect) for each in (given_rows, shuffled))
    assert (one.state, one.operands, one.undefined_count) == (other.state, other.operands, other.undefined_count)
    assert set(one.matched) == {order[index] for index in other.matched}


@settings(max_examples=100, deadline=None)
@given(st.data(), rows())
def test_another_condition_keeps_no_more_rows(data: st.DataObject, given_rows: Rows) -> None:
    text = data.draw(queries(whole_selects=True)).split("\nHAVING")[0]
    joined = " AND " if "WHERE" in text else " WHERE "
    fewer = ask(f"{text}{joined}amount > 0", given_rows)
    assert set(fewer.matched) <= set(ask(text, given_rows).matched)


@settings(max_examples=60, deadline=None)
@given(rows(), st.sampled_from(PERIODS), st.integers(-400, 400))
def test_from_and_to_share_the_instants_out_and_each_row_leaves_once(
    given_rows: Rows, period: tuple[int, int, int], shift: int
) -> None:
    parts = ", ".join(map(str, period))
    now_us = NOW_US + shift * DAY_US

    def kept(name: str, at_us: int) -> set[int]:
        text = f"INFER a FROM transactions WHERE DATETIME_{name}(date_time, {parts})"
        return set(ask(text, given_rows, now_us=at_us).matched)

    known = {index for index, instant in enumerate(given_rows.columns["date_time"]) if instant is not None}
    assert kept("FROM", now_us) | kept("TO", now_us) == known
    assert not kept("FROM", now_us) & kept("TO", now_us)
    walk = [kept("FROM", now_us + step * DAY_US // 2) for step in range(12)]
    assert all(later <= earlier for earlier, later in pairwise(walk))


@settings(max_examples=150, deadline=None)
@given(st.data(), DIALECTS)
def test_what_is_known_at_creation_is_what_is_evaluated(data: st.DataObject, dialect: Dialect) -> None:
    query = checked(data.draw(queries(dialect)), dialect)
    found: Outcome = evaluate(query, {}, NOW_US)
    if found.error is None:
        for part, operand in zip(conjuncts(query.having), found.operands, strict=True):
            if is_constant(part):
                assert bool(constant_value(part)) is operand.result
