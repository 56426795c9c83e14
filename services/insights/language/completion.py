"""What may stand at a place of a query: for editors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lark import UnexpectedToken

from services.insights.language.functions import signatures
from services.insights.language.lexer import EXTENDED_KEYWORDS, Token, tokenize
from services.insights.language.limits import too_deep, too_long
from services.insights.language.parsing import as_lark, machine
from services.insights.language.sources import Sources
from services.insights.language.tree import Dialect

_OPERATORS = {
    "COMPARATOR": ("=", "<>", ">=", "<=", ">", "<"),
    "PLUS": ("+",),
    "MINUS": ("-",),
    "STAR": ("*",),
    "SLASH": ("/",),
    "LPAR": ("(",),
    "RPAR": (")",),
    "COMMA": (",",),
}


class CompletionKind(StrEnum):
    """What a completion is."""

    KEYWORD = "keyword"
    COLUMN = "column"
    FUNCTION = "function"
    SOURCE = "source"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Completion:
    """A text that may stand there; `detail` is a column's type or how a function is called."""

    text: str
    kind: CompletionKind
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Completions:
    """What may replace the part of the text between two offsets: the word begun at the place, or nothing."""

    start: int
    end: int
    items: tuple[Completion, ...]


def complete(text: str, offset: int, sources: Sources, dialect: Dialect = Dialect.STRICT) -> Completions:
    """What may follow `text[:offset]`, in code points; a word begun there narrows it. Empty where nothing can."""
    before = text[:offset]
    read = tokenize(before, dialect)
    nothing = Completions(len(before), len(before), ())
    if too_long(text) is not None or read.errors or too_deep(read.tokens, dialect) is not None:
        return nothing
    tokens = list(read.tokens)
    word: Token | None = None
    if tokens and tokens[-1].span.end == len(before) and (tokens[-1].text[0].isalpha() or tokens[-1].text[0] == "_"):
        word = tokens.pop()
    state = machine(dialect).parse_interactive(start="query")
    try:
        for token in tokens:
            state.feed_token(as_lark(token))
    except UnexpectedToken:
        return nothing
    accepted: set[str] = state.accepts()  # type: ignore[no-untyped-call]
    begun = word.text.lower() if word else ""
    source = _source_at(tokenize(text, dialect).tokens, len(tokens))
    items = tuple(
        item
        for item in _items(accepted, tokens, source, sources, dialect)
        if item.text.lower().startswith(begun) and (not word or item.kind is not CompletionKind.OPERATOR)
    )
    return Completions(word.span.start if word else len(before), len(before), items)


def _items(
    accepted: set[str], tokens: Sequence[Token], source: str, sources: Sources, dialect: Dialect
) -> Iterator[Completion]:
    last = tokens[-1].kind if tokens else ""
    if "NAME" in accepted and last == "FROM":
        yield from (Completion(name, CompletionKind.SOURCE) for name in sorted(sources))
    elif "NAME" in accepted and last != "INFER":
        # Before FROM is written any source's columns may be meant.
        known = [sources[source]] if source in sources else list(sources.values())
        columns = {name: str(type_.name) for schema in known for name, type_ in schema.columns.items()}
        yield from (Completion(name, CompletionKind.COLUMN, detail) for name, detail in columns.items())
        for name, detail in signatures(dialect).items():
            yield Completion(name, CompletionKind.FUNCTION, detail)
    yield from (Completion(kind, CompletionKind.KEYWORD) for kind in sorted(accepted & EXTENDED_KEYWORDS))
    for kind, texts in _OPERATORS.items():
        # After a name a parenthesis would make a call of it: a function is offered instead.
        if kind in accepted and not (kind == "LPAR" and last == "NAME"):
            yield from (Completion(each, CompletionKind.OPERATOR) for each in texts)


def _source_at(tokens: Sequence[Token], index: int) -> str:
    """The source of the block around a token: the name after the FROM of the same parentheses; "" without one."""
    opened: list[int] = []
    for at, token in enumerate(tokens[:index]):
        if token.kind == "LPAR":
            opened.append(at)
        elif token.kind == "RPAR" and opened:
            opened.pop()
    blocks = [at + 1 for at in opened if at + 1 < len(tokens) and tokens[at + 1].kind == "SELECT"]
    depth = 0
    for at in range(blocks[-1] if blocks else 0, len(tokens) - 1):
        kind = tokens[at].kind
        depth += (kind == "LPAR") - (kind == "RPAR")
        if depth < 0:
            return ""
        if kind == "FROM" and depth == 0:
            return tokens[at + 1].text if tokens[at + 1].kind == "NAME" else ""
    return ""
