"""From what the service knows to its messages, and back."""

import re
from collections.abc import Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from inkling.insights.v1 import evaluation_pb2, insight_pb2, insight_service_pb2
from inkling.types.v1 import value_pb2
from services.insights.asking import Answer, Row
from services.insights.catalog import Checked
from services.insights.direct.outcome import Cell, Operand, State
from services.insights.engine.engine import Engine
from services.insights.engine.plan import Plan, Total, Way
from services.insights.engine.states import Standing
from services.insights.evaluation import APPLIED, FAILED, WITHDRAWN, InsightEvaluator, Result
from services.insights.language.diagnostics import Diagnostic
from services.insights.language.tree import Dialect
from services.insights.language.types import Kind, Type
from services.insights.watching import PRESENT, Seen
from services.runtime.errors import InvalidArgument, Violation

_DIALECTS = {
    insight_pb2.DIALECT_UNSPECIFIED: Dialect.STRICT,
    insight_pb2.DIALECT_STRICT: Dialect.STRICT,
    insight_pb2.DIALECT_EXTENDED: Dialect.EXTENDED,
}
_STATES = {
    State.APPLIES: insight_pb2.STATE_APPLIES,
    State.NOT: insight_pb2.STATE_NOT,
    State.ERROR: insight_pb2.STATE_ERROR,
}
_STANDINGS = {
    Standing.APPLIES: insight_pb2.STATE_APPLIES,
    Standing.NOT: insight_pb2.STATE_NOT,
    Standing.ERROR: insight_pb2.STATE_ERROR,
}
_KINDS = {
    APPLIED: insight_service_pb2.InsightChange.KIND_APPLIED,
    WITHDRAWN: insight_service_pb2.InsightChange.KIND_WITHDRAWN,
    FAILED: insight_service_pb2.InsightChange.KIND_FAILED,
    PRESENT: insight_service_pb2.InsightChange.KIND_PRESENT,
}
_IDENTIFIER = re.compile(r"\s*infer\s+([A-Za-z_][A-Za-z0-9_]*)", re.IGNORECASE)


