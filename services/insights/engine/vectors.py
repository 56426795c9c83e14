"""Expressions over rows, made once into functions that evaluate them over the rows of many customers at a time.

Only what depends on a row's own cells alone is made: columns, literals and what is built of them. Undefined numbers are
NaN, undefined booleans -1, undefined instants `ranges.UNDEFINED_US`; a comparison with any of them is FALSE.
"""

import operator
from collections.abc import Callable
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from services.insights.engine.pools import ArrayValue, Bools, Pools, of_arrays, of_texts
from services.insights.engine.ranges import UNDEFINED_US
from services.insights.engine.rows import Floats, Ints, SourceRows, View
from services.insights.language.tree import (
    Absolute,
    And,
    Arithmetic,
    ArithmeticOperator,
    Column,
    Compare,
    ComparisonOperator,
    Constant,
    Membership,
    Negate,
    Node,
    Not,
    Or,
    walk,
)
from services.insights.language.types import Kind

Condition = Callable[[View], Bools]
Number = Callable[[View], Floats]
Tri = Callable[[View], NDArray[np.int8]]
Codes = Callable[[View], Ints]

_ROW_NODES = (Constant, Column, Negate, Absolute, Arithmetic, Compare, Membership, And, Or, Not)
COMPARISONS: dict[ComparisonOperator, Callable[..., Bools]] = {
    ComparisonOperator.EQUAL: operator.eq,
    ComparisonOperator.NOT_EQUAL: operator.ne,
    ComparisonOperator.GREATER: operator.gt,
    ComparisonOperator.GREATER_OR_EQUAL: operator.ge,
    ComparisonOperator.LESS: operator.lt,
    ComparisonOperator.LESS_OR_EQUAL: operator.le,
}
_ARITHMETIC: dict[ArithmeticOperator, Callable[[Floats, Floats], Floats]] = {
    ArithmeticOperator.ADD: operator.add,
    ArithmeticOperator.SUBTRACT: operator.sub,
    ArithmeticOperator.MULTIPLY: operator.mul,
    ArithmeticOperator.DIVIDE: operator.truediv,
}


def is_of_rows(node: Node) -> bool:
    """Whether a node depends on nothing but the cells of one row."""
    return all(isinstance(part, _ROW_NODES) for part in walk(node))


def is_constant(node: Node) -> bool:
    """Whether a node is made of literals alone."""
    return all(isinstance(part, _ROW_NODES) and not isinstance(part, Column) for part in walk(node))


