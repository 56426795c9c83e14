"""What a roll-up reads of the profiles that refer: an attribute of a published group, or a property."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from services.features.catalog import Catalog
from services.features.compile import compile_attribute
from services.features.definitions import Problem, ValueType, suggestion
from services.features.properties import PropertyType, compile_property, parse_property_name
from services.features.rollups import (
    VALUE_TYPES,
    GroupAttribute,
    PropertyOf,
    RollupDefinition,
    fits,
    parse_source,
)
from services.features.values import converter
from services.kernel.aggregations import Aggregation
from services.kernel.engine import Reading
from services.kernel.expressions import Instant
from services.runtime.errors import InklingError


@dataclass(frozen=True, slots=True)
class RolledUp:
    """A source of values, each as the profile itself would answer it; null does not enter."""

    aggregation: Aggregation
    value_type: ValueType
    default: Any
    """What the profile answers instead of null."""
    convert: Callable[[Any], Any]
    """From a value of the kernel, never None, to that of the profile; None when it does not fit."""

    def value_of(self, reading: Reading) -> Any:
        """The value of one profile."""
        return self.default if reading.value is None else self.convert(reading.value)

    def values(self, readings: Iterable[Any]) -> list[Any]:
        """The values of profiles from those of the kernel, without nulls."""
        default, convert = self.default, self.convert
        answers = (default if each is None else convert(each) for each in readings)
        return [each for each in answers if each is not None]


def resolve(catalog: Catalog, definition: RollupDefinition) -> RolledUp | None:
    """What a declared roll-up reads; None when profiles are counted, or what it names is no more."""
    found = _find(catalog, definition)
    return found if isinstance(found, RolledUp) else None


def check_source(catalog: Catalog, definition: RollupDefinition) -> list[Problem]:
    """The mistakes in what a roll-up reads; those of its form are not told here."""
    found = _find(catalog, definition)
    if isinstance(found, Problem):
        return [found]
    if found is None or definition.function is None or fits(definition.function, found.value_type):
        return []
    text = f"{definition.function} of {found.value_type} values means nothing"
    return [Problem("rollup.function", text, "use count or count_distinct, or another attribute")]


def _find(catalog: Catalog, definition: RollupDefinition) -> RolledUp | Problem | None:
    key = parse_property_name(definition.reference)
    try:
        source = parse_source(definition.attribute)
    except ValueError:
        return None
    if source is None or key is None:
        return None
    if isinstance(source, PropertyOf):
        return _property(catalog, key[0], source.property_id)
    return _attribute(catalog, key[0], source)


def _property(catalog: Catalog, attribute_key: str, property_id: str) -> RolledUp | Problem:
    stored = catalog.properties.find(attribute_key, property_id)
    if stored is None:
        text = f"{attribute_key} has no property {property_id}"
        return Problem("rollup.attribute", text, catalog.properties.hint(attribute_key, property_id))
    kind = stored.definition.type
    assert kind is not None, "validated before"
    convert: Callable[[Any], Any] = {PropertyType.NUMERIC: float, PropertyType.DATE: Instant}.get(kind, _same)
    return RolledUp(compile_property(stored.definition), VALUE_TYPES[kind], None, convert)


def _attribute(catalog: Catalog, attribute_key: str, source: GroupAttribute) -> RolledUp | Problem:
    try:
        group = catalog.resolve(source.group).group
    except InklingError as error:
        return Problem("rollup.attribute", error.message, "publish the group first")
    if group.attribute_key != attribute_key:
        text = f"{group.name} has the attribute key {group.attribute_key}"
        return Problem("rollup.attribute", text, f"name an attribute of {attribute_key}, whose profiles refer")
    named = {each.name: each for each in group.attributes}
    if source.attribute in named:
        attribute = named[source.attribute]
        assert attribute.type is not None, "validated before"
        return RolledUp(compile_attribute(attribute), attribute.type, attribute.default_value, converter(attribute))
    text = f"{group.name} has no attribute {source.attribute}"
    return Problem("rollup.attribute", text, suggestion(source.attribute, named))


def _same(value: Any) -> Any:
    return value
