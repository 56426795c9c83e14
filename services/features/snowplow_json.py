"""Snowplow's columns of JSON: entities and the event's own data, as columns of the log's schema.

Two forms exist. A self-describing document names its schema (`iglu:vendor/name/jsonschema/1-0-0`) and lies in
`contexts`, `derived_contexts` or `unstruct_event`. A warehouse has one column for each schema, such as
`contexts_nl_basjes_yauaa_context_1` (a list of objects) or `unstruct_event_com_acme_purchase_1` (an object), from whose
name the vendor cannot be told: the coordinates that the definitions look at are compared with it.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from services.kernel.columns import KIND_TYPES

Exploded = dict[str, pa.Array]
"""Columns by name, each with one value for each distinct text."""

SELF_DESCRIBING_ENTITIES = ("contexts", "derived_contexts")
SELF_DESCRIBING_DATA = "unstruct_event"
SCHEMA = re.compile(r"iglu:([^/]+)/([^/]+)/jsonschema/(\d+)-\d+-\d+")
INT64 = range(-(2**63), 2**63)


class Coordinates(NamedTuple):
    """What an entity is."""

    vendor: str
    name: str
    major_version: int

    def column(self, prefix: str) -> str:
        """The name of its column in a warehouse: dots become underscores, camel case becomes snake case."""
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", f"{self.vendor}_{self.name}")
        return f"{prefix}_{re.sub(r'[^A-Za-z0-9]', '_', snake)}_{self.major_version}".lower()


@dataclass(frozen=True)
class JsonColumn:
    """One column of JSON. `coordinates` are those of a column of entities that does not describe itself."""

    holds_entities: bool
    self_describing: bool
    coordinates: Coordinates | None = None

    def explode(self, texts: Sequence[str]) -> Exploded:
        """The property columns of distinct texts; texts that are no such JSON give nothing."""
        table = Table(len(texts))
        for row, text in enumerate(texts):
            try:
                document = json.loads(text)
            except (ValueError, RecursionError):
                continue
            for prefix, properties in self._parts(document):
                for path, value in flatten(properties):
                    table.put(row, f"{prefix}{path}", value)
        return table.arrays()

    def _parts(self, document: Any) -> Iterator[tuple[str, Any]]:
        if not self.holds_entities:
            inner = document.get("data") if self.self_describing and isinstance(document, dict) else document
            if self.self_describing and isinstance(inner, dict):
                inner = inner.get("data")
            yield "d.", inner
            return
        listed = document.get("data") if self.self_describing and isinstance(document, dict) else document
        seen: Counter[Coordinates] = Counter()
        for each in listed if isinstance(listed, list) else [listed]:
            coordinates = read_schema(each) if self.self_describing else self.coordinates
            if coordinates is None:
                continue
            index = seen[coordinates]
            seen[coordinates] += 1
            properties = each.get("data") if self.self_describing and isinstance(each, dict) else each
            yield f"e.{coordinates.vendor}/{coordinates.name}/{coordinates.major_version}[{index}].", properties


@dataclass
class Table:
    """Columns under construction, one value for each distinct text."""

    rows: int
    columns: dict[str, list[Any]] = field(default_factory=dict)

    def put(self, row: int, name: str, value: Any) -> None:
        """Keeps a scalar or list of texts under its kind; others cannot be properties."""
        kind = kind_of(value)
        if kind:
            column = self.columns.setdefault(f"{name}:{kind}", [None] * self.rows)
            column[row] = value

    def arrays(self) -> Exploded:
        """The columns in Arrow."""
        return {name: pa.array(values, KIND_TYPES[name[-1]]) for name, values in self.columns.items()}


def json_columns(names: Sequence[str], entities: Collection[Coordinates]) -> Mapping[str, JsonColumn]:
    """The columns of JSON among those of a file; those of entities that nobody looks at give nothing."""
    wanted = {coordinates.column("contexts"): coordinates for coordinates in entities}
    found: dict[str, JsonColumn] = {}
    for name in names:
        if name in SELF_DESCRIBING_ENTITIES:
            found[name] = JsonColumn(holds_entities=True, self_describing=True)
        elif name == SELF_DESCRIBING_DATA:
            found[name] = JsonColumn(holds_entities=False, self_describing=True)
        elif name.startswith("contexts_"):
            found[name] = JsonColumn(holds_entities=True, self_describing=False, coordinates=wanted.get(name))
        elif name.startswith("unstruct_event_"):
            found[name] = JsonColumn(holds_entities=False, self_describing=False)
    return found


def read_schema(document: Any) -> Coordinates | None:
    """The coordinates that a self-describing document names."""
    schema = document.get("schema") if isinstance(document, dict) else None
    match = SCHEMA.fullmatch(schema) if isinstance(schema, str) else None
    return None if match is None else Coordinates(match[1], match[2], int(match[3]))


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of an object, with their paths joined by dots."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from flatten(inner, f"{path}.{name}" if path else name)
    elif path:
        yield path, value


def kind_of(value: Any) -> str:
    """The kind of a JSON value as a property; empty for null and what cannot be one."""
    match value:
        case bool():
            return "b"
        case int():
            return "i" if value in INT64 else ""
        case float():
            return "d" if math.isfinite(value) else ""
        case str():
            return "s"
        case list() if value and all(isinstance(each, str) for each in value):
            return "l"
        case _:
            return ""
