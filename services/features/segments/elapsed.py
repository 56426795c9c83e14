"""Fields that count the seconds since an instant, as comparisons of that instant with the present.

`time_since_last < 3600` is true while the last event is less than an hour ago; so it is a comparison of an instant with
`now - 1 hour`, and everything that is known of those (when time changes them, above all) holds for it. The value that
an attribute shows is rounded by its type: for each literal the exact span, in microseconds, at which the comparison
turns is searched once, with the very conversion that profiles are answered with.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass

from services.features.definitions import ValueType
from services.features.segments.schema import Elapsed
from services.features.segments.tree import AllOf, Always, AnyOf, Comparator, Compare, IsNull, Moment, Not, Tree
from services.features.validation_types import INT_BOUNDS, to_double

_MOST_US = 2**62
"""No span is longer."""
_COMPARE: dict[Comparator, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class ElapsedTimes:
    """The comparisons of one field, which is read as the instant that time goes by since."""

    place: int
    elapsed: Elapsed

    def compare(self, comparator: Comparator, literal: float) -> Tree:
        """The seconds against a literal."""
        reaches = self._span(lambda value: value >= literal)
        exceeds = self._span(lambda value: value > literal)
        trees: dict[Comparator, Tree] = {
            ">=": self._at_least(reaches),
            ">": self._at_least(exceeds),
            "<": self._less(reaches),
            "<=": self._less(exceeds),
            "=": AllOf((self._at_least(reaches), self._less(exceeds))),
            "!=": AnyOf((self._less(reaches), self._at_least(exceeds))),
        }
        tree = trees[comparator]
        end = self._end()
        if end is not None:
            tree = AllOf((tree, self._less(end)))
        default = self.elapsed.default
        if default is not None and _COMPARE[comparator](default, literal):
            tree = AnyOf((tree, IsNull(self.place)))
        return tree

    def is_null(self) -> Tree:
        """No value: there is no such instant and no default, or it is so long ago that the type does not hold it."""
        end = self._end()
        too_long: Tree = Always(False) if end is None else self._at_least(end)
        return AnyOf((IsNull(self.place), too_long)) if self.elapsed.default is None else too_long

    def _at_least(self, span_us: int) -> Tree:
        return Compare(self.place, "<=", Moment(-span_us)) if span_us < _MOST_US else Always(False)

    def _less(self, span_us: int) -> Tree:
        return Compare(self.place, ">", Moment(-span_us)) if span_us < _MOST_US else Not(IsNull(self.place))

    def _end(self) -> int | None:
        """The least span that the type does not hold any more."""
        bounds = INT_BOUNDS.get(self.elapsed.value_type)
        if bounds is None or bounds[1] * 1_000_000 >= _MOST_US:
            return None
        return _least(lambda span_us: span_us / 1e6 // 1 > bounds[1])

    def _span(self, holds: Callable[[float], bool]) -> int:
        """The least span for whose value a test holds that, once true, stays so; _MOST_US when there is none."""
        if self.elapsed.value_type in INT_BOUNDS:
            return _least(lambda span_us: holds(int(span_us / 1e6 // 1)))
        return _least(lambda span_us: holds(_shown(span_us / 1e6, self.elapsed.value_type)))


def _shown(seconds: float, value_type: ValueType) -> float:
    value = to_double(seconds, value_type)
    return seconds if value is None else value


def _least(holds: Callable[[int], bool]) -> int:
    low, high = 0, _MOST_US
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
