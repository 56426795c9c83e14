"""Names, types and limits: every code, with what it hints at."""

import pytest

from services.insights.language.check import check_query
from services.insights.language.diagnostics import QueryError
from services.insights.language.lexer import MAX_ERRORS
from services.insights.language.sources import SourceSchema, sources_of, transactions
from services.insights.language.tree import Aggregate, Compare, Dialect, Select, Within, conjuncts, walk
from services.insights.language.types import Type
from tests.insights.asking import checked, codes, errors, having, where

FLAGS = sources_of(
    [
        SourceSchema(
            "visits",
            {
                name: Type.named(kind)
                for name, kind in {
                    "at": "datetime",
                    "seen": "boolean",
                    "pages": "numericArray",
                    "marks": "booleanArray",
                    "count": "numeric",
                }.items()
            },
            time_column="at",
        )
    ]
)


def visits(condition: str) -> list[str]:
    try:
        check_query(f"INFER a FROM visits WHERE {condition}", FLAGS)
    except QueryError as error:
        return [each.code.value for each in error.errors]
    return []


def test_transactions_has_the_documents_columns_in_its_order_with_its_types() -> None:
    assert [(name, type_.name) for name, type_ in transactions().columns.items()] == [
        ("date_time", "datetime"),
        ("credit_debit_indicator", "string"),
        ("amount", "numeric"),
        ("currency", "string"),
        ("status", "string"),
        ("category_l1", "string"),
        ("category_l2", "string"),
        ("merchant", "string"),
        ("processor", "string"),
        ("regularity_frequency", "string"),
        ("country", "string"),
        ("transaction_types", "stringArray"),
        ("names", "stringArray"),
        ("tags", "stringArray"),
    ]


@pytest.mark.parametrize(
    "condition",
    [
        'amount = "5"',
        "amount > TRUE",
        'date_time > "2024-01-01"',
        "date_time > 5",
        'currency + "x" = "GBPx"',
        "-currency = 1",
        "date_time - date_time > 1",
        "tags = tags",
        '("a", "b") = currency',
        "ABS(currency) = 1",
        "ABS(tags) = 1",
        "SUM(currency) > amount",
        "SUM((1, 2)) > amount",
        "amount > (SELECT (1, 2) FROM transactions)",
        "amount IN (SELECT (1, 2) FROM transactions)",
        "amount",
        "currency",
        "tags",
        '"a"',
        "amount AND amount > 1",
        "tags IN ('a', 'b')",
        "currency IN currency",
        "currency IN 'a'",
        "1 IN tags",
        "amount IN ('a', 'b')",
        "currency IN ('a', 1)",
        "currency IN ('a', TRUE)",
        "currency IN (-'a')",
        "currency IN (SELECT currency FROM transactions)",
        "date_time IN (1, 2)",
        "TRUE < FALSE",
        "DATETIME_FROM(amount, 0, 1, 0)",
        "DATETIME_FROM(date_time, '0', 1, 0)",
        "DATETIME_FROM(date_time, amount, 0, 0)",
        "DATETIME_FROM(date_time, 0, 0, (1, 2))",
        "DATETIME_FROM(date_time, 0, 0, (SELECT 1 FROM transactions))",
    ],
)
def test_nothing_is_converted_and_arrays_stand_right_of_in_alone(condition: str) -> None:
    assert set(where(f"{condition} AND amount > 0")) == {"E_TYPE"}


@pytest.mark.parametrize(
    "condition",
    [
        "date_time = date_time",
        "date_time >= (SELECT date_time FROM transactions)",
        "TRUE AND amount < 0",
        "amount < -2",
        "'income' IN tags",
        "currency IN tags",
        "currency IN ('GBP')",
        "amount IN (1, -2)",
        "'a' IN (SELECT tags FROM transactions)",
        "DATETIME_FROM(date_time, 0, 1, 0) = TRUE",
        "'a' < currency",
        "ABS(-amount) > 1",
        "amount > SUM(amount) / 2",
        "(SELECT TRUE FROM transactions)",
    ],
)
def test_what_the_types_allow_is_taken(condition: str) -> None:
    assert where(condition) == []


