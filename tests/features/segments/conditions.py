"""Profiles with a field of every kind, and conditions over them, for tests."""

from typing import Any

import hypothesis.strategies as st
import pyarrow as pa

from services.features.dataset import ARROW_TYPES
from services.features.definitions import CategoryCounts, ValueType
from services.features.segments.schema import KINDS, PROPERTIES, Elapsed, Field, Kind, Schema

NOW_US = 1_700_000_000_000_000
DAY_US = 86_400_000_000
FIELDS = (
    Field("web", "plan", Kind.STRING),
    Field("web", "views", Kind.INTEGER),
    Field("web", "spent", Kind.NUMBER),
    Field("web", "churned", Kind.BOOLEAN),
    Field("web", "last_seen", Kind.INSTANT),
    Field("web", "pages", Kind.STRINGS),
    Field("web", "sizes", Kind.INTEGERS),
    Field("web", "prices", Kind.NUMBERS),
    Field("web", "by_country", Kind.COUNTS),
    Field("web", "idle", Kind.INTEGER, Elapsed(ValueType.INT32)),
    Field("web", "idle_exactly", Kind.NUMBER, Elapsed(ValueType.DOUBLE, 5.0)),
    Field("shop", "views", Kind.INTEGER),
    Field(PROPERTIES, "tags", Kind.ARRAY),
    Field(PROPERTIES, "address", Kind.RECORD),
    Field(PROPERTIES, "x-y.z", Kind.STRING),
)
SCHEMA = Schema("user_id", FIELDS)
ARROW = {
    **{kind: ARROW_TYPES[value_type] for value_type, kind in KINDS.items()},
    Kind.INTEGER: pa.int64(),
    Kind.NUMBER: pa.float64(),
    Kind.INSTANT: pa.int64(),
    Kind.ARRAY: pa.string(),
    Kind.RECORD: pa.string(),
}
TEXTS = st.sampled_from(["", "pro", "free", "GB", "a%b", "a_b", "\u00e9t\u00e9", "line\nbreak", "it's"])
INTEGERS = st.integers(-3, 12) | st.sampled_from([-(2**63), 2**63 - 1, 2**53, 2**53 + 1])
NUMBERS = st.sampled_from([0.0, -0.0, 0.1, 1.0, 2.5, 3.0, 1e300, -7.25])
INSTANTS = st.integers(-3, 3).map(lambda i: NOW_US + i) | st.integers(-9, 2).map(lambda i: NOW_US + i * DAY_US)
ITEMS = st.sampled_from(['"pro"', '"x"', "1", "1.5", "true", "null"])
VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.STRING: TEXTS,
    Kind.INTEGER: INTEGERS,
    Kind.NUMBER: NUMBERS,
    Kind.BOOLEAN: st.booleans(),
    Kind.INSTANT: INSTANTS,
    Kind.STRINGS: st.lists(TEXTS, max_size=3).map(tuple),
    Kind.INTEGERS: st.lists(INTEGERS, max_size=3).map(tuple),
    Kind.NUMBERS: st.lists(NUMBERS, max_size=3).map(tuple),
    Kind.COUNTS: st.dictionaries(TEXTS, st.integers(1, 3), max_size=3).map(lambda d: CategoryCounts(tuple(d.items()))),
    Kind.ARRAY: st.lists(ITEMS, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
    Kind.RECORD: st.just("{}"),
}


def kind_held(field: Field) -> Kind:
    """What the column of a field holds."""
    return Kind.INSTANT if field.elapsed else field.kind


def profiles(fields: tuple[Field, ...]) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    """Some profiles with values, or nulls, for these fields."""
    row = st.tuples(*(st.none() | VALUES[kind_held(field)] for field in fields))
    return st.lists(row, min_size=0, max_size=8)


def columns(fields: tuple[Field, ...], rows: list[tuple[Any, ...]]) -> list[pa.Array]:
    """The same values as columns."""
    result = []
    for place, field in enumerate(fields):
        values = [row[place] for row in rows]
        plain = [list(each.entries) if isinstance(each, CategoryCounts) else each for each in values]
        result.append(pa.array(plain, ARROW[kind_held(field)]))
    return result


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _literal(kind: Kind) -> st.SearchStrategy[str]:
    if kind is Kind.STRING:
        return TEXTS.map(_quoted)
    if kind is Kind.BOOLEAN:
        return st.sampled_from(["true", "FALSE"])
    if kind is Kind.INSTANT:
        moments = st.sampled_from(["now", "now - 7 days", "now + 1 day", "now - 168 hours + 0.000001 s"])
        return moments | st.sampled_from(["'2023-11-14'", "'2023-11-14T22:13:20Z'"])
    return st.one_of(INTEGERS.map(str), st.sampled_from(["2.5", "-0.5", "1e300", "3.0", "99999999999999999999"]))


@st.composite
def tests(draw: st.DrawFn) -> str:
    """A test of some field."""
    field = draw(st.sampled_from(FIELDS))
    name = f"{field.namespace}.`{field.name}`"
    kind, negation = field.kind, draw(st.sampled_from(["", "not "]))
    forms = [f"{name} is {negation}null"]
    if kind is Kind.BOOLEAN:
        forms += [name]
    if kind in (Kind.STRINGS, Kind.COUNTS):
        forms += [f"{name} {negation}contains {draw(_literal(Kind.STRING))}"]
    elif kind in (Kind.INTEGERS, Kind.NUMBERS):
        forms += [f"{draw(_literal(Kind.NUMBER))} {negation}in {name}"]
    elif kind is Kind.ARRAY:
        literal = draw(st.sampled_from([Kind.STRING, Kind.NUMBER, Kind.BOOLEAN]).flatmap(_literal))
        forms += [f"{literal} {negation}in {name}"]
    elif kind is not Kind.RECORD:
        values = draw(st.lists(_literal(kind), min_size=2, max_size=3))
        orders = ["=", "!=", "<>"] + ([] if kind is Kind.BOOLEAN else ["<", "<=", ">", ">="])
        forms += [f"{name} {draw(st.sampled_from(orders))} {values[0]}", f"{name} {negation}in ({', '.join(values)})"]
        if kind is not Kind.BOOLEAN:
            forms += [f"{name} {negation}between {values[0]} and {values[1]}"]
        if kind is Kind.STRING:
            pattern = draw(st.text("%_\\proGB\u00e9", max_size=5))
            forms += [f"{name} {negation}like {_quoted(pattern)}"]
    return draw(st.sampled_from(forms))


TEXT_CONDITIONS = st.recursive(
    tests(),
    lambda inner: st.one_of(
        inner.map(lambda text: f"not ({text})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: "(" + " and ".join(parts) + ")"),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: "(" + " or ".join(parts) + ")"),
    ),
    max_leaves=5,
)
