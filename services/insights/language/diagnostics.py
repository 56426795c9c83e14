"""What is wrong, or doubtful, in a query: where it stands and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """When an error shows; all but the last when the query is created."""

    LEX = "lex"
    PARSE = "parse"
    TYPE = "type"
    EVAL = "eval"


class Code(StrEnum):
    """Errors (E_) and warnings (W_)."""

    CHAR = "E_CHAR"
    STRING = "E_STRING"
    NUMBER = "E_NUMBER"
    SYNTAX = "E_SYNTAX"
    UNSUPPORTED = "E_UNSUPPORTED"
    TYPE = "E_TYPE"
    COLUMN = "E_COLUMN"
    FUNCTION = "E_FUNCTION"
    ARITY = "E_ARITY"
    DATASOURCE = "E_DATASOURCE"
    INTEGER = "E_INTEGER"
    WHERE_NOT_VECTOR = "E_WHERE_NOT_VECTOR"
    HAVING_VECTOR = "E_HAVING_VECTOR"
    LIMIT = "E_LIMIT"
    LENGTH = "E_LENGTH"
    UNBOUNDED = "W_UNBOUNDED"
    MIXED_PRECEDENCE = "W_MIXED_PRECEDENCE"
    FLOAT_EQ = "W_FLOAT_EQ"
    NEVER = "W_NEVER"
    ALWAYS = "W_ALWAYS"
    MIXED_CURRENCY = "W_MIXED_CURRENCY"
    PENDING = "W_PENDING"

    @property
    def is_warning(self) -> bool:
        """Whether a query with it is still accepted."""
        return self.value.startswith("W_")


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a query's text: offsets in code points, line and column from 1."""

    start: int
    end: int
    line: int
    column: int

    def to(self, last: "Span") -> "Span":
        """From the start of this part to the end of a later one."""
        return Span(self.start, last.end, self.line, self.column)


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """An error or a warning."""

    code: Code
    phase: Phase
    message: str
    span: Span
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.code} at line {self.span.line}, column {self.span.column}: {self.message}"
        return f"{text} ({self.hint})" if self.hint else text


class QueryError(ValueError):
    """A query that cannot be taken; `errors` in the order of the text, at least one."""

    def __init__(self, errors: Iterable[Diagnostic]) -> None:
        self.errors = tuple(sorted(errors, key=lambda each: each.span.start))
        super().__init__("; ".join(str(error) for error in self.errors))


def with_caret(text: str, diagnostic: Diagnostic) -> str:
    """The diagnostic for a terminal: the message, the line of the text, and carets under the place."""
    span = diagnostic.span
    lines = text.split("\n")
    line = lines[span.line - 1].rstrip("\r") if span.line <= len(lines) else ""
    width = max(1, min(span.end - span.start, len(line) - span.column + 1))
    lead = "".join("\t" if character == "\t" else " " for character in line[: span.column - 1])
    parts = [f"{diagnostic.code} at line {span.line}, column {span.column}: {diagnostic.message}"]
    parts += [f"  {line}", f"  {lead}{'^' * width}"]
    if diagnostic.hint:
        parts.append(f"  hint: {diagnostic.hint}")
    return "\n".join(parts)
