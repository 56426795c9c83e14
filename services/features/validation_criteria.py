"""The mistakes of criteria: what may be compared with what."""

import math
from collections.abc import Callable, Iterator

from services.features.definitions import Criteria, Criterion, Operator, Problem, Property, Scalar
from services.kernel.expressions import Instant

MAX_CRITERIA = 100
MAX_VALUES = 1_000
MAX_PATTERN = 1_024
ORDERING = (Operator.LESS, Operator.GREATER, Operator.LESS_OR_EQUAL, Operator.GREATER_OR_EQUAL)
NULL_TESTS = (Operator.IS_NULL, Operator.IS_NOT_NULL)


def check_criteria(
    criteria: Criteria, path: str, check_property: Callable[[Property, str], Iterator[Problem]]
) -> Iterator[Problem]:
    """The mistakes of a condition on events."""
    if not 1 <= len(criteria.criteria) <= MAX_CRITERIA:
        yield Problem(path, f"must have 1 to {MAX_CRITERIA} criteria", "leave it out to take every event")
    for i, criterion in enumerate(criteria.criteria):
        place = f"{path}.{criteria.combination}[{i}]"
        if criterion.property is None:
            yield Problem(f"{place}.property", "is missing", "say which property is compared")
        else:
            yield from check_property(criterion.property, f"{place}.property")
        if criterion.operator is None:
            yield Problem(f"{place}.operator", "is missing", "one of " + ", ".join(Operator))
        else:
            yield from _check_values(criterion, criterion.operator, f"{place}.value")


def _check_values(criterion: Criterion, operator: Operator, path: str) -> Iterator[Problem]:
    values = criterion.values
    if operator in NULL_TESTS:
        if values:
            yield Problem(path, f"`{operator}` compares with nothing", "leave the value out")
        return
    if operator is Operator.IN:
        if not 1 <= len(values) <= MAX_VALUES:
            yield Problem(path, f"`in` needs 1 to {MAX_VALUES} values, not {len(values)}")
        if len({_family(value) for value in values}) > 1:
            yield Problem(path, "`in` needs values of one type", "nothing is coerced: split them into two criteria")
    elif len(values) != 1:
        yield Problem(path, f"`{operator}` needs one value, not {len(values)}", "several need the operator `in`")
        return
    for value in values:
        yield from _check_value(value, operator, path)


def _check_value(value: Scalar, operator: Operator, path: str) -> Iterator[Problem]:
    family = _family(value)
    if operator is Operator.LIKE:
        if not isinstance(value, str):
            yield Problem(path, f"`like` compares with a string, not a {family}", "put the pattern in quotes")
        elif len(value) > MAX_PATTERN:
            yield Problem(path, f"a pattern has at most {MAX_PATTERN} characters")
    if operator in ORDERING and isinstance(value, bool):
        yield Problem(path, "true and false have no order", "use `=`")
    if isinstance(value, float) and not math.isfinite(value):
        yield Problem(path, "must be a finite number")
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        yield Problem(path, "must fit 64 bits")


def _family(value: Scalar) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "instant" if isinstance(value, Instant) else "string"
