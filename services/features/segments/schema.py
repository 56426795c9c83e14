"""What a condition can speak of: the fields of the profiles of one attribute key, by name and kind."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from services.features.definitions import ValueType, suggestion

PROPERTIES, ROLLUPS = "properties", "rollups"


class Kind(StrEnum):
    """What the values of a field are."""

    INTEGER = "integer"
    NUMBER = "number"
    """A double."""
    STRING = "string"
    BOOLEAN = "boolean"
    INSTANT = "instant"
    """int64 microseconds."""
    STRINGS = "list of strings"
    INTEGERS = "list of integers"
    NUMBERS = "list of numbers"
    ARRAY = "array"
    """A list of values of any kind, held as JSON text."""
    COUNTS = "counts by category"
    RECORD = "record"


NUMERIC = frozenset({Kind.INTEGER, Kind.NUMBER})
LISTS = frozenset({Kind.STRINGS, Kind.INTEGERS, Kind.NUMBERS, Kind.ARRAY, Kind.COUNTS})

KINDS = {
    ValueType.STRING: Kind.STRING,
    ValueType.INT32: Kind.INTEGER,
    ValueType.INT64: Kind.INTEGER,
    ValueType.FLOAT: Kind.NUMBER,
    ValueType.DOUBLE: Kind.NUMBER,
    ValueType.BOOL: Kind.BOOLEAN,
    ValueType.TIMESTAMP: Kind.INSTANT,
    ValueType.STRING_LIST: Kind.STRINGS,
    ValueType.INT64_LIST: Kind.INTEGERS,
    ValueType.DOUBLE_LIST: Kind.NUMBERS,
    ValueType.CATEGORY_COUNTS: Kind.COUNTS,
}
"""The kinds of attributes, by the types of their values."""


@dataclass(frozen=True, slots=True)
class Elapsed:
    """A field whose value is the time since an instant, in seconds: it changes with every instant."""

    value_type: ValueType
    default: float | None = None
    """The value where there is no such instant."""


@dataclass(frozen=True, slots=True)
class Field:
    """Something that profiles have."""

    namespace: str
    """The group's id, `properties` or `rollups`."""
    name: str
    kind: Kind
    elapsed: Elapsed | None = None

    @property
    def qualified(self) -> str:
        """The name that means this field and no other."""
        return f"{self.namespace}.{self.name}"


class UnknownFieldError(Exception):
    """A name means nothing, or several things. The text says what is wrong; `hint` what to write instead."""

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.hint = hint


class Schema:
    """The fields of one attribute key."""

    def __init__(self, attribute_key: str, fields: Iterable[Field]) -> None:
        self.attribute_key = attribute_key
        self._qualified = {(each.namespace, each.name): each for each in fields}
        self._bare: dict[str, list[Field]] = defaultdict(list)
        for each in self._qualified.values():
            self._bare[each.name].append(each)

    @property
    def fields(self) -> list[Field]:
        """All fields, by their qualified names."""
        return sorted(self._qualified.values(), key=lambda field: field.qualified)

    def find(self, parts: tuple[str, ...]) -> Field:
        """The field that a name means: `name` where that is unique, or `namespace.name`; raises UnknownFieldError."""
        if len(parts) == 2:
            namespace, name = parts
            found = self._qualified.get((namespace, name))
            if found is not None:
                return found
            namespaces = {each for each, _ in self._qualified}
            if namespace in namespaces:
                text = f"`{namespace}` has no `{name[:64]}`"
                raise UnknownFieldError(text, suggestion(name, [n for each, n in self._qualified if each == namespace]))
            raise UnknownFieldError(f"there is no `{namespace[:64]}`", _nearest(namespace, namespaces))
        candidates = self._bare.get(parts[0], []) if len(parts) == 1 else []
        if len(candidates) == 1:
            return candidates[0]
        name = ".".join(parts)[:128]
        if candidates:
            hint = "write " + " or ".join(f"`{each.qualified}`" for each in candidates)
            raise UnknownFieldError(f"`{name}` means several things", hint)
        raise UnknownFieldError(f"`{self.attribute_key}` profiles have no `{name}`", _nearest(name, self._bare))


def _nearest(word: str, known: Iterable[str]) -> str:
    """The nearest names; when none is near, some of those there are."""
    choices = sorted(known)
    if not choices:
        return "publish an attribute group, or declare a property"
    hint = suggestion(word, choices)
    if hint.startswith("one of ") and len(choices) > 10:
        return f"one of {', '.join(choices[:10])}, … ({len(choices)} in all)"
    return hint
