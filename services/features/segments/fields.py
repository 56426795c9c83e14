"""What the profiles of a project have: the fields that conditions can speak of, and where their values are now."""

from services.features.catalog import Catalog
from services.features.compile import compile_attribute
from services.features.definitions import Attribute, AttributeGroup, GroupState, ValueType
from services.features.projection import Projection
from services.features.properties import PropertyType, compile_property
from services.features.rollup_sources import resolve
from services.features.rollups import VALUE_TYPES, RollupDefinition, result_type
from services.features.segments.readers import AttributeReader, Reader, RollupReader
from services.features.segments.schema import KINDS, PROPERTIES, ROLLUPS, Elapsed, Field, Kind, Schema
from services.features.segments.universe import Universe
from services.kernel.aggregations import Function

_SINCE = (Function.TIME_SINCE_FIRST, Function.TIME_SINCE_LAST)
_PROPERTY_KINDS = {
    PropertyType.BOOLEAN: Kind.BOOLEAN,
    PropertyType.NUMERIC: Kind.NUMBER,
    PropertyType.STRING: Kind.STRING,
    PropertyType.DATE: Kind.INSTANT,
    PropertyType.ARRAY: Kind.ARRAY,
    PropertyType.RECORD: Kind.RECORD,
}


def elapsed_of(attribute: Attribute) -> Elapsed | None:
    """What an attribute that counts the seconds since an event is, else None."""
    if attribute.aggregation not in _SINCE:
        return None
    assert attribute.type is not None, "validated before"
    default = attribute.default_value
    return Elapsed(attribute.type, default if isinstance(default, int | float) else None)


class ProfileFields:
    """The fields that the profiles of a project have now, and their readers."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    @property
    def revision(self) -> int:
        """Rises when fields may have changed."""
        return self._catalog.revision

    def schema(self, attribute_key: str) -> Schema:
        """What conditions on the profiles of an attribute key can speak of: the latest published groups' attributes."""
        fields = []
        for group in self._groups(attribute_key):
            for attribute in group.attributes:
                assert attribute.type is not None, "validated before"
                elapsed = elapsed_of(attribute)
                fields.append(Field(group.group_id, attribute.name, KINDS[attribute.type], elapsed))
        for stored in self._catalog.properties.properties(attribute_key):
            kind = stored.definition.type
            assert kind is not None, "validated before"
            fields.append(Field(PROPERTIES, stored.definition.property_id, _PROPERTY_KINDS[kind]))
        for rollup in self._catalog.properties.rollups(attribute_key):
            field = self._rollup_field(rollup.definition)
            if field is not None:
                fields.append(field)
        return Schema(attribute_key, fields)

    def reader(self, field: Field, universe: Universe, projection: Projection) -> Reader | None:
        """Reads a field of the schema; None while it is still being filled."""
        if field.namespace == PROPERTIES:
            return self._property_reader(field.name, universe, projection)
        if field.namespace == ROLLUPS:
            return self._rollup_reader(field.name, universe, projection)
        stored = self._catalog.latest_published(field.namespace)
        if stored is None or stored.state is not GroupState.SERVING:
            return None
        attribute = next((each for each in stored.group.attributes if each.name == field.name), None)
        if attribute is None:
            return None
        slot = projection.slot(universe.attribute_key, compile_attribute(attribute))
        return None if slot is None else AttributeReader(attribute, slot, universe, elapsed=field.elapsed is not None)

    def _property_reader(self, property_id: str, universe: Universe, projection: Projection) -> Reader | None:
        stored = self._catalog.properties.find(universe.attribute_key, property_id)
        if stored is None or stored.definition.type is None:
            return None
        slot = projection.slot(universe.attribute_key, compile_property(stored.definition))
        attribute = Attribute(property_id, VALUE_TYPES[stored.definition.type])
        return None if slot is None else AttributeReader(attribute, slot, universe, elapsed=False)

    def _rollup_field(self, definition: RollupDefinition) -> Field | None:
        """A roll-up of seconds since something changes with every instant, of each profile that refers: no field."""
        assert definition.function is not None, "validated before"
        source = resolve(self._catalog, definition)
        if (source is None and definition.attribute) or (source is not None and source.aggregation.function in _SINCE):
            return None
        value_type = ValueType.INT64 if source is None else source.value_type
        return Field(ROLLUPS, definition.rollup_id, KINDS[result_type(definition.function, value_type)])

    def _rollup_reader(self, rollup_id: str, universe: Universe, projection: Projection) -> Reader | None:
        stored = self._catalog.properties.find_rollup(universe.attribute_key, rollup_id)
        if stored is None:
            return None
        definition = stored.definition
        key, property_id = definition.referring
        reference = self._catalog.properties.find(key, property_id)
        if reference is None:
            return None
        aggregation = compile_property(reference.definition)
        index = projection.references.index(key, aggregation, projection.slot(key, aggregation))
        if index is None:
            return None
        source = resolve(self._catalog, definition)
        if source is None:
            return RollupReader(definition, index, None, None, universe)
        slot = projection.slot(key, source.aggregation)
        if slot is None:
            return None
        index.add_source(slot.engine)
        return RollupReader(definition, index, source, slot, universe)

    def _groups(self, attribute_key: str) -> list[AttributeGroup]:
        latest: dict[str, AttributeGroup] = {}
        for stored in self._catalog.published:
            newest = self._catalog.latest_published(stored.group.group_id)
            if newest is not None and newest.group.attribute_key == attribute_key:
                latest[stored.group.group_id] = newest.group
        return [latest[group_id] for group_id in sorted(latest)]
