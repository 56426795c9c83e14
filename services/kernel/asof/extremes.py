"""min and max: the rows of the moving span that nothing later in it overtops, as a queue."""

import numpy as np
from numpy.typing import NDArray

from services.kernel.aggregations import TermType
from services.kernel.asof.question import Question, Values
from services.kernel.jit import njit


def minimum(question: Question) -> Values:
    """The least term."""
    return _extreme(question, greatest=False)


def maximum(question: Question) -> Values:
    """The greatest term."""
    return _extreme(question, greatest=True)


def _extreme(question: Question, *, greatest: bool) -> Values:
    numbers = question.aggregation.term_type is TermType.NUMBER
    terms = question.terms.view(np.float64) if numbers else question.terms
    return Values(question.of_rows(_extremes(terms, *question.span, greatest)))


@njit
def _extremes(
    terms: NDArray[np.int64] | NDArray[np.float64], first: NDArray[np.int64], stop: NDArray[np.int64], greatest: bool
) -> NDArray[np.int64]:
    """The number of a row with the extreme term, by pair; -1 for an empty span."""
    result = np.full(len(first), -1)
    queue = np.empty(len(terms), np.int64)
    head = tail = high = 0
    for p in range(len(first)):
        if first[p] >= stop[p]:
            continue
        if first[p] >= high:
            head = tail = 0
            high = first[p]
        for i in range(high, stop[p]):
            while tail > head and (
                terms[queue[tail - 1]] <= terms[i] if greatest else terms[queue[tail - 1]] >= terms[i]
            ):
                tail -= 1
            queue[tail] = i
            tail += 1
        high = stop[p]
        while queue[head] < first[p]:
            head += 1
        result[p] = queue[head]
    return result
