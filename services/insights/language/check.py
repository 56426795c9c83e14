"""The way in: text to a checked query, or every error that can be told at once."""

from services.insights.language import syntax
from services.insights.language.checking import Checker
from services.insights.language.diagnostics import Code, Diagnostic, QueryError
from services.insights.language.doubts import doubts, in_term
from services.insights.language.limits import name_too_long
from services.insights.language.parsing import parse_expression, parse_query, parse_term
from services.insights.language.sources import Sources, SourceSchema, sources_of
from services.insights.language.tree import CheckedQuery, CheckedTerm, Dialect


def check_query(
    text: str, sources: Sources, dialect: Dialect = Dialect.STRICT, *, unbounded_is_error: bool = False
) -> CheckedQuery:
    """A whole query over the sources there are, with its warnings.

    `unbounded_is_error`: a project's policy that every block bounds its rows in time. Raises QueryError with errors of
    the phases lex, parse or type: the phases follow each other, and within one all errors are told.
    """
    query = parse_query(text, dialect)
    checker = Checker(sources, dialect)
    source = checker.source(query.source)
    where = None if query.where is None else checker.where(query.where, source)
    having = None if query.having is None else checker.having(query.having, source)
    errors = list(checker.errors)
    long = name_too_long(query.name.text, query.name.span)
    if long is not None:
        errors.append(long)
    if errors or source is None:
        raise QueryError(errors)
    warnings = doubts(where, having, source, sources)
    if unbounded_is_error:
        _refuse_unbounded(warnings)
    return CheckedQuery(query.name.text, source.name, where, having, dialect, text, tuple(warnings))


def check_expression(text: str, source: SourceSchema, dialect: Dialect = Dialect.STRICT) -> CheckedTerm:
    """What may follow WHERE or HAVING, a vector or not. Raises QueryError."""
    return _checked(parse_expression(text, dialect), text, source, dialect, condition=True)


def check_term(text: str, source: SourceSchema, dialect: Dialect = Dialect.STRICT) -> CheckedTerm:
    """One term, of any type. Raises QueryError."""
    return _checked(parse_term(text, dialect), text, source, dialect, condition=False)


def _checked(
    found: syntax.Syntax, text: str, source: SourceSchema, dialect: Dialect, *, condition: bool
) -> CheckedTerm:
    sources = sources_of([source])
    checker = Checker(sources, dialect)
    node = checker.condition(found, source) if condition else checker.term(found, source)
    if node is None:
        raise QueryError(checker.errors)
    warnings = tuple(sorted(in_term(node, sources), key=lambda each: each.span.start))
    return CheckedTerm(node, source.name, dialect, text, warnings)


def _refuse_unbounded(warnings: list[Diagnostic]) -> None:
    refused = [warning for warning in warnings if warning.code is Code.UNBOUNDED]
    if refused:
        raise QueryError(refused)
