"""Queries with places to fill in, for people who know no SQL: each place has a type, bounds and perhaps a default."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from services.insights.language.format import number_literal, string_literal
from services.runtime.errors import InvalidArgument, NotFound, Violation

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_PERIOD = re.compile(r"([0-9]{1,3})([DM])")
_MAX_TEXTS, _MAX_TEXT = 100, 256


class ParameterType(StrEnum):
    """What a place takes."""

    NUMBER = "number"
    TEXT = "text"
    TEXTS = "texts"
    """Several, separated by commas."""
    PERIOD = "period"
    """Days or months, such as 30D or 12M."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A place of a template."""

    name: str
    description: str
    type: ParameterType
    default: str = ""
    """Empty: it must be given."""
    minimum: str = ""
    maximum: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A query with places; `text` names them in braces."""

    template_id: str
    description: str
    text: str
    parameters: tuple[Parameter, ...]


def _amount(meaning: str) -> Parameter:
    return Parameter("amount", meaning, ParameterType.NUMBER, "100", "0.01", "1000000000000")


def _period(meaning: str = "How far back to look.", default: str = "1M") -> Parameter:
    return Parameter("period", meaning, ParameterType.PERIOD, default, "1D", "12M")


_CURRENCY = Parameter("currency", "The currency of the amounts.", ParameterType.TEXT, "GBP")


def templates() -> tuple[Template, ...]:
    """All templates, by id."""
    spent = "ABS(SUM(amount)) > {amount}"
    debit = 'credit_debit_indicator = "debit" AND currency = {currency} AND DATETIME_FROM(date_time, {period})'
    credit = 'credit_debit_indicator = "credit" AND currency = {currency} AND DATETIME_FROM(date_time, {period})'
    return (
        Template(
            "expenditure_l2s",
            "Spent more than an amount in some categories.",
            f"INFER {{identifier}} FROM transactions WHERE category_l2 IN {{categories}} AND {debit} HAVING {spent}",
            (
                Parameter("categories", "The second-level categories.", ParameterType.TEXTS),
                _amount("More than this was spent."),
                _period(),
                _CURRENCY,
            ),
        ),
        Template(
            "expenditure_merchant",
            "Spent more than an amount at some merchants.",
            f"INFER {{identifier}} FROM transactions WHERE merchant IN {{merchants}} AND {debit} HAVING {spent}",
            (
                Parameter("merchants", "The merchants' slugs.", ParameterType.TEXTS),
                _amount("More than this was spent."),
                _period(),
                _CURRENCY,
            ),
        ),
        Template(
            "income_l2s",
            "Received more than an amount in some categories.",
            "INFER {identifier} FROM transactions WHERE category_l2 IN {categories} AND "
            f"{credit} HAVING SUM(amount) > {{amount}}",
            (
                Parameter("categories", "The second-level categories.", ParameterType.TEXTS),
                _amount("More than this was received."),
                _period(),
                _CURRENCY,
            ),
        ),
        Template(
            "lapsed_spender",
            "Spent more than an amount in all, and nothing lately.",
            "INFER {identifier} FROM transactions HAVING "
            'ABS(SUM(SELECT amount FROM transactions WHERE credit_debit_indicator = "debit" '
            "AND currency = {currency})) > {amount} "
            "AND SUM(SELECT 1 FROM transactions WHERE DATETIME_FROM(date_time, {period})) = 0",
            (_amount("More than this was spent in all."), _period("Since when nothing happened.", "90D"), _CURRENCY),
        ),
        Template(
            "share_of_income",
            "Spent more than a share of the income in a category.",
            f"INFER {{identifier}} FROM transactions WHERE category_l1 = {{category}} AND {debit} "
            "HAVING ABS(SUM(amount)) > SUM(SELECT amount FROM transactions WHERE "
            '"income" IN tags AND currency = {currency} AND DATETIME_FROM(date_time, {period})) * {share}',
            (
                Parameter("category", "The first-level category.", ParameterType.TEXT),
                Parameter("share", "More than this part of the income.", ParameterType.NUMBER, "0.1", "0", "1000"),
                _period(),
                _CURRENCY,
            ),
        ),
    )


def render(template_id: str, identifier: str, given: Mapping[str, str]) -> str:
    """The query that a template makes. Raises NotFound, InvalidArgument with every mistake."""
    template = next((each for each in templates() if each.template_id == template_id), None)
    if template is None:
        known = ", ".join(each.template_id for each in templates())
        raise NotFound(f"there is no such template: there are {known}", reason="NOT_FOUND")
    mistakes: list[Violation] = []
    if not _IDENTIFIER.fullmatch(identifier):
        mistakes.append(_wrong("identifier", "is a letter or _, then letters, digits and _, at most 64"))
    names = {parameter.name for parameter in template.parameters}
    mistakes += [
        _wrong(f"parameters.{name[:64]}", f"is none of this template: {', '.join(sorted(names))}")
        for name in given
        if name not in names
    ]
    filled = {"identifier": identifier}
    for parameter in template.parameters:
        try:
            filled[parameter.name] = _WRITERS[parameter.type](parameter, given.get(parameter.name) or parameter.default)
        except ValueError as error:
            mistakes.append(_wrong(f"parameters.{parameter.name}", str(error)))
    if mistakes:
        raise InvalidArgument("the template cannot be filled in", reason="BAD_PARAMETER", violations=mistakes)
    return template.text.format(**filled)


def _wrong(field: str, description: str) -> Violation:
    return Violation(field, description, "BAD_PARAMETER")


def _number(parameter: Parameter, text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("is a number") from None
    if not math.isfinite(value) or not float(parameter.minimum) <= value <= float(parameter.maximum):
        raise ValueError(f"is a number from {parameter.minimum} to {parameter.maximum}")
    return number_literal(value)


def _text(parameter: Parameter, text: str) -> str:
    if not text or len(text) > _MAX_TEXT:
        raise ValueError(f"is a text of 1 to {_MAX_TEXT} characters")
    return string_literal(text)


def _texts(parameter: Parameter, text: str) -> str:
    texts = [each.strip() for each in text.split(",") if each.strip()]
    if not 1 <= len(texts) <= _MAX_TEXTS:
        raise ValueError(f"is 1 to {_MAX_TEXTS} texts, separated by commas")
    return f"({', '.join(_text(parameter, each) for each in texts)})"


def _back(parameter: Parameter, text: str) -> str:
    match = _PERIOD.fullmatch(text.upper())
    bounds = {"D": 366, "M": 12}
    if match is None or not 1 <= int(match[1]) <= bounds[match[2]]:
        raise ValueError(f"is a period from {parameter.minimum} to {parameter.maximum}, such as 30D or 3M")
    return f"0, {int(match[1])}, 0" if match[2] == "M" else f"0, 0, {int(match[1])}"


_WRITERS: Mapping[ParameterType, Callable[[Parameter, str], str]] = {
    ParameterType.NUMBER: _number,
    ParameterType.TEXT: _text,
    ParameterType.TEXTS: _texts,
    ParameterType.PERIOD: _back,
}
