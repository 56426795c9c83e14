"""The functions of both dialects and the checks of their arguments."""

from typing import TYPE_CHECKING

from services.insights.language import syntax
from services.insights.language.constants import is_constant, value_of
from services.insights.language.diagnostics import Code
from services.insights.language.scalars import whole
from services.insights.language.sources import SourceSchema
from services.insights.language.tree import (
    Absolute,
    Aggregate,
    AggregateFunction,
    Column,
    Dialect,
    Node,
    Period,
    Select,
    Within,
    walk,
)
from services.insights.language.types import BOOLEAN, NUMERIC, Kind

if TYPE_CHECKING:
    from services.insights.language.checking import Checker

SIGNATURES = {
    "SUM": "SUM(numeric, ...)",
    "ABS": "ABS(numeric)",
    "DATETIME_FROM": "DATETIME_FROM(datetime, years, months, days)",
    "DATETIME_TO": "DATETIME_TO(datetime, years, months, days)",
}
EXTENDED_SIGNATURES = {
    **SIGNATURES,
    "COUNT": "COUNT(value, ...)",
    "COUNT_DISTINCT": "COUNT_DISTINCT(value, ...)",
    "AVG": "AVG(numeric, ...)",
    "MIN": "MIN(value, ...)",
    "MAX": "MAX(value, ...)",
    "DATETIME_FROM": "DATETIME_FROM(datetime, years, months, days[, hours[, minutes]])",
    "DATETIME_TO": "DATETIME_TO(datetime, years, months, days[, hours[, minutes]])",
}
_KINDS = {
    AggregateFunction.SUM: (Kind.NUMERIC,),
    AggregateFunction.AVG: (Kind.NUMERIC,),
    AggregateFunction.MIN: (Kind.NUMERIC, Kind.STRING, Kind.DATETIME),
    AggregateFunction.MAX: (Kind.NUMERIC, Kind.STRING, Kind.DATETIME),
}
_PERIOD_PARTS = ("years", "months", "days", "hours", "minutes")


def signatures(dialect: Dialect) -> dict[str, str]:
    """The functions of a dialect by name, each with how it is called."""
    return EXTENDED_SIGNATURES if dialect is Dialect.EXTENDED else SIGNATURES


def only_literals(node: Node) -> bool:
    """Whether a term stands once for each selected row: nothing of it comes from rows, by a column or an aggregate."""
    return not any(isinstance(part, (Column, Aggregate, Select)) for part in walk(node))


def check(checker: "Checker", call: syntax.Call, source: SourceSchema | None) -> Node | None:
    """A call as a typed node; None after noting what is wrong."""
    name = call.function.text
    known = signatures(checker.dialect)
    if name not in known:
        if name in EXTENDED_SIGNATURES:
            hint = f"{name} is of the extended dialect; set it for this insight"
        else:
            hint = f"the functions are {', '.join(known)}"
        checker.wrong(Code.FUNCTION, f"there is no function {call.function.text[:64]}", call.function.span, hint)
        return None
    if name == "ABS":
        return _absolute(checker, call, source)
    if name in ("DATETIME_FROM", "DATETIME_TO"):
        return _within(checker, call, source, inside=name == "DATETIME_FROM")
    return _aggregate(checker, call, source, AggregateFunction(name))


def _arity(checker: "Checker", call: syntax.Call, least: int, most: int | None) -> bool:
    given = len(call.arguments)
    if least <= given and (most is None or given <= most):
        return True
    name = call.function.text
    wanted = f"{least}" if least == most else (f"{least} or more" if most is None else f"{least} to {most}")
    message = f"{name} takes {wanted} arguments, not {given}"
    checker.wrong(Code.ARITY, message, call.span, signatures(checker.dialect)[name])
    return False


def _absolute(checker: "Checker", call: syntax.Call, source: SourceSchema | None) -> Node | None:
    if not _arity(checker, call, 1, 1):
        return None
    operand = checker.scalar(call.arguments[0], source, (Kind.NUMERIC,), "ABS takes")
    return None if operand is None else Absolute(operand, operand.type, call.span)


def _aggregate(
    checker: "Checker", call: syntax.Call, source: SourceSchema | None, function: AggregateFunction
) -> Node | None:
    if not _arity(checker, call, 1, None):
        return None
    kinds = _KINDS.get(function, tuple(Kind))
    given = [checker.scalar(each, source, kinds, f"{function} takes") for each in call.arguments]
    arguments = tuple(each for each in given if each is not None)
    if len(arguments) < len(given):
        return None
    if function not in (AggregateFunction.MIN, AggregateFunction.MAX):
        return Aggregate(function, arguments, NUMERIC, call.span)
    for argument in arguments:
        if argument.type.kind is not arguments[0].type.kind:
            message = f"{function} takes values of one type: {arguments[0].type.name} and {argument.type.name}"
            checker.wrong(Code.TYPE, message, argument.span)
            return None
    return Aggregate(function, arguments, arguments[0].type.as_vector(False), call.span)


def _within(checker: "Checker", call: syntax.Call, source: SourceSchema | None, *, inside: bool) -> Node | None:
    if not _arity(checker, call, 4, 6 if checker.dialect is Dialect.EXTENDED else 4):
        return None
    name = call.function.text
    operand = checker.scalar(call.arguments[0], source, (Kind.DATETIME,), f"the first argument of {name} is")
    given = [
        _period_part(checker, each, source, f"{part} of {name}")
        for part, each in zip(_PERIOD_PARTS, call.arguments[1:], strict=False)
    ]
    parts: list[Node] = [each for each in given if each is not None]
    if operand is None or len(parts) < len(given):
        return None
    known = [_whole(part) for part in parts]
    known += [0] * (5 - len(known))
    years, months, days, hours, minutes = known
    constant = None
    if years is not None and months is not None and days is not None and hours is not None and minutes is not None:
        constant = (years, months, days, hours, minutes)
    written: list[Node | None] = [*parts, *[None] * (5 - len(parts))]
    period = Period(parts[0], parts[1], parts[2], written[3], written[4], constant)
    return Within(operand, period, inside, BOOLEAN.as_vector(operand.type.vector), call.span)


def _whole(part: Node) -> int | None:
    value = value_of(part) if is_constant(part) else None
    return whole(value) if isinstance(value, float) else None


def _period_part(checker: "Checker", found: syntax.Syntax, source: SourceSchema | None, what: str) -> Node | None:
    part = checker.scalar(found, source, (Kind.NUMERIC,), f"{what} are")
    if part is None:
        return None
    if part.type.vector:
        checker.wrong(Code.TYPE, f"{what} are one number, not one for each row", part.span, "write a literal")
        return None
    if is_constant(part) and _whole(part) is None:
        checker.wrong(Code.INTEGER, f"{what} are a whole number from 0", part.span)
        return None
    return part
