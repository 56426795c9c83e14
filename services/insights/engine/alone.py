"""One query over one customer's rows through the whole engine: what case files hold it to.

The rows come in several batches, some of them are replaced, and time passes from before the rows to now in steps; so
what is answered was reached by entering, leaving and correcting rows.
"""

from services.insights.direct.evaluator import Value, evaluate, value_of
from services.insights.direct.outcome import Cell, Outcome, Rows, State
from services.insights.engine.engine import Engine
from services.insights.engine.entering import from_values, hash_of
from services.insights.engine.plan import plan
from services.insights.language.sources import SourceSchema, sources_of
from services.insights.language.tree import (
    CheckedQuery,
    CheckedTerm,
    Compare,
    ComparisonOperator,
    Constant,
    Node,
)
from services.insights.language.types import BOOLEAN, NUMERIC, Kind

_DAY_US = 86_400_000_000
_CUSTOMER = "customer"


class IncrementalEvaluator:
    """`services.insights.engine`, in the form that case files are run with."""

    name = "incremental"

    def outcome(self, query: CheckedQuery, source: SourceSchema, rows: Rows, now_us: int) -> Outcome:
        """The state from the engine; the reasons, as the service gives them, from the rows that the engine retains."""
        explained = evaluate(query, {source.name: _retained(source, rows, now_us)}, now_us)
        state = _state(query, source, rows, now_us)
        if state is explained.state:
            return explained
        return Outcome(state, explained.matched, explained.operands, explained.undefined_count)

    def value(self, term: CheckedTerm, source: SourceSchema, rows: Rows, now_us: int) -> Value:
        """The value of the retained rows; where it can stand in HAVING or WHERE, the engine must agree with it."""
        value = value_of(term, {source.name: _retained(source, rows, now_us)}, now_us)
        claim = _claim(term.node, value)
        if claim is not None:
            where, having, expected = claim
            query = CheckedQuery("claim", source.name, where, having, term.dialect, term.text)
            if (_state(query, source, rows, now_us) is State.APPLIES) is not expected:
                return Value(("the engine does not agree",), False)
        return value


def _claim(node: Node, value: Value) -> tuple[Node | None, Node | None, bool] | None:
    """A WHERE and a HAVING that say what the value is, and whether they apply."""
    if node.type.kind is Kind.BOOLEAN and not node.type.array:
        if value.vector:
            return node, None, any(item is True for item in value.items)
        return None, node, value.single is True
    if node.type.kind is Kind.NUMERIC and not node.type.array and not value.vector and value.single is not None:
        constant = Constant(float(value.single), NUMERIC, node.span)  # type: ignore[arg-type]
        return None, Compare(ComparisonOperator.EQUAL, node, constant, BOOLEAN, node.span), True
    return None


def _state(query: CheckedQuery, source: SourceSchema, rows: Rows, now_us: int) -> State:
    engine = Engine([source])
    slot = engine.put([plan(query, sources_of([source]))])[0]
    _feed(engine, source, rows, now_us)
    engine.settle()
    code = engine.customers.find(_CUSTOMER)
    assert code is not None, "the customer has come"
    return State(engine.states.of(code, slot).name)


def _feed(engine: Engine, source: SourceSchema, rows: Rows, now_us: int) -> None:
    """Gives the rows to an engine: the earlier half long before now, the rest then; a row of each is replaced."""
    half = rows.count // 2
    for first, stop, at_us in ((0, half, now_us - 400 * _DAY_US), (half, rows.count, now_us)):
        engine.advance(at_us)
        chosen = range(first, stop)
        columns: dict[str, list[Cell]] = {
            name: [values[index] for index in chosen] for name, values in rows.columns.items()
        }
        ids = [f"{index:06d}" for index in chosen]
        names = [_CUSTOMER] * len(ids)
        for gone in ([], ids[:1], ids[:1]):
            again = slice(0, None if not gone else 1)
            new = from_values(
                source,
                engine.pools,
                engine.customers,
                names[again],
                ids[again],
                {name: values[again] for name, values in columns.items()},
            )
            engine.replace_rows(source.name, map(hash_of, gone), new)
        engine.settle()
    # A customer is known once any row has come; one that is taken back at once leaves nothing else behind.
    fleeting = from_values(source, engine.pools, engine.customers, [_CUSTOMER], ["fleeting"], {})
    engine.replace_rows(source.name, (), fleeting)
    engine.replace_rows(source.name, [hash_of("fleeting")], None)


def _retained(source: SourceSchema, rows: Rows, now_us: int) -> Rows:
    """The rows as the engine gives them back, in the order in which they were given."""
    engine = Engine([source])
    _feed(engine, source, rows, now_us)
    code = engine.customers.find(_CUSTOMER)
    assert code is not None, "the customer has come"
    held = engine.sources[source.name]
    numbers = held.of(code)
    ids = [held.store.event_id(number) for number in numbers.tolist()]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    given = engine.tables(code, [source.name])[source.name]
    return Rows(given.count, {name: [values[i] for i in order] for name, values in given.columns.items()})
