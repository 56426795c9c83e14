"""The places of a template: what they take, and how that is written in INFER.

What is given for a place is text, as people type it.
"""

import csv
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from services.insights.language.format import number_literal, string_literal

MAX_TEXTS = 100
MAX_TEXT = 256
MAX_BYTES = 4 * 1024
"""Of all texts of a place together, as they are written in the query: that has a limit of its own."""
_NUMBER = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,20})?")
_PERIOD = re.compile(r"([0-9]{1,4})([DM])")
_DAYS_A_MONTH = 30.5


class ParameterType(StrEnum):
    """What a place takes."""

    NUMBER = "number"
    """Digits, perhaps with a point and digits."""
    TEXT = "text"
    TEXTS = "texts"
    """Several, separated by commas; one with a comma or a quote in it stands in double quotes, as in CSV."""
    PERIOD = "period"
    """Days or calendar months, such as 30D or 12M."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A place of a template. The bounds of numbers and periods are part of what may be given."""

    name: str
    description: str
    type: ParameterType
    default: str = ""
    """Empty: it must be given."""
    minimum: str = ""
    maximum: str = ""


@dataclass(frozen=True, slots=True)
class Period:
    """So far back from now; one of both is 0."""

    months: int
    days: int

    @property
    def length(self) -> float:
        """In days, of which a month has 30.5: bounds are compared by it."""
        return self.months * _DAYS_A_MONTH + self.days


class MistakeError(ValueError):
    """What was given does not fit a place: what is expected, with an example, as a sentence's end."""


def literal(parameter: Parameter, given: str) -> str:
    """What was given for a place, as it is written in INFER; empty means the default. Raises MistakeError."""
    text = given or parameter.default
    if not text:
        raise MistakeError(f"must be given: {parameter.description}")
    return _WRITERS[parameter.type](parameter, text)


def read_number(parameter: Parameter, given: str) -> float:
    """The number given for a place. Raises MistakeError."""
    match = _NUMBER.fullmatch(given.strip())
    if match is None:
        raise MistakeError("must be a number without sign, separators or exponent, such as 1000.50")
    value = float(match[0])
    if not float(parameter.minimum or 0) <= value <= float(parameter.maximum or math.inf):
        raise MistakeError(f"must be from {parameter.minimum} to {parameter.maximum}")
    return value


def read_text(given: str) -> str:
    """The text given for a place. Raises MistakeError."""
    if not 1 <= len(given) <= MAX_TEXT:
        raise MistakeError(f"must have 1 to {MAX_TEXT} characters, not {len(given):,}")
    try:
        given.encode()
    except UnicodeEncodeError:
        raise MistakeError("must be whole characters, not half of a surrogate pair") from None
    return given


def read_texts(given: str) -> tuple[str, ...]:
    """The texts given for a place, without what is empty. Raises MistakeError."""
    try:
        rows = list(csv.reader([given], skipinitialspace=True, strict=True))
    except csv.Error:
        message = 'must be separated by commas; one with a comma or a quote in it is "Marks, and ""Spencer"""'
        raise MistakeError(message) from None
    texts = [text for row in rows for text in row if text.strip()]
    if not 1 <= len(texts) <= MAX_TEXTS:
        raise MistakeError(f"must be 1 to {MAX_TEXTS} texts, separated by commas, such as Lotto,Bingo")
    return tuple(read_text(text.strip()) for text in texts)


def join_texts(texts: Iterable[str]) -> str:
    """Texts as they are given for a place of several: the other way round of `read_texts`."""
    return ",".join('"' + text.replace('"', '""') + '"' for text in texts)


def read_period(parameter: Parameter, given: str) -> Period:
    """The period given for a place. Raises MistakeError."""
    found = _period(given)
    if found is None:
        raise MistakeError("must be a number of days or months, such as 30D or 3M")
    least, greatest = _period(parameter.minimum), _period(parameter.maximum)
    if (least is not None and found.length < least.length) or (greatest is not None and found.length > greatest.length):
        raise MistakeError(f"must be from {parameter.minimum} to {parameter.maximum}")
    return found


def _period(given: str) -> Period | None:
    match = _PERIOD.fullmatch(given.strip().upper())
    if match is None:
        return None
    return Period(int(match[1]), 0) if match[2] == "M" else Period(0, int(match[1]))


def _write_number(parameter: Parameter, given: str) -> str:
    return number_literal(read_number(parameter, given))


def _write_text(parameter: Parameter, given: str) -> str:
    return string_literal(read_text(given))


def _write_texts(parameter: Parameter, given: str) -> str:
    written = ", ".join(map(string_literal, read_texts(given)))
    if len(written.encode()) > MAX_BYTES:
        raise MistakeError(f"must have at most {MAX_BYTES:,} bytes together: make two insights of it")
    return f"({written})"


def _write_period(parameter: Parameter, given: str) -> str:
    period = read_period(parameter, given)
    return f"0, {period.months}, {period.days}"


_WRITERS: Mapping[ParameterType, Callable[[Parameter, str], str]] = {
    ParameterType.NUMBER: _write_number,
    ParameterType.TEXT: _write_text,
    ParameterType.TEXTS: _write_texts,
    ParameterType.PERIOD: _write_period,
}
