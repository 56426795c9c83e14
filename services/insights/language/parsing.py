"""Text to syntax: lark's LALR tables over the tokens of `lexer.py`, and what a parse error says."""

from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

from lark import Lark, UnexpectedToken
from lark import Token as LarkToken
from lark.lexer import Lexer

from services.insights.language.building import Builder, bare
from services.insights.language.diagnostics import Code, Diagnostic, Phase, QueryError
from services.insights.language.lexer import Token, tokenize
from services.insights.language.limits import too_deep, too_long
from services.insights.language.syntax import Query, Syntax
from services.insights.language.tree import Dialect

_WORDS = {
    "NAME": "a name",
    "STRING": "a string",
    "NUMBER": "a number",
    "COMPARATOR": "a comparison",
    "PLUS": "+",
    "MINUS": "-",
    "STAR": "*",
    "SLASH": "/",
    "LPAR": "(",
    "RPAR": ")",
    "COMMA": ",",
    "$END": "the end of the text",
}
_EXTENDED_WORDS = frozenset({"BETWEEN", "LIKE", "IS"})
_OF_EXTENDED = "the strict dialect has none; set the extended dialect for this insight"


class _NoLexer(Lexer):
    """The machine is fed its tokens one by one."""

    def __init__(self, lexer_conf: object) -> None:
        """Nothing to prepare."""

    def lex(self, lexer_state: object, parser_state: object) -> Iterator[LarkToken]:
        """No tokens: there is no text."""
        return iter(())


@cache
def machine(dialect: Dialect) -> Lark:
    """The LALR tables of a dialect, made at first use; reading them is safe from any thread."""
    package = resources.files("services.insights.language")
    grammar = "\n".join(package.joinpath(f"{name}.lark").read_text("utf-8") for name in ("infer", dialect.value))
    starts = ["query", "expression", "term"]
    return Lark(grammar, parser="lalr", lexer=_NoLexer, transformer=Builder(), start=starts)


def parse_query(text: str, dialect: Dialect = Dialect.STRICT) -> Query:
    """A whole query. Raises QueryError with errors of the phases lex and parse, and limits."""
    found = _parse(text, dialect, "query")
    assert isinstance(found, Query)
    return found


def parse_expression(text: str, dialect: Dialect = Dialect.STRICT) -> Syntax:
    """What may follow WHERE or HAVING. Raises QueryError."""
    found: Syntax = _parse(text, dialect, "expression")
    return found


def parse_term(text: str, dialect: Dialect = Dialect.STRICT) -> Syntax:
    """One term, without comparison. Raises QueryError."""
    found: Syntax = _parse(text, dialect, "term")
    return found


def _parse(text: str, dialect: Dialect, start: str) -> Any:
    long = too_long(text)
    if long is not None:
        raise QueryError([long])
    read = tokenize(text, dialect)
    if read.errors:
        raise QueryError(read.errors)
    deep = too_deep(read.tokens, dialect)
    if deep is not None:
        raise QueryError([deep])
    state = machine(dialect).parse_interactive(start=start)
    end = Token("$END", "", read.end)
    previous: Token | None = None
    for token in (*read.tokens, end):
        try:
            result = state.feed_token(as_lark(token))
        except UnexpectedToken:
            accepted: set[str] = state.accepts()  # type: ignore[no-untyped-call]
            raise QueryError([_unexpected(token, previous, accepted, dialect)]) from None
        previous = token
    return bare(result)


def as_lark(token: Token) -> LarkToken:
    """The token for the machine; what the builder needs is its value."""
    return LarkToken(token.kind, token)


def _unexpected(found: Token, previous: Token | None, accepted: set[str], dialect: Dialect) -> Diagnostic:
    """The error at the first token that cannot stand where it does."""
    strict = dialect is Dialect.STRICT
    wants_name = accepted == {"NAME"}
    if strict and found.kind in ("OR", "NOT") and not wants_name:
        return Diagnostic(Code.UNSUPPORTED, Phase.PARSE, f"{found.kind} is not supported", found.span, _OF_EXTENDED)
    shown = f"{found.text!r}" if found.text else _WORDS["$END"]
    expected = _expected(accepted)
    message = f"unexpected {shown}; expected {expected}" if expected else f"unexpected {shown}"
    return Diagnostic(Code.SYNTAX, Phase.PARSE, message, found.span, _hint(found, previous, accepted, strict))


def _expected(accepted: set[str]) -> str:
    names = sorted(_WORDS.get(kind, kind) for kind in accepted)
    if {"LPAR", "NAME", "NUMBER", "STRING", "MINUS"} <= accepted:
        rest = accepted - {"LPAR", "NAME", "NUMBER", "STRING", "MINUS", "TRUE", "FALSE", "NOT"}
        names = ["a value", *sorted(_WORDS.get(kind, kind) for kind in rest)]
    elif {"PLUS", "MINUS", "STAR", "SLASH"} <= accepted:
        rest = accepted - {"PLUS", "MINUS", "STAR", "SLASH"}
        names = ["an operator", *sorted(_WORDS.get(kind, kind) for kind in rest)]
    return " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _hint(found: Token, previous: Token | None, accepted: set[str], strict: bool) -> str:
    """What to do about the commonest mistakes; "" about others."""
    before = previous.kind if previous else ""
    if accepted == {"NAME"} and found.text.isalpha():
        return f"{found.text.upper()} is a keyword and cannot be a name"
    if before == "NAME" and previous and previous.text.upper() in _EXTENDED_WORDS - ({"BETWEEN"} if strict else set()):
        return f"there is no {previous.text.upper()}"
    if strict and "RPAR" in accepted and found.kind in ("COMPARATOR", "AND", "IN"):
        return f"parentheses around conditions: {_OF_EXTENDED}"
    hints = {
        "SELECT": "wrap an embedded SELECT in parentheses",
        "WHERE": "WHERE comes once, after FROM and before HAVING",
        "COMPARATOR": "equality is a single ="
        if before == "COMPARATOR"
        else "comparisons do not chain: join two with AND",
        "INFER": "a query has one INFER, at its start",
    }
    if found.kind in hints:
        return hints[found.kind]
    if found.kind == "RPAR" and before == "LPAR":
        return "an array has at least one element"
    if found.kind == "NAME" and found.text.upper() in _EXTENDED_WORDS:
        return (
            f"{found.text.upper()}: {_OF_EXTENDED}" if found.text.upper() == "BETWEEN" else f"there is no {found.text}"
        )
    if "INFER" in accepted:
        return "a query begins with INFER <name> FROM <source>"
    if accepted == {"FROM"}:
        return "FROM <source> is needed"
    if found.kind == "COMMA":
        return "an array's elements are literals; a SELECT in a call stands alone"
    return ""
