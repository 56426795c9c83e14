"""Values of terms made of literals alone, known when the query is created."""

from services.insights.language.scalars import arithmetic, compare, exact_mean, exact_sum
from services.insights.language.tree import (
    Absolute,
    Aggregate,
    AggregateFunction,
    And,
    Arithmetic,
    Column,
    Compare,
    Constant,
    ConstantValue,
    Membership,
    Negate,
    Node,
    Not,
    Or,
    Select,
    walk,
)


def is_constant(node: Node) -> bool:
    """Whether nothing of a customer is read."""
    return not any(isinstance(part, (Column, Select)) for part in walk(node))


def value_of(node: Node) -> ConstantValue | None:
    """The value of a constant node; None when it is undefined."""
    if isinstance(node, Constant):
        return node.value
    if isinstance(node, (And, Or)):
        joined = all if isinstance(node, And) else any
        return joined(bool(value_of(each)) for each in node.conditions)
    if isinstance(node, Not):
        return not value_of(node.condition)
    if isinstance(node, Compare):
        left, right = value_of(node.left), value_of(node.right)
        assert not isinstance(left, tuple)
        assert not isinstance(right, tuple)
        return compare(node.operator, left, right)
    if isinstance(node, Membership):
        array = value_of(node.right)
        return isinstance(array, tuple) and value_of(node.left) in array
    if isinstance(node, Aggregate):
        return _aggregate(node)
    return _number(node)


def _number(node: Node) -> float | None:
    if isinstance(node, Negate):
        value = _number(node.operand)
        return None if value is None else -value
    if isinstance(node, Absolute):
        value = _number(node.operand)
        return None if value is None else abs(value)
    if isinstance(node, Arithmetic):
        value = _number(node.first)
        for operator, operand in node.rest:
            value = arithmetic(operator, value, _number(operand))
        return value
    found = value_of(node)
    return found if isinstance(found, float) else None


def _aggregate(node: Aggregate) -> ConstantValue | None:
    values = [value for value in map(value_of, node.arguments) if value is not None]
    numbers = [value for value in values if isinstance(value, float)]
    match node.function:
        case AggregateFunction.SUM:
            return exact_sum(numbers)
        case AggregateFunction.AVG:
            return exact_mean(numbers)
        case AggregateFunction.COUNT:
            return float(len(values))
        case AggregateFunction.COUNT_DISTINCT:
            return float(len(set(values)))
        case AggregateFunction.MIN:
            return min(values, default=None)
        case AggregateFunction.MAX:
            return max(values, default=None)
