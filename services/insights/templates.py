"""Queries with places to fill in, for people who know no SQL: each place has a type, bounds and perhaps a default.

A template makes INFER text, nothing else: what is made of it is an insight like any other, and one customer is compared
with it by evaluating that text, as `compare` does. What is given for the places is text, quoted safely: whatever it is,
the query says what the template says.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches

from services.insights.direct.evaluator import evaluate
from services.insights.direct.outcome import Outcome, Rows
from services.insights.language.check import check_query
from services.insights.language.lexer import KEYWORDS
from services.insights.language.limits import MAX_NAME
from services.insights.language.sources import sources_of, transactions
from services.insights.template_library import Template, library
from services.insights.template_parameters import MistakeError, Parameter, ParameterType, literal
from services.runtime.errors import InvalidArgument, NotFound, Violation

__all__ = ["Parameter", "ParameterType", "Template", "compare", "get", "render", "templates"]
_IDENTIFIER = re.compile(rf"[A-Za-z_][A-Za-z0-9_]{{0,{MAX_NAME - 1}}}")


def templates() -> tuple[Template, ...]:
    """All templates, by id."""
    return library()


def get(template_id: str) -> Template:
    """The template of an id. Raises NotFound."""
    found = next((template for template in library() if template.template_id == template_id), None)
    if found is None:
        known = ", ".join(template.template_id for template in library())
        raise NotFound(f"there is no such template; there are {known}", reason="NOT_FOUND")
    return found


def render(template_id: str, identifier: str, given: Mapping[str, str]) -> str:
    """The query that a template makes, in the strict dialect, on one line.

    `identifier` is the name after INFER; empty: the template's id. A place that is empty or absent in `given` has its
    default. Raises NotFound, or InvalidArgument with every mistake, each with what to write instead.
    """
    template = get(template_id)
    name = identifier or template.template_id
    mistakes = [] if _is_name(name) else [_wrong("identifier", "must be a letter or _, then letters, digits and _")]
    mistakes += [_unknown(template, each) for each in given if each not in _places(template)]
    filled = {"identifier": name}
    for parameter in template.parameters:
        try:
            filled[parameter.name] = literal(parameter, given.get(parameter.name, ""))
        except MistakeError as mistake:
            mistakes.append(_wrong(f"parameters.{parameter.name}", str(mistake)))
    if mistakes:
        raise InvalidArgument("the template cannot be filled in", reason="BAD_PARAMETER", violations=mistakes)
    return template.text.format(**filled)


def compare(template_id: str, given: Mapping[str, str], tables: Mapping[str, Rows], now_us: int) -> Outcome:
    """One customer's rows against a template at an instant, with the reasons. Raises what `render` does."""
    query = check_query(render(template_id, "", given), sources_of([transactions()]))
    return evaluate(query, tables, now_us)


def _is_name(text: str) -> bool:
    return _IDENTIFIER.fullmatch(text) is not None and text.upper() not in KEYWORDS


def _places(template: Template) -> list[str]:
    return [parameter.name for parameter in template.parameters]


def _unknown(template: Template, name: str) -> Violation:
    near = get_close_matches(name[:64], _places(template), n=1)
    hint = f"did you mean {near[0]}?" if near else f"its places are {', '.join(_places(template))}"
    return _wrong(f"parameters.{name[:64]}", f"is no place of this template; {hint}")


def _wrong(field: str, description: str) -> Violation:
    return Violation(field, description, "BAD_PARAMETER")
