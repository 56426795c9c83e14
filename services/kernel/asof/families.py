"""From each function to what computes it over many pairs."""

from collections.abc import Mapping

import numpy as np

from services.kernel.aggregations import Function
from services.kernel.asof.categories import (
    category_count,
    count_distinct,
    least_frequent,
    most_frequent,
    unique_list,
)
from services.kernel.asof.extremes import maximum, minimum
from services.kernel.asof.question import Family, Question, Values
from services.kernel.asof.sums import mean, sum_


def counter(question: Question) -> Values:
    """The number of events."""
    return Values(question.values(question.span.stop - question.span.first))


def first(question: Question) -> Values:
    """The term of the first event."""
    return Values(question.of_rows(question.span.first))


def last(question: Question) -> Values:
    """The term of the last event."""
    return Values(question.of_rows(question.span.stop - 1))


def latest(question: Question) -> Values:
    """The term of the last event, null when that event has none."""
    question.keep_latest()
    return last(question)


def time_since_first(question: Question) -> Values:
    """Seconds from the first event to now."""
    return _time_since(question, question.span.first)


def time_since_last(question: Question) -> Values:
    """Seconds from the last event to now."""
    return _time_since(question, question.span.stop - 1)


def _time_since(question: Question, numbers: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Values:
    present, moments = question.present, question.moments
    seconds = np.zeros(len(moments))
    times = question.events.times[question.rows.places[numbers[present]]]
    # No event is later than now, which is t less a microsecond: the age is right modulo 2^64.
    seconds[present] = (moments.instants_us[present] - 1 - times).view(np.uint64) / 1e6
    return Values(question.values(seconds))


FAMILIES: Mapping[Function, Family] = {
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
    # Exact as well, as in the incremental engine.
    Function.APPROX_COUNT_DISTINCT: count_distinct,
    Function.MOST_FREQUENT: most_frequent,
    Function.LEAST_FREQUENT: least_frequent,
    Function.CATEGORY_COUNT: category_count,
    Function.TIME_SINCE_FIRST: time_since_first,
    Function.TIME_SINCE_LAST: time_since_last,
}