def test_boolean_columns_and_every_kind_of_array() -> None:
    assert visits("seen") == []
    assert visits("seen = TRUE AND seen <> FALSE AND seen != FALSE") == []
    assert visits("seen >= TRUE") == ["E_TYPE"]
    assert visits("count IN pages AND seen IN marks AND TRUE IN (TRUE, FALSE)") == []
    assert visits("seen IN pages") == ["E_TYPE"]


@pytest.mark.parametrize(
    ("name", "hint"), [("amout", "amount"), ("Amount", "amount"), ("category_1", "category_l1"), ("zzz", "date_time")]
)
def test_an_unknown_column_is_hinted_at_by_the_nearest(name: str, hint: str) -> None:
    (error,) = errors(f"INFER a FROM transactions WHERE {name} > 0")
    assert error.code.value == "E_COLUMN"
    assert hint in error.hint
    assert (error.span.line, error.span.column, error.span.end - error.span.start) == (1, 33, len(name))


def test_an_unknown_source_is_hinted_at_and_its_columns_are_not_judged() -> None:
    (error,) = errors("INFER a FROM transaction WHERE colour = 1")
    assert error.code.value == "E_DATASOURCE"
    assert "transactions" in error.hint
    assert where("amount > SUM(SELECT x FROM nowhere)") == ["E_DATASOURCE"]


def test_a_select_sees_its_own_sources_columns() -> None:
    both = sources_of([transactions(), *FLAGS.values()])
    taken = check_query("INFER a FROM visits HAVING SUM(count) > SUM(SELECT amount FROM transactions)", both)
    assert taken.source == "visits"
    with pytest.raises(QueryError, match="transactions has no column count"):
        check_query("INFER a FROM visits HAVING SUM(SELECT count FROM transactions) > 1", both)


@pytest.mark.parametrize("call", ["COUNT(amount)", "AVG(amount)", "NOW()", "sumx(1)"])
def test_functions_outside_the_documents_table_are_e_function(call: str) -> None:
    assert having(f"{call} > 3") == ["E_FUNCTION"]


def test_a_function_of_the_extended_dialect_is_hinted_at() -> None:
    assert "extended" in errors("INFER a FROM transactions HAVING count(amount) > 3")[0].hint


@pytest.mark.parametrize(
    "condition",
    [
        "SUM() = amount",
        "ABS() = amount",
        "ABS(amount, amount) = 1",
        "DATETIME_FROM()",
        "DATETIME_FROM(date_time, 0, 1)",
        "DATETIME_FROM(date_time, 0, 1, 0, 0)",
        "DATETIME_TO(date_time)",
    ],
)
def test_the_number_of_arguments_is_checked(condition: str) -> None:
    (error,) = errors(f"INFER a FROM transactions WHERE {condition}")
    assert error.code.value == "E_ARITY"
    assert "(" in error.hint


@pytest.mark.parametrize("part", ["1.5", "-1", "1 / 2", "1 / 0", "-(2)", "SUM(0.5)"])
def test_a_period_of_literals_is_whole_and_not_negative_when_the_query_is_created(part: str) -> None:
    for place in range(3):
        parts = ["0", "0", "0"]
        parts[place] = part
        (error,) = errors(f"INFER a FROM transactions WHERE DATETIME_TO(date_time, {', '.join(parts)})")
        assert (error.code.value, error.phase.value) == ("E_INTEGER", "type")


def test_a_period_of_literal_expressions_is_known_to_the_tree() -> None:
    (node,) = conjuncts(checked("INFER a FROM transactions WHERE DATETIME_FROM(date_time, 0, 4 / 2, 3 + 4)").where)
    assert isinstance(node, Within)
    assert node.period.constant == (0, 2, 7, 0, 0)


def test_where_is_a_vector_and_having_is_not() -> None:
    assert where("1 = 1") == ["E_WHERE_NOT_VECTOR"]
    assert where("SUM(amount) > 1") == ["E_WHERE_NOT_VECTOR"]
    assert where("amount > (SELECT amount FROM transactions WHERE 1 = 1)") == ["E_WHERE_NOT_VECTOR"]
    assert having("amount > 1") == ["E_HAVING_VECTOR"]
    assert having("(SELECT 1 FROM transactions) = 1") == ["E_HAVING_VECTOR"]
    assert having("(SELECT SUM(amount) FROM transactions) = 1") == []
    assert having("SUM(amount)") == ["E_TYPE"]