class Vectors:
    """Makes functions of nodes over one source's rows."""

    def __init__(self, source: SourceRows, pools: Pools) -> None:
        self._source, self._pools = source, pools

    def condition(self, node: Node) -> Condition:
        """A boolean node; what is undefined counts as FALSE."""
        if isinstance(node, And):
            parts = [self.condition(part) for part in node.conditions]
            return lambda view: reduce(operator.and_, (part(view) for part in parts))
        if isinstance(node, Or):
            options = [self.condition(part) for part in node.conditions]
            return lambda view: reduce(operator.or_, (part(view) for part in options))
        if isinstance(node, Not):
            inner = self.condition(node.condition)
            return lambda view: ~inner(view)
        if isinstance(node, Compare):
            return self._compare(node)
        if isinstance(node, Membership):
            return self._membership(node)
        truth = self._tri(node)
        return lambda view: truth(view) == 1

    def number(self, node: Node) -> Number:
        """A numeric node, NaN where undefined, as overflow and division by zero are."""
        if isinstance(node, Constant):
            value = np.float64(node.value)  # type: ignore[arg-type]
            return lambda view: np.full(len(view), value)
        if isinstance(node, Column):
            place = self._source.place(node.name)
            return lambda view: view.numbers(place)
        if isinstance(node, Negate):
            negated = self.number(node.operand)
            return lambda view: -negated(view)
        if isinstance(node, Absolute):
            inner = self.number(node.operand)
            return lambda view: np.abs(inner(view))
        assert isinstance(node, Arithmetic), f"a number of rows, not {type(node).__name__}"
        first = self.number(node.first)
        rest = [(_ARITHMETIC[each], self.number(operand)) for each, operand in node.rest]

        def chain(view: View) -> Floats:
            total = first(view)
            with np.errstate(all="ignore"):
                for apply, operand in rest:
                    total = apply(total, operand(view))
                    total = np.where(np.isfinite(total), total, np.nan)
            return total

        return chain

    def _tri(self, node: Node) -> Tri:
        if isinstance(node, Constant):
            value = np.int8(bool(node.value))
            return lambda view: np.full(len(view), value)
        if isinstance(node, Column):
            place = self._source.place(node.name)
            return lambda view: view.ints(place).astype(np.int8)
        condition = self.condition(node)
        return lambda view: condition(view).astype(np.int8)

    def _compare(self, node: Compare) -> Condition:
        kind = node.left.type.kind
        compare = COMPARISONS[node.operator]
        unequal = node.operator is ComparisonOperator.NOT_EQUAL
        if kind is Kind.STRING:
            return self._compare_texts(node)
        if kind is Kind.NUMERIC:
            x, y = self.number(node.left), self.number(node.right)
            if not unequal:
                return lambda view: compare(x(view), y(view))
            return lambda view: (x(view) < y(view)) | (x(view) > y(view))
        if kind is Kind.BOOLEAN:
            p, q = self._tri(node.left), self._tri(node.right)
            return lambda view: compare(p(view), q(view)) & (p(view) >= 0) & (q(view) >= 0)
        s, t = self._codes(node.left), self._codes(node.right)
        return lambda view: compare(s(view), t(view)) & (s(view) != UNDEFINED_US) & (t(view) != UNDEFINED_US)

    def _compare_texts(self, node: Compare) -> Condition:
        compare, left, right = COMPARISONS[node.operator], node.left, node.right
        equality = node.operator in (ComparisonOperator.EQUAL, ComparisonOperator.NOT_EQUAL)
        if equality:
            x, y = self._codes(left), self._codes(right)
            return lambda view: compare(x(view), y(view))
        texts = self._pools.texts
        if isinstance(right, Constant) and isinstance(left, Column):
            at, bound = self._codes(left), str(right.value)
            after = of_texts(self._pools, lambda text: bool(compare(text, bound)))
            return lambda view: after(at(view))
        if isinstance(left, Constant) and isinstance(right, Column):
            at, bound = self._codes(right), str(left.value)
            before = of_texts(self._pools, lambda text: bool(compare(bound, text)))
            return lambda view: before(at(view))
        a, b = self._codes(left), self._codes(right)

        def by_row(view: View) -> Bools:
            pairs = zip(np.broadcast_to(a(view), len(view)).tolist(), b(view).tolist(), strict=True)
            return np.array([bool(compare(texts.text(i), texts.text(j))) for i, j in pairs], np.bool_)

        return by_row

    def _codes(self, node: Node) -> Codes:
        """A text, an array or an instant by row, as the cells hold it."""
        if isinstance(node, Column):
            place = self._source.place(node.name)
            return lambda view: view.ints(place)
        assert isinstance(node, Constant), f"a value of rows, not {type(node).__name__}"
        code = np.int64(
            self._pools.array_code(node.value) if isinstance(node.value, tuple) else self._pools.code(str(node.value))
        )
        return lambda view: np.full(len(view), code)

    def _membership(self, node: Membership) -> Condition:
        left, right = node.left, node.right
        kind = left.type.kind
        if isinstance(right, Constant):
            assert isinstance(right.value, tuple), "an array"
            if kind is Kind.STRING:
                texts = self._codes(left)
                wanted = np.array([self._pools.code(str(each)) for each in right.value], np.int64)
                return lambda view: np.isin(texts(view), wanted)
            if kind is Kind.NUMERIC:
                numbers, among = self.number(left), np.array(right.value, np.float64)
                return lambda view: np.isin(numbers(view), among)
            truths, these = self._tri(left), np.array(right.value, np.int8)
            return lambda view: np.isin(truths(view), these)
        arrays = self._codes(right)
        if isinstance(left, Constant):
            value = left.value
            holds = of_arrays(self._pools, lambda array: value in array)
            return lambda view: holds(arrays(view))
        return self._row_in_array(left, arrays)

    def _row_in_array(self, left: Node, arrays: Codes) -> Condition:
        """Each row's value in its own array: by pairs, decided once for each distinct pair of a batch."""
        pools, kind = self._pools, left.type.kind
        decode: Callable[[View], list[object]]
        if kind is Kind.STRING:
            codes = self._codes(left)
            decode = lambda view: [pools.texts.text(code) for code in codes(view).tolist()]  # noqa: E731
        elif kind is Kind.NUMERIC:
            numbers = self.number(left)
            decode = lambda view: numbers(view).tolist()  # noqa: E731
        else:
            truths = self._tri(left)
            # What is undefined is in no array: -1 equals neither True nor False.
            decode = lambda view: truths(view).tolist()  # noqa: E731

        def by_row(view: View) -> Bools:
            values: list[ArrayValue] = [pools.arrays.values[code] for code in arrays(view).tolist()]
            return np.array([a in b for a, b in zip(decode(view), values, strict=True)], np.bool_)

        return by_row
