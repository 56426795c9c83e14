"""The incremental aggregates, one file a family. To add one: write its states and reader, and name it
in `READERS`; what is read for many keys at once has a second reader, in `MANY_READERS`.
"""

from collections.abc import Callable

from services.kernel.aggregates.base import ManyReader, Reader, States
from services.kernel.aggregates.categories import (
    category_count,
    count_distinct,
    least_frequent,
    many_distinct_counts,
    many_unique_lists,
    most_frequent,
    unique_list,
)
from services.kernel.aggregates.counting import counter, many_counters
from services.kernel.aggregates.endpoints import (
    first,
    last,
    latest,
    many_firsts,
    many_lasts,
    many_latest,
    many_times_since_first,
    many_times_since_last,
    time_since_first,
    time_since_last,
)
from services.kernel.aggregates.extremes import many_maxima, many_minima, maximum, minimum
from services.kernel.aggregates.summing import many_means, many_sums, mean, sum_
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

MANY_READERS: dict[Function, Callable[[Aggregation, States], ManyReader]] = {
    Function.COUNTER: many_counters,
    Function.SUM: many_sums,
    Function.MIN: many_minima,
    Function.MAX: many_maxima,
    Function.MEAN: many_means,
    Function.FIRST: many_firsts,
    Function.LAST: many_lasts,
    Function.LATEST: many_latest,
    Function.UNIQUE_LIST: many_unique_lists,
    Function.COUNT_DISTINCT: many_distinct_counts,
    Function.APPROX_COUNT_DISTINCT: many_distinct_counts,
    Function.TIME_SINCE_FIRST: many_times_since_first,
    Function.TIME_SINCE_LAST: many_times_since_last,
}
"""The same for many keys; the others are read one by one."""