def test_errors_of_both_clauses_are_told_at_once_in_the_texts_order() -> None:
    text = "INFER a FROM transactions\nWHERE colour = 1 AND amount = 'x'\nHAVING SUM(size) > 1 AND ABS() = 1 AND FOO(1)"
    assert [(each.code.value, each.span.line) for each in errors(text)] == [
        ("E_COLUMN", 2),
        ("E_TYPE", 2),
        ("E_COLUMN", 3),
        ("E_ARITY", 3),
        ("E_FUNCTION", 3),
    ]
    assert len(where(" AND ".join(["zzz > 1"] * 100))) == MAX_ERRORS


def test_the_text_has_at_most_16_kib_in_utf_8() -> None:
    text = "INFER a FROM transactions WHERE amount > 1"
    assert codes(text + " " * (16 * 1024 - len(text))) == []
    assert codes(text + " " * (16 * 1024 - len(text) + 1)) == ["E_LIMIT"]
    assert codes(text.replace("1", '"' + "é" * 8192 + '"')) == ["E_LIMIT"]


def test_nesting_is_at_most_32() -> None:
    assert where("(" * 32 + "amount" + ")" * 32 + " > 1") == []
    assert where("(" * 33 + "amount" + ")" * 33 + " > 1") == ["E_LIMIT"]
    assert where("ABS(" * 33 + "amount" + ")" * 33 + " > 1") == ["E_LIMIT"]
    assert where("amount > " + "-" * 32 + "1") == []
    assert where("amount > " + "-" * 33 + "1") == ["E_LIMIT"]
    assert where("amount > " + "-(" * 32 + "1" + ")" * 32) == []
    assert where("amount > " + "-(-" * 17 + "1" + ")" * 17) == ["E_LIMIT"]
    assert where(" AND ".join(["(amount) - (1) > -1"] * 100)) == []


def test_selects_are_at_most_4_deep() -> None:
    def nested(depth: int) -> str:
        return "amount > " + "(SELECT SUM(amount) FROM transactions WHERE amount > " * depth + "1" + ")" * depth

    assert where(nested(4)) == []
    assert where(nested(5)) == ["E_LIMIT"]
    assert where(" AND ".join([nested(1)] * 5)) == []


def test_arrays_have_at_most_1000_elements() -> None:
    assert where(f"amount IN ({', '.join(['1'] * 1000)})") == []
    assert where(f"amount IN ({', '.join(['1'] * 1001)})") == ["E_LIMIT"]


def test_there_are_at_most_64_aggregates() -> None:
    assert having(" + ".join(["SUM(amount)"] * 64) + " > 1") == []
    assert having(" + ".join(["sum (amount)"] * 65) + " > 1") == ["E_LIMIT"]


def test_the_deepest_queries_there_are_recurse_safely() -> None:
    deep = "(amount > 1 AND NOT (TRUE OR " * 16 + "amount > -1" + "))" * 16
    assert where(deep, Dialect.EXTENDED) == []
    assert hash(checked(f"INFER a FROM transactions WHERE {deep}", Dialect.EXTENDED))


def test_nodes_know_whether_they_are_vectors() -> None:
    query = checked(
        "INFER a FROM transactions WHERE amount > SUM(amount) "
        "HAVING SUM(SELECT 1 FROM transactions) > (SELECT SUM(amount) FROM transactions)"
    )
    assert isinstance(query.where, Compare)
    assert query.where.type.vector
    assert isinstance(query.where.right, Aggregate)
    assert not query.where.right.type.vector
    assert query.having is not None
    selects = [node for node in walk(query.having) if isinstance(node, Select)]
    assert [(node.repeats, node.type.vector) for node in selects] == [(True, True), (False, False)]


def test_equal_queries_are_equal_whatever_their_layout() -> None:
    one = checked("INFER a FROM transactions WHERE amount != 1 AND currency = 'GBP'")
    assert one == checked('infer a\nfrom transactions where (amount)<>1 and currency="GBP"')
    assert one != checked("INFER a FROM transactions WHERE amount <> 1 AND currency = 'EUR'")
