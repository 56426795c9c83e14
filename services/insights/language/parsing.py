"""Text to syntax: lark's LALR tables over the tokens of `lexer.py`, and what a parse error says."""

from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from itertools import accumulate, pairwise
from typing import Any

from lark import Lark, UnexpectedToken
from lark import Token as LarkToken
from lark.lexer import Lexer
from lark.parsers.lalr_interactive_parser import InteractiveParser

from services.insights.language.building import Builder, bare
from services.insights.language.diagnostics import Code, Diagnostic, Phase, QueryError
from services.insights.language.lexer import MAX_ERRORS, Token, shortened, tokenize
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
_CLAUSES = frozenset({"WHERE", "HAVING"})
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
    tokens = (*read.tokens, Token("$END", "", read.end))
    for at, token in enumerate(tokens):
        try:
            result = state.feed_token(as_lark(token))
        except UnexpectedToken:
            first = _unexpected(tokens, at, state, dialect)
            raise QueryError([first, *_later_errors(tokens, at, dialect)]) from None
    return bare(result)


def _later_errors(tokens: Sequence[Token], at: int, dialect: Dialect) -> list[Diagnostic]:
    """The errors of the conditions after the one with an error at a token, each read by itself.

    Where one ends too early nothing is said: that may come of the first error.
    """
    depths = list(accumulate((token.kind == "LPAR") - (token.kind == "RPAR") for token in tokens))
    # In the head of a query conditions begin with the next clause; in a clause also after the unexpected token itself.
    head = tokens[0].kind == "INFER" and not any(token.kind in _CLAUSES for token in tokens[:at])
    clause = next((i for i in range(at + 1, len(tokens)) if tokens[i].kind in _CLAUSES), len(tokens)) if head else at
    ends = [
        i
        for i in range(clause, len(tokens))
        if depths[i] == 0
        and (tokens[i].kind in ("AND", "HAVING") or (tokens[i].kind == ("OR" if i == at else "WHERE")))
    ]
    errors: list[Diagnostic] = []
    for start, end in pairwise((*ends, len(tokens) - 1)):
        state = machine(dialect).parse_interactive(start="expression")
        for index in range(start + 1, end):
            try:
                state.feed_token(as_lark(tokens[index]))
            except UnexpectedToken:
                errors.append(_unexpected(tokens, index, state, dialect))
                break
        if len(errors) >= MAX_ERRORS - 1:
            break
    return errors


def as_lark(token: Token) -> LarkToken:
    """The token for the machine; what the builder needs is its value."""
    return LarkToken(token.kind, token)


def _unexpected(tokens: Sequence[Token], at: int, state: InteractiveParser, dialect: Dialect) -> Diagnostic:
    """The error of a token that cannot stand where it does."""
    found, previous = tokens[at], tokens[at - 1] if at else None
    accepted: set[str] = state.accepts()  # type: ignore[no-untyped-call]
    strict = dialect is Dialect.STRICT
    wants_name = accepted == {"NAME"}
    if strict and found.kind in ("OR", "NOT") and not wants_name:
        return Diagnostic(Code.UNSUPPORTED, Phase.PARSE, f"{found.kind} is not supported", found.span, _OF_EXTENDED)
    shown = repr(shortened(found.text)) if found.text else _WORDS["$END"]
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
