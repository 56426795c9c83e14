"""Whatever is given for a template's places, its query is taken and says what the template says."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.insights.direct.outcome import Cell, State
from services.insights.language.check import check_query
from services.insights.language.diagnostics import Code
from services.insights.language.sources import sources_of, transactions
from services.insights.template_library import Template
from services.insights.template_parameters import (
    MAX_TEXT,
    Parameter,
    ParameterType,
    join_texts,
    read_number,
    read_period,
    read_text,
    read_texts,
)
from services.insights.templates import compare, get, render, templates
from services.kernel.windows import cutoff_us
from services.runtime.errors import InvalidArgument, NotFound
from tests.insights.asking import NOW_US, table

Row = Mapping[str, Any]
Places = Mapping[str, Any]
TEMPLATES = {template.template_id: template for template in templates()}
REQUIRED = {"categories": "coffee", "merchants": "Lotto"}
REQUIRED_OF = {
    template.template_id: {
        name: text for name, text in REQUIRED.items() if name in {p.name for p in template.parameters}
    }
    for template in TEMPLATES.values()
}
MISTAKES = {"amount": "1000.50", "period": "30D or 3M", "currency": "1 to 256", "merchants": "must be given"}
DAY_US = 86_400_000_000
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda text: text.strip() != ""
)
AWKWARD = st.sampled_from(
    ('"', "\\", "'", '") OR ("" = "', "a, b", "{amount}", "-- x", "\n", "\u2028", "\U0001f600", "a")
)


# What each template says, in plain Python.


def money(places: Places, row: Row) -> bool:
    return bool(row["currency"] == places["currency"]) and row["status"] != "declined"


def spent(places: Places, row: Row, place: str = "period") -> bool:
    return row["credit_debit_indicator"] == "debit" and money(places, row) and inside(places, row, place)


def received(places: Places, row: Row) -> bool:
    return row["credit_debit_indicator"] == "credit" and money(places, row)


def inside(places: Places, row: Row, place: str = "period") -> bool:
    return bool(row["date_time"] > cutoff_us(NOW_US, 0, places[place].months, places[place].days))


def total(rows: Sequence[Row]) -> float:
    return abs(math.fsum(row["amount"] for row in rows))


def lapsed(places: Places, rows: Sequence[Row]) -> bool:
    paid = [row for row in rows if row["credit_debit_indicator"] == "debit" and row["status"] != "declined"]
    mine = [row for row in paid if row["currency"] == places["currency"]]
    return total(mine) > places["amount"] and not any(inside(places, row) for row in paid)


def new_at(places: Places, rows: Sequence[Row]) -> bool:
    paid = [
        inside(places, row)
        for row in rows
        if row["merchant"] in places["merchants"]
        and row["credit_debit_indicator"] == "debit"
        and row["status"] != "declined"
    ]
    return bool(paid) and all(paid)


def gambler(places: Places, rows: Sequence[Row]) -> bool:
    gambled = [row for row in rows if row["category_l1"] in places["categories"] and spent(places, row)]
    income = [row for row in rows if places["tag"] in row["tags"] and money(places, row) and inside(places, row)]
    return bool(total(gambled) > math.fsum(row["amount"] for row in income) * places["share"])


def salaries(places: Places, rows: Sequence[Row]) -> list[Row]:
    return [
        row
        for row in rows
        if row["amount"] >= places["amount"] and places["tag"] in row["tags"] and received(places, row)
    ]


def missing(places: Places, rows: Sequence[Row]) -> bool:
    paid = salaries(places, rows)
    return not any(inside(places, row) for row in paid) and any(inside(places, row, "beside") for row in paid)


def more(condition: Callable[[Places, Row], bool]) -> Callable[[Places, Sequence[Row]], bool]:
    return lambda places, rows: total([row for row in rows if condition(places, row)]) > places["amount"]


MEANINGS: dict[str, Callable[[Places, Sequence[Row]], bool]] = {
    "all": more(spent),
    "expenditure_l2s": more(lambda places, row: row["category_l2"] in places["categories"] and spent(places, row)),
    "expenditure_merchant": more(lambda places, row: row["merchant"] in places["merchants"] and spent(places, row)),
    "income_l2s": lambda places, rows: (
        math.fsum(
            row["amount"]
            for row in rows
            if row["category_l2"] in places["categories"] and received(places, row) and inside(places, row)
        )
        > places["amount"]
    ),
    "abroad": more(lambda places, row: row["country"] not in ("", places["home"]) and spent(places, row)),
    "big_spender": lambda places, rows: any(
        abs(row["amount"]) >= places["amount"] and spent(places, row) for row in rows
    ),
    "gambler": gambler,
    "spree": lambda places, rows: (
        total([row for row in rows if spent(places, row)])
        > total([row for row in rows if spent(places, row, "beside")]) * places["share"]
    ),
    "salary_arrived": lambda places, rows: any(inside(places, row) for row in salaries(places, rows)),
    "salary_missing": missing,
    "lapsed_customer": lapsed,
    "new_at_merchant": new_at,
}


def values(parameter: Parameter) -> st.SearchStrategy[str]:
    """Texts that a place takes, the default among them."""
    by_type: dict[ParameterType, st.SearchStrategy[str]] = {
        ParameterType.NUMBER: st.sampled_from((parameter.minimum, "1", "12.5", "100", parameter.maximum)),
        ParameterType.TEXT: TEXTS | AWKWARD,
        ParameterType.TEXTS: st.lists(TEXTS | AWKWARD.filter(str.strip), min_size=1, max_size=4).map(join_texts),
        ParameterType.PERIOD: st.integers(1, 366).map(lambda days: f"{days}D")
        | st.integers(1, 12).map(lambda months: f"{months}m"),
    }
    return (by_type[parameter.type] | st.just(parameter.default)).filter(bool)


def understood(template: Template, chosen: Mapping[str, str]) -> Places:
    read: dict[ParameterType, Callable[[Parameter, str], Any]] = {
        ParameterType.NUMBER: read_number,
        ParameterType.TEXT: lambda _, text: read_text(text),
        ParameterType.TEXTS: lambda _, text: read_texts(text),
        ParameterType.PERIOD: read_period,
    }
    return {each.name: read[each.type](each, chosen[each.name]) for each in template.parameters}


def rows(places: Places) -> st.SearchStrategy[list[dict[str, Cell]]]:
    """Rows that often have what the places ask for, on the edges of their periods too."""
    texts = [text for value in places.values() for text in (value if isinstance(value, tuple) else (value,))]
    words = st.sampled_from(["", "income", "GBP", *(text for text in texts if isinstance(text, str))])
    cutoffs = [cutoff_us(NOW_US, 0, value.months, value.days) for value in places.values() if hasattr(value, "months")]
    edges = st.sampled_from([NOW_US, *cutoffs])
    amounts = st.sampled_from([places.get("amount", 1.0), 0.0, 0.5, 100.0, 1e9])
    row = st.fixed_dictionaries(
        {
            "date_time": st.tuples(edges, st.sampled_from((-DAY_US, -1, 0, 1, DAY_US))).map(sum),
            "credit_debit_indicator": st.sampled_from(("debit", "debit", "credit", "")),
            "currency": st.sampled_from([places.get("currency", "GBP")] * 3 + ["EUR"]),
            "status": st.sampled_from(("booked", "pending", "declined", "")),
            "country": words,
            "category_l1": words,
            "category_l2": words,
            "merchant": words,
            "tags": st.lists(words, max_size=2).map(tuple),
            "amount": amounts,
        }
    )

    def signed(found: dict[str, Any]) -> dict[str, Cell]:
        sign = -1 if found["credit_debit_indicator"] == "debit" else 1
        return {**found, "amount": sign * found["amount"]}

    return st.lists(row.map(signed), max_size=8)


@pytest.mark.parametrize("template_id", sorted(TEMPLATES))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_query_means_what_its_template_says(template_id: str, data: st.DataObject) -> None:
    template = TEMPLATES[template_id]
    chosen = {each.name: data.draw(values(each), each.name) for each in template.parameters}
    checked = check_query(render(template_id, "mine", chosen), sources_of([transactions()]))
    assert checked.name == "mine"
    # Nothing is doubtful, but that templates which say so read rows of any age.
    doubts = {warning.code for warning in checked.warnings}
    assert doubts == ({Code.UNBOUNDED} if "rows of any age" in template.description else set())
    places = understood(template, chosen)
    given_rows = data.draw(rows(places), "rows")
    outcome = compare(template_id, chosen, {"transactions": table(given_rows)}, NOW_US)
    assert (outcome.state is State.APPLIES) == MEANINGS[template_id](places, given_rows)


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(TEXTS | AWKWARD.filter(str.strip), min_size=1, max_size=5))
def test_texts_are_read_as_they_were_joined(texts: list[str]) -> None:
    assert read_texts(join_texts(texts)) == tuple(text.strip() for text in texts)


def refused(template_id: str, chosen: Mapping[str, str]) -> set[str] | None:
    """The fields that are refused; None for a query that is taken."""
    try:
        check_query(render(template_id, "", chosen), sources_of([transactions()]))
    except InvalidArgument as error:
        return {each.field for each in error.violations}
    return None


@settings(max_examples=150, deadline=None)
@given(given_text=st.text(max_size=20), template_id=st.sampled_from(sorted(TEMPLATES)), data=st.data())
def test_anything_else_is_refused_with_all_mistakes(given_text: str, template_id: str, data: st.DataObject) -> None:
    template = TEMPLATES[template_id]
    names = data.draw(st.sets(st.sampled_from([each.name for each in template.parameters]), min_size=1))
    found = refused(template_id, REQUIRED_OF[template_id] | dict.fromkeys(names, given_text))
    assert found is None or found <= {f"parameters.{name}" for name in names}


def test_all_mistakes_are_told_at_once_with_what_to_write_instead() -> None:
    wrong = {"amount": "1,000", "period": "2Y", "currency": "x" * (MAX_TEXT + 1), "merchant": "Lotto"}
    with pytest.raises(InvalidArgument) as caught:
        render("expenditure_merchant", "my insight", wrong)
    told = {each.field: each.description for each in caught.value.violations}
    assert set(told) == {"identifier", "parameters.merchant", *(f"parameters.{n}" for n in MISTAKES)}
    for name, part in MISTAKES.items():
        assert part in told[f"parameters.{name}"]
    assert "did you mean merchants?" in told["parameters.merchant"]


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("amount", "0", "from 0.01 to 1000000000000"),
        ("amount", "1000000000000.5", "from 0.01 to 1000000000000"),
        ("amount", "1e3", "without sign"),
        ("amount", "-5", "without sign"),
        ("amount", "nan", "without sign"),
        ("period", "0D", "from 1D to 12M"),
        ("period", "13M", "from 1D to 12M"),
        ("period", "367D", "from 1D to 12M"),
        ("merchants", ",,", "1 to 100 texts"),
        ("merchants", '"Lotto', "separated by commas"),
        ("merchants", ",".join(f"m{number}" for number in range(101)), "1 to 100 texts"),
        ("merchants", ",".join(f"{number:0200}" for number in range(50)), "at most 4,096 bytes"),
        ("currency", "\ud800", "surrogate"),
    ],
)
def test_bounds_hold(name: str, text: str, part: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        render("expenditure_merchant", "", {"merchants": "Lotto"} | {name: text})
    (violation,) = caught.value.violations
    assert violation.field == f"parameters.{name}"
    assert part in violation.description


def test_the_components_of_old_keep_their_bounds_and_defaults() -> None:
    for template_id in ("all", "expenditure_l2s", "expenditure_merchant", "income_l2s"):
        by_name = {each.name: each for each in get(template_id).parameters}
        amount, period = by_name["amount"], by_name["period"]
        assert (amount.minimum, amount.maximum, amount.default) == ("0.01", "1000000000000", "100")
        assert (period.minimum, period.maximum, period.default) == ("1D", "12M", "1M")


def test_defaults_are_within_bounds_and_every_template_is_described() -> None:
    assert set(MEANINGS) == set(TEMPLATES)
    for template in TEMPLATES.values():
        render(template.template_id, "", REQUIRED_OF[template.template_id])
        assert template.description.endswith(".")
        assert all(parameter.description.endswith(".") for parameter in template.parameters)
    with pytest.raises(NotFound, match="there are abroad, all, big_spender"):
        get("unknown")
