"""The incremental aggregates, one file a family. To add one: write its states and reader, and name it in `READERS`."""

from collections.abc import Callable

from services.kernel.aggregates.base import Reader, States
from services.kernel.aggregates.categories import (
    category_count,
    count_distinct,
    least_frequent,
    most_frequent,
    unique_list,
)
from services.kernel.aggregates.counting import counter
from services.kernel.aggregates.endpoints import first, last, latest, time_since_first, time_since_last
from services.kernel.aggregates.extremes import maximum, minimum
from services.kernel.aggregates.summing import mean, sum_
from services.kernel.aggregations import Aggregation, Function

READERS: dict[Function, Callable[[Aggregation, States], Reader]] = {
    Function.COUNTER: counter,
    Function.SUM: sum_,
    Function.MIN: minimum,
    Function.MAX: maximum,
    Function.MEAN: mean,
    Function.FIRST: first,
    Function.LAST: last,
    Function.LATEST: latest,
    Function.UNIQUE_LIST: unique_list,
    Function.COUNT_DISTINCT: count_distinct,
    # Exact as well: the pairs are held anyway.
    Function.APPROX_COUNT_DISTINCT: count_distinct,
    Function.MOST_FREQUENT: most_frequent,
    Function.LEAST_FREQUENT: least_frequent,
    Function.CATEGORY_COUNT: category_count,
    Function.TIME_SINCE_FIRST: time_since_first,
    Function.TIME_SINCE_LAST: time_since_last,
}
"""From each function to what makes a reader of an aggregation."""
