"""What an aggregate is: a function over the terms of the filtered events of a key in a window."""

from dataclasses import dataclass
from enum import StrEnum

from services.kernel.expressions import Expression, Property
from services.kernel.windows import Lifetime, Window


class Function(StrEnum):
    """How the terms of the events in the window become one value; the names are those of Signals."""

    COUNTER = "counter"
    SUM = "sum"
    MIN = "min"
    MAX = "max"
    MEAN = "mean"
    FIRST = "first"
    LAST = "last"
    LATEST = "latest"
    """The term of the last event, null when that event has none: to what a property is set. Not of Signals."""
    UNIQUE_LIST = "unique_list"
    COUNT_DISTINCT = "count_distinct"
    APPROX_COUNT_DISTINCT = "approx_count_distinct"
    MOST_FREQUENT = "most_frequent"
    LEAST_FREQUENT = "least_frequent"
    CATEGORY_COUNT = "category_count"
    TIME_SINCE_FIRST = "time_since_first"
    TIME_SINCE_LAST = "time_since_last"


class TermType(StrEnum):
    """The type of a term. A value of another type is skipped and counted; texts are never read as numbers."""

    STRING = "string"
    INTEGER = "integer"
    """Integers, and doubles that are whole."""
    NUMBER = "number"
    """Doubles and integers."""
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"


OF_SIGNALS = tuple(function for function in Function if function is not Function.LATEST)
"""The functions that attributes may name."""
WITHOUT_TERM = frozenset({Function.COUNTER, Function.TIME_SINCE_FIRST, Function.TIME_SINCE_LAST})
"""Functions that look at the events themselves."""
NUMERIC_ONLY = frozenset({Function.SUM, Function.MEAN})
"""Functions that need an INTEGER or NUMBER term."""
ORDERED_ONLY = frozenset({Function.MIN, Function.MAX})
"""Functions that need a term with an order: INTEGER, NUMBER or TIMESTAMP."""


@dataclass(frozen=True, slots=True)
class Aggregation:
    """One aggregate. Equal ones share their state."""

    function: Function
    filter: Expression
    term: Property | None = None
    term_type: TermType | None = None
    window: Window = Lifetime()
    ttl_us: int | None = None
    """Only with Lifetime: after so long without a filtered event the next one starts from empty."""
    limit: int = 0
    """For unique_list and category_count: at most so many, those seen last; 0 for all."""

    def __post_init__(self) -> None:
        if (self.term is None) != (self.function in WITHOUT_TERM):
            raise ValueError(f"{self.function} {'has no' if self.term else 'needs a'} term")
        if (self.term is None) != (self.term_type is None):
            raise ValueError("a term comes with its type")
        if self.function in NUMERIC_ONLY and self.term_type not in (TermType.INTEGER, TermType.NUMBER):
            raise ValueError(f"{self.function} needs numbers")
        if self.function in ORDERED_ONLY and self.term_type in (TermType.STRING, TermType.BOOLEAN):
            raise ValueError(f"{self.function} needs numbers or instants")
        if self.ttl_us is not None and (self.ttl_us <= 0 or not isinstance(self.window, Lifetime)):
            raise ValueError("a ttl is positive and excludes a window")
        if self.limit < 0:
            raise ValueError("a limit is not negative")
