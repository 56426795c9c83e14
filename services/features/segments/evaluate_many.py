"""Which of many profiles meet a condition: the same answers as `evaluate_one`, whole columns at a time."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from services.features.segments.evaluate_one import COMPARE, TURNS, holder
from services.features.segments.schema import Kind
from services.features.segments.tree import (
    AllOf,
    Always,
    AnyOf,
    Compare,
    Condition,
    Contains,
    IsNull,
    Like,
    Moment,
    Not,
    OneOf,
    Tree,
    moving,
)
from services.kernel.expressions import like

NEVER_US = 2**63 - 1
Bools = NDArray[np.bool_]
_ARROW = {"=": "equal", "!=": "not_equal", "<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal"}


class ManyProfiles:
    """A condition made ready for columns.

    A column is an Arrow array: instants int64 microseconds (or timestamps of these), counts a map, arrays JSON text.
    """

    def __init__(self, condition: Condition) -> None:
        self._tree = condition.tree
        self._kinds = [field.kind if field.elapsed is None else Kind.INSTANT for field in condition.fields]
        self._moving = moving(condition.tree)

    def holds(self, columns: Sequence[pa.Array], count: int, now_us: int) -> Bools:
        """For each of `count` profiles whether it meets the condition at an instant."""
        return self._evaluate(self._tree, _Columns(columns, self._kinds, count), now_us)

    def next_change_us(self, columns: Sequence[pa.Array], count: int, now_us: int) -> NDArray[np.int64]:
        """For each profile the first instant after now at which its answer may be another; NEVER_US where never."""
        found = np.full(count, NEVER_US, np.int64)
        if not self._moving:
            return found
        ready = _Columns(columns, self._kinds, count)
        for each in self._moving:
            assert isinstance(each.value, Moment), "only these move"
            values, valid = ready.numbers(each.place)
            for step in TURNS[each.comparator]:
                instants = values + (step - each.value.offset_us)
                later = instants > now_us if valid is None else (instants > now_us) & valid
                np.minimum(found, instants, out=found, where=later)
        return found

    def _evaluate(self, tree: Tree, columns: "_Columns", now_us: int) -> Bools:
        if isinstance(tree, Always):
            return np.full(columns.count, tree.answer, np.bool_)
        if isinstance(tree, Not):
            return ~self._evaluate(tree.item, columns, now_us)
        if isinstance(tree, AllOf | AnyOf):
            first, *rest = tree.items
            every = isinstance(tree, AllOf)
            answer = self._evaluate(first, columns, now_us)
            for item in rest:
                if (not answer.any()) if every else answer.all():
                    return answer
                other = self._evaluate(item, columns, now_us)
                answer = answer & other if every else answer | other
            return answer
        return _leaf(tree, columns, now_us)


class _Columns:
    """Columns, taken apart once each."""

    def __init__(self, columns: Sequence[pa.Array], kinds: Sequence[Kind], count: int) -> None:
        self.count = count
        self.kinds = kinds
        self._columns = columns
        self._numbers: dict[int, tuple[NDArray[Any], Bools | None]] = {}

    def array(self, place: int) -> pa.Array:
        """The column."""
        return self._columns[place]

    def numbers(self, place: int) -> tuple[NDArray[Any], Bools | None]:
        """A column of numbers, instants or booleans, with anything where it is null; and where it is not, if anywhere.

        Integers and instants are int64, numbers are doubles.
        """
        found = self._numbers.get(place)
        if found is None:
            found = self._numbers[place] = _taken_apart(self._columns[place], self.kinds[place])
        return found


def _taken_apart(array: pa.Array, kind: Kind) -> tuple[NDArray[Any], Bools | None]:
    valid = None
    if array.null_count:
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        array = pc.fill_null(array, pa.scalar(False if kind is Kind.BOOLEAN else 0).cast(array.type))
    if kind is Kind.BOOLEAN:
        return array.to_numpy(zero_copy_only=False), valid
    target = pa.float64() if kind is Kind.NUMBER else pa.int64()
    return array.cast(target).to_numpy(zero_copy_only=False), valid


def _leaf(tree: Compare | OneOf | Like | Contains | IsNull, columns: _Columns, now_us: int) -> Bools:
    array, kind = columns.array(tree.place), columns.kinds[tree.place]
    if isinstance(tree, IsNull):
        return array.is_null().to_numpy(zero_copy_only=False) if array.null_count else np.zeros(len(array), np.bool_)
    if isinstance(tree, Like):
        return _like(array, tree.pattern)
    if isinstance(tree, Contains):
        return _contains(array, kind, tree.value)
    if kind is Kind.STRING:
        if isinstance(tree, OneOf):
            return _plain(pc.is_in(array, pa.array(sorted(map(str, tree.values)), array.type)))
        return _plain(getattr(pc, _ARROW[tree.comparator])(array, pa.scalar(tree.value, array.type)))
    values, valid = columns.numbers(tree.place)
    if isinstance(tree, OneOf):
        fitting = [each for each in tree.values if kind is not Kind.INTEGER or -(2**63) <= each < 2**63]  # type: ignore[operator]
        answer = np.isin(values, np.array(fitting, values.dtype))
    else:
        literal = now_us + tree.value.offset_us if isinstance(tree.value, Moment) else tree.value
        answer = COMPARE[tree.comparator](values, literal)  # type: ignore[assignment]
    return answer if valid is None else answer & valid


def _plain(array: pa.Array) -> Bools:
    """Booleans without nulls: null is false."""
    answer: Bools = (array.fill_null(False) if array.null_count else array).to_numpy(zero_copy_only=False)
    return answer


def _like(array: pa.Array, pattern: str) -> Bools:
    pieces = pattern.split("%")
    if not set("\\_") & set(pattern):
        # The common forms, in Arrow.
        if len(pieces) == 1:
            return _plain(pc.equal(array, pa.scalar(pattern, array.type)))
        if len(pieces) == 2 and not pieces[1]:
            return _plain(pc.starts_with(array, pieces[0]))
        if len(pieces) == 2 and not pieces[0]:
            return _plain(pc.ends_with(array, pieces[1]))
        if len(pieces) == 3 and not pieces[0] and not pieces[2]:
            return _plain(pc.match_substring(array, pieces[1]))
    return _each_distinct(array, like(pattern))


def _each_distinct(array: pa.Array, test: Callable[[str], bool]) -> Bools:
    encoded = array.dictionary_encode()
    answers = pa.array([test(text) for text in encoded.dictionary.to_pylist()], pa.bool_())
    return _plain(answers.take(encoded.indices))


def _contains(array: pa.Array, kind: Kind, wanted: str | bool | float) -> Bools:
    if kind is Kind.ARRAY:
        return _each_distinct(array, holder(wanted))
    if kind is Kind.COUNTS:
        return _plain(pc.map_lookup(array, query_key=pa.scalar(str(wanted)), occurrence="first").is_valid())
    answer: Bools = np.zeros(len(array), np.bool_)
    if kind is Kind.INTEGERS and not -(2**63) <= int(wanted) < 2**63:
        return answer
    items = array.flatten()
    found = _plain(pc.equal(items, pa.scalar(wanted).cast(items.type)))
    answer[pc.list_parent_indices(array).to_numpy()[found]] = True
    return answer