def timestamp(us: int | None) -> Timestamp | None:
    """An instant; None is not set."""
    return None if us is None else Timestamp(seconds=us // 1_000_000, nanos=us % 1_000_000 * 1_000)


def instant_us(message: Timestamp) -> int:
    """The microseconds of an instant."""
    return message.seconds * 1_000_000 + message.nanos // 1_000


def dialect_of(message: "insight_pb2.Dialect.ValueType") -> Dialect:
    """The dialect; raises InvalidArgument for a number that is none."""
    found = _DIALECTS.get(message)
    if found is None:
        text = "is no dialect"
        raise InvalidArgument(text, reason="OUT_OF_RANGE", violations=[Violation("dialect", text, "OUT_OF_RANGE")])
    return found


def dialect_message(dialect: Dialect) -> "insight_pb2.Dialect.ValueType":
    """The number of a dialect."""
    return insight_pb2.DIALECT_EXTENDED if dialect is Dialect.EXTENDED else insight_pb2.DIALECT_STRICT


def state_message(state: State) -> "insight_pb2.State.ValueType":
    """The number of a state."""
    return _STATES[state]


def identifier_of(query: str) -> str:
    """The name that a query gives itself, or nothing."""
    match = _IDENTIFIER.match(query)
    return match[1] if match else ""


def insight_message(checked: Checked, insights: InsightEvaluator | None, attribute_key: str) -> insight_pb2.Insight:
    """An insight; `insights` are those that are kept true, if the log is caught up with."""
    insight = checked.insight
    held = insights is not None and insight.insight_id in insights.held
    return insight_pb2.Insight(
        name=insight.name,
        query=insight.query,
        dialect=dialect_message(insight.dialect),
        active=insight.active,
        description=insight.description,
        identifier=checked.query.name,
        version=insight.version,
        attribute_key=attribute_key,
        warnings=[diagnostic_message(each) for each in checked.query.warnings],
        applies_count=insights.count(insight.insight_id) if insights is not None and held else 0,
        create_time=timestamp(insight.create_time_us),
        update_time=timestamp(insight.update_time_us),
        etag=insight.etag,
    )


def diagnostic_message(found: Diagnostic) -> insight_pb2.Diagnostic:
    """An error or a warning."""
    span = found.span
    return insight_pb2.Diagnostic(
        code=found.code.value,
        message=found.message,
        hint=found.hint,
        line=span.line,
        column=span.column,
        start=span.start,
        end=span.end,
    )


def result_message(result: Result, now_us: int) -> insight_pb2.CustomerInsight:
    """What an insight says of a customer."""
    return insight_pb2.CustomerInsight(
        insight=result.insight.name,
        identifier=identifier_of(result.insight.query),
        state=_STANDINGS.get(result.standing, insight_pb2.STATE_UNSPECIFIED),
        since_time=timestamp(result.since_us),
        until_time=timestamp(result.until_us),
        evaluate_time=timestamp(now_us),
        version=result.insight.version,
    )


def evaluation_message(answer: Answer, columns: Mapping[str, Type]) -> evaluation_pb2.Evaluation:
    """A query about a customer, with the reasons; `columns` are those of its source."""
    outcome, insight = answer.outcome, answer.insight
    return evaluation_pb2.Evaluation(
        insight="" if insight is None else insight.name,
        identifier=answer.query.name,
        state=_STATES[outcome.state],
        now_time=timestamp(answer.now_us),
        matched_count=len(outcome.matched),
        rows=[_row(row, columns) for row in answer.rows],
        operands=[_operand(each) for each in outcome.operands],
        undefined_count=outcome.undefined_count,
        error=None if outcome.error is None else diagnostic_message(outcome.error),
        version=0 if insight is None else insight.version,
    )


def _row(row: Row, columns: Mapping[str, Type]) -> evaluation_pb2.Row:
    event_id, values = row
    return evaluation_pb2.Row(
        event_id=event_id, values={name: value_message(cell, columns[name].kind) for name, cell in values.items()}
    )


def _operand(operand: Operand) -> evaluation_pb2.Operand:
    return evaluation_pb2.Operand(
        text=operand.text,
        left=value_message(operand.left),
        operator=operand.operator,
        right=value_message(operand.right),
        result=operand.result,
    )


def value_message(cell: Cell, kind: Kind | None = None) -> value_pb2.Value:
    """A value; None is null. Integers are instants."""
    if cell is None:
        return value_pb2.Value()
    if isinstance(cell, tuple):
        if all(isinstance(each, str) for each in cell):
            return value_pb2.Value(string_list_value=value_pb2.StringList(values=[str(each) for each in cell]))
        return value_pb2.Value(double_list_value=value_pb2.DoubleList(values=[float(each) for each in cell]))
    if isinstance(cell, str):
        return value_pb2.Value(string_value=cell)
    if isinstance(cell, bool):
        return value_pb2.Value(bool_value=cell)
    if isinstance(cell, float) and kind is not Kind.DATETIME:
        return value_pb2.Value(double_value=cell)
    return value_pb2.Value(timestamp_value=timestamp(int(cell)))


def plan_message(plan: Plan, engine: Engine | None) -> evaluation_pb2.QueryPlan:
    """How a query is evaluated; `engine` knows what it would share."""
    incremental = plan.way is Way.INCREMENTAL
    cost = (
        f"each row: {len(plan.totals)} totals; each customer touched: {len(plan.program)} steps"
        if incremental
        else "each customer touched: all of its rows"
    )
    return evaluation_pb2.QueryPlan(
        way=evaluation_pb2.QueryPlan.WAY_INCREMENTAL if incremental else evaluation_pb2.QueryPlan.WAY_RECOMPUTED,
        reason=plan.reason,
        sources=sorted(plan.sources),
        totals=[_total(total, engine) for total in plan.totals],
        step_count=len(plan.program),
        cost=cost,
    )


def _total(total: Total, engine: Engine | None) -> evaluation_pb2.PlanTotal:
    block = total.parts[0].block
    equality = block.equality
    return evaluation_pb2.PlanTotal(
        function="SUM" if total.sums else "COUNT",
        source=block.source,
        condition_count=len(block.conditions),
        moves=any(not part.block.range.everything for part in total.parts),
        skip="" if equality is None else f"{equality[0]} = {equality[1]}",
        shared_count=0 if engine is None else engine.queries.sharing(total),
    )


def change_message(seen: Seen) -> insight_service_pb2.InsightChange:
    """A change as watchers are told."""
    return insight_service_pb2.InsightChange(
        insight=f"insights/{seen.insight_id}",
        customer=seen.customer,
        kind=_KINDS.get(seen.change, insight_service_pb2.InsightChange.KIND_UNSPECIFIED),
        change_time=timestamp(seen.instant_us),
        position=seen.position,
        version=seen.version,
    )
