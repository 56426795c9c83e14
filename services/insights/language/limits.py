"""How large a query may be. What is checked here keeps every later step's time linear and its recursion shallow."""

from collections.abc import Sequence

from services.insights.language.diagnostics import Code, Diagnostic, Phase, Span
from services.insights.language.lexer import Token
from services.insights.language.tree import AggregateFunction, Dialect

MAX_BYTES = 16 * 1024
MAX_NESTING = 32
MAX_SELECT_DEPTH = 4
MAX_ARRAY = 1000
MAX_AGGREGATES = 64
MAX_NAME = 64
_AGGREGATES = frozenset(function.value for function in AggregateFunction)
_OPERAND_ENDS = frozenset({"NAME", "STRING", "NUMBER", "TRUE", "FALSE", "RPAR"})


def too_long(text: str) -> Diagnostic | None:
    """The error of a text over the limit in bytes of UTF-8."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size <= MAX_BYTES:
        return None
    return _error(f"the query has {size:,} bytes; the limit is {MAX_BYTES:,}", Span(0, 0, 1, 1), "")


def too_deep(tokens: Sequence[Token], dialect: Dialect) -> Diagnostic | None:
    """The first place where nesting, SELECTs or aggregates pass their limits, before anything is parsed.

    Parentheses count as nesting, those of calls too; so do signs and NOTs, on their own account. The strict dialect's
    parser stops at the first NOT.
    """
    # Of each open parenthesis: the prefix operators in front of it, and whether it opens a SELECT.
    frames: list[tuple[int, bool]] = []
    prefixes = in_frames = selects = aggregates = 0
    previous = ""
    for index, token in enumerate(tokens):
        if token.kind == "LPAR":
            select = index + 1 < len(tokens) and tokens[index + 1].kind == "SELECT"
            frames.append((prefixes, select))
            in_frames += prefixes
            selects += select
            prefixes = 0
            if len(frames) > MAX_NESTING:
                return _error(f"parentheses are nested deeper than {MAX_NESTING}", token.span, "")
            if selects > MAX_SELECT_DEPTH:
                return _error(f"SELECTs are nested deeper than {MAX_SELECT_DEPTH}", tokens[index + 1].span, "")
            if previous == "NAME" and tokens[index - 1].text.upper() in _AGGREGATES:
                aggregates += 1
                if aggregates > MAX_AGGREGATES:
                    return _error(f"more than {MAX_AGGREGATES} aggregates", tokens[index - 1].span, "split the query")
        elif (token.kind == "NOT" and dialect is Dialect.EXTENDED) or (
            token.kind == "MINUS" and previous not in _OPERAND_ENDS
        ):
            prefixes += 1
            if in_frames + prefixes > MAX_NESTING:
                return _error(f"signs and NOTs are nested deeper than {MAX_NESTING}", token.span, "")
        else:
            prefixes = 0
            if token.kind == "RPAR" and frames:
                closed, select = frames.pop()
                in_frames -= closed
                selects -= select
        previous = token.kind
    return None


def array_too_long(count: int, span: Span) -> Diagnostic | None:
    """The error of an array literal over the limit."""
    if count <= MAX_ARRAY:
        return None
    return _error(f"the array has {count:,} elements; the limit is {MAX_ARRAY:,}", span, "compare a column instead")


def name_too_long(name: str, span: Span) -> Diagnostic | None:
    """The error of an insight's name over the limit."""
    if len(name) <= MAX_NAME:
        return None
    return _error(f"the name has {len(name)} characters; the limit is {MAX_NAME}", span, "")


def _error(message: str, span: Span, hint: str) -> Diagnostic:
    return Diagnostic(Code.LIMIT, Phase.TYPE, message, span, hint)
