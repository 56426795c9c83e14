"""From text to tokens: lark's parser is fed these, so that every bad character, string and number has its own error."""

import re
from dataclasses import dataclass

from services.insights.language.diagnostics import Code, Diagnostic, Phase, Span
from services.insights.language.tree import Dialect

KEYWORDS = frozenset({"INFER", "FROM", "WHERE", "HAVING", "SELECT", "AND", "OR", "NOT", "IN", "TRUE", "FALSE"})
EXTENDED_KEYWORDS = KEYWORDS | {"BETWEEN"}
MAX_ERRORS = 20
_SYMBOLS = {"+": "PLUS", "-": "MINUS", "*": "STAR", "/": "SLASH", "(": "LPAR", ")": "RPAR", ",": "COMMA"}
_ESCAPES = {'"': '"', "'": "'", "\\": "\\", "n": "\n", "t": "\t"}
_SCANNER = re.compile(
    r"""(?P<SPACE>\s+)
      | (?P<NAME>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<NUMBER>[0-9]++(?:\.[0-9]++)?(?![A-Za-z0-9_.]))
      | (?P<BAD_NUMBER>[0-9][A-Za-z0-9_.]*)
      | (?P<STRING>"(?:[^"\\]++|\\.)*+"|'(?:[^'\\]++|\\.)*+')
      | (?P<COMPARATOR><>|!=|>=|<=|=|>|<)
      | (?P<SYMBOL>[-+*/(),])
      | (?P<OPEN_STRING>["'])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:u(?P<code>[0-9A-Fa-f]{4})|(?P<one>.))", re.DOTALL)
_CHARACTER_HINTS = (
    {
        ";": "a query ends by itself: leave the semicolon out",
        ".": "write 0.5 rather than .5; columns have no source in front",
        "!": "'not equal' is written <> or !=",
        "&": "write AND",
        "|": "OR is of the extended dialect",
        "%": "there is no remainder operator",
        "`": "column names stand without quotes",
        "\ufeff": "the text starts with a byte order mark: remove it",
    }
    | dict.fromkeys("“”„‟″«»", 'use straight quotes: "')
    | dict.fromkeys("‘’‚‛′", "use straight quotes: '")
)


@dataclass(frozen=True, slots=True)
class Token:
    """A terminal of the grammar: its kind, its text and, of a literal, its value."""

    kind: str
    text: str
    span: Span
    value: str | float = ""


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text's tokens and what is wrong with it; `end` is the place after its last character."""

    tokens: tuple[Token, ...]
    errors: tuple[Diagnostic, ...]
    end: Span


def tokenize(text: str, dialect: Dialect) -> Tokens:
    """All tokens; characters that begin none are left out and reported, at most `MAX_ERRORS` of them."""
    keywords = EXTENDED_KEYWORDS if dialect is Dialect.EXTENDED else KEYWORDS
    tokens: list[Token] = []
    errors: list[Diagnostic] = []
    at, line, line_start = 0, 1, 0
    while at < len(text) and len(errors) < MAX_ERRORS:
        match = _SCANNER.match(text, at)
        end = match.end() if match else at + 1
        kind = match.lastgroup if match else None
        found = text[at:end]
        span = Span(at, end, line, at - line_start + 1)
        if kind == "NAME":
            upper = found.upper()
            tokens.append(Token(upper if upper in keywords else "NAME", found, span))
        elif kind == "NUMBER":
            _number(found, span, tokens, errors)
        elif kind == "STRING":
            _string(found, span, tokens, errors)
        elif kind == "COMPARATOR":
            tokens.append(Token("COMPARATOR", found, span))
        elif kind == "SYMBOL":
            tokens.append(Token(_SYMBOLS[found], found, span))
        elif kind == "BAD_NUMBER":
            hint = "digits, and perhaps a point and digits; a space before the next word"
            errors.append(Diagnostic(Code.NUMBER, Phase.LEX, f"{shortened(found)} is not a number", span, hint))
        elif kind == "OPEN_STRING":
            hint = f"close it with {found}"
            errors.append(Diagnostic(Code.STRING, Phase.LEX, "a string that does not end", span, hint))
            end = len(text)
        elif kind is None:
            hint = _CHARACTER_HINTS.get(found, "")
            errors.append(Diagnostic(Code.CHAR, Phase.LEX, f"unexpected character {found!r}", span, hint))
        newlines = text.count("\n", at, end)
        if newlines:
            line += newlines
            line_start = text.rfind("\n", at, end) + 1
        at = end
    return Tokens(tuple(tokens), tuple(errors), Span(len(text), len(text), line, len(text) - line_start + 1))


def _number(found: str, span: Span, tokens: list[Token], errors: list[Diagnostic]) -> None:
    value = float(found)
    if value == float("inf"):
        errors.append(Diagnostic(Code.NUMBER, Phase.LEX, "the number is too large", span, "at most about 1.8e308"))
    else:
        tokens.append(Token("NUMBER", found, span, value))


def _string(found: str, span: Span, tokens: list[Token], errors: list[Diagnostic]) -> None:
    wrong: list[int] = []

    def plain(match: re.Match[str]) -> str:
        if match["code"]:
            return chr(int(match["code"], 16))
        if match["one"] not in _ESCAPES:
            wrong.append(match.start())
        return _ESCAPES.get(match["one"], "")

    value = _ESCAPE.sub(plain, found[1:-1])
    try:
        # Two \u escapes may make one character, as in JSON; half of such a pair is no text.
        value = value.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        hint = r"a character above \uFFFF is a pair of escapes, or the character itself"
        errors.append(Diagnostic(Code.STRING, Phase.LEX, "half of a surrogate pair in a string", span, hint))
        return
    if wrong:
        newlines = found.count("\n", 0, wrong[0] + 1)
        column = span.column + wrong[0] + 1 if not newlines else wrong[0] + 1 - found.rfind("\n", 0, wrong[0] + 1)
        place = Span(span.start + wrong[0] + 1, span.start + wrong[0] + 3, span.line + newlines, column)
        hint = r"the escapes are \" \' \\ \n \t \uXXXX; a backslash itself is \\"
        errors.append(Diagnostic(Code.STRING, Phase.LEX, "an unknown escape in a string", place, hint))
        return
    tokens.append(Token("STRING", found, span, value))


def shortened(text: str) -> str:
    """A token's text for a message."""
    return text if len(text) <= 40 else text[:37] + "..."
