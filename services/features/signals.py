"""The JSON documents of Snowplow Signals: reads a group or a service with every mistake named, and writes them again.

What is ours and not in Signals has fields of its own, absent when unused: `ttl`, `limit`, `range`, `calendar_period`
and `property_type` of an attribute. A document that is read and written again is the same document.
"""

import json
from typing import Any, NamedTuple

from services.features.definitions import AttributeGroup, FeatureService, Problem
from services.features.signals_reader import Reader
from services.features.signals_writer import group_document, service_document

MAX_BYTES = 4 << 20


class JsonSyntaxError(Exception):
    """The text is not JSON; says at which line and column, both from 1."""

    def __init__(self, problem: str, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {problem}")
        self.line = line
        self.column = column


class Document(NamedTuple):
    """A document as far as it could be understood, with what could not."""

    definition: AttributeGroup | FeatureService
    problems: tuple[Problem, ...]


def read_document(text: str) -> Document:
    """Reads a group (it has `attributes`) or a service. Raises JsonSyntaxError; other mistakes are in `problems`."""
    reader = Reader()
    content = _parse(text, reader)
    if not isinstance(content, dict):
        raise JsonSyntaxError("the document must be an object", 1, 1)
    definition: AttributeGroup | FeatureService
    if "attributes" in content or "attribute_key" in content:
        definition = reader.group(content)
    else:
        definition = reader.service(content)
    return Document(definition, tuple(reader.problems))


def write_document(definition: AttributeGroup | FeatureService, *, is_published: bool = False) -> str:
    """The document of a definition. An imported one keeps its own `is_published`, unless it is published here."""
    document = group_document(definition) if isinstance(definition, AttributeGroup) else service_document(definition)
    document["is_published"] = is_published or bool(definition.origin.is_published)
    return json.dumps(document, indent=1, ensure_ascii=False)


def _parse(text: str, reader: Reader) -> Any:
    if len(text) > MAX_BYTES:
        raise JsonSyntaxError(f"the document is longer than {MAX_BYTES} characters", 1, 1)

    def refuse_constant(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for name, value in items:
            if name in seen:
                reader.add(name, "is given twice in one object", "keep one of them")
            seen[name] = value
        return seen

    try:
        return json.loads(text, parse_constant=refuse_constant, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise JsonSyntaxError(error.msg, error.lineno, error.colno) from None
    except RecursionError:
        raise JsonSyntaxError("nested too deeply", 1, 1) from None
    except ValueError as error:
        raise JsonSyntaxError(str(error).partition(";")[0], 1, 1) from None
