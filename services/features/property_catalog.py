"""The declared properties and roll-ups of one project: what may be declared, changed and deleted.

All are held in memory; every change is written to the store first, and told to the catalog that this is a part of.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NoReturn

from services.features.definitions import GroupReference, Problem, suggestion
from services.features.properties import (
    MAX_PROPERTIES,
    PropertyDefinition,
    aggregations_of,
    check_property,
    parse_property_name,
)
from services.features.property_store import PropertyStore, StoredProperty, StoredRollup
from services.features.rollups import (
    MAX_ROLLUPS,
    GroupAttribute,
    RollupDefinition,
    check_rollup,
    parse_rollup_name,
    parse_source,
)
from services.features.validation import describe
from services.kernel.aggregations import Aggregation
from services.runtime.clocks import Clock
from services.runtime.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Violation,
)

PROPERTIES, ROLLUPS = "properties", "rollups"
"""The namespaces of what is declared here; those of attributes are their groups."""
FieldsRead = Callable[[str, str], Iterable[tuple[str, str]]]
"""From attribute key and namespace to segments, each with a field that it reads."""


class PropertyCatalog:
    """A project's declarations. Changes are made one after the other."""

    def __init__(self, project: str, store: PropertyStore, clock: Clock, changed: Callable[[], None]) -> None:
        self._project = project
        self._store = store
        self._clock = clock
        self._changed = changed
        self._lock = asyncio.Lock()
        self._properties: dict[tuple[str, str], StoredProperty] = {}
        self._rollups: dict[tuple[str, str], StoredRollup] = {}
        self.fields_read: FieldsRead = lambda _key, _namespace: ()
        """Which segments read what."""

    async def load(self) -> None:
        """Reads the declarations."""
        properties = await self._store.properties(self._project)
        rollups = await self._store.rollups(self._project)
        self._properties = {(s.definition.attribute_key, s.definition.property_id): s for s in properties}
        self._rollups = {(s.definition.attribute_key, s.definition.rollup_id): s for s in rollups}

    # Looking up.

    def properties(self, attribute_key: str = "") -> list[StoredProperty]:
        """Declared properties, by attribute key, then id."""
        return [self._properties[k] for k in sorted(self._properties) if not attribute_key or k[0] == attribute_key]

    def rollups(self, attribute_key: str = "") -> list[StoredRollup]:
        """Declared roll-ups, by attribute key, then id."""
        return [self._rollups[k] for k in sorted(self._rollups) if not attribute_key or k[0] == attribute_key]

    def find(self, attribute_key: str, property_id: str) -> StoredProperty | None:
        """A declared property, or None."""
        return self._properties.get((attribute_key, property_id))

    def find_rollup(self, attribute_key: str, rollup_id: str) -> StoredRollup | None:
        """A declared roll-up, or None."""
        return self._rollups.get((attribute_key, rollup_id))

    def property(self, name: str) -> StoredProperty:
        """The property with this resource name; raises InvalidArgument or NotFound."""
        key = parse_property_name(name)
        if key is None:
            raise bad_name(name, "attributeKeys/{attribute_key}/properties/{property}")
        return self._properties.get(key) or _missing(name)

    def rollup(self, name: str) -> StoredRollup:
        """The roll-up with this resource name; raises InvalidArgument or NotFound."""
        key = parse_rollup_name(name)
        if key is None:
            raise bad_name(name, "attributeKeys/{attribute_key}/rollups/{rollup}")
        return self._rollups.get(key) or _missing(name)

    def hint(self, attribute_key: str, property_id: str) -> str:
        """The declared properties nearest to a name that is none."""
        known = [stored.definition.property_id for stored in self.properties(attribute_key)]
        return suggestion(property_id, known) or f"nothing is declared for {attribute_key}: declare it"

    def readers_of_groups(self) -> list[tuple[str, tuple[GroupReference, ...]]]:
        """The roll-ups over attributes, by name, with the groups that they read."""
        sources = ((each.definition.name, parse_source(each.definition.attribute)) for each in self.rollups())
        return [(name, (source.group,)) for name, source in sources if isinstance(source, GroupAttribute)]

    def needed(self) -> list[tuple[str, Aggregation]]:
        """What must be computed: attribute keys and aggregations."""
        return [
            (stored.definition.attribute_key, aggregation)
            for stored in self.properties()
            for aggregation in aggregations_of(stored.definition)
        ]

    # Properties.

    async def create(
        self, definitions: Sequence[PropertyDefinition], problems: Iterable[Problem], *, validate_only: bool = False
    ) -> list[StoredProperty]:
        """Declares properties: all of them, or none."""
        async with self._lock:
            names = [(each.attribute_key, each.property_id) for each in definitions]
            found = list(problems)
            for i, each in enumerate(definitions):
                prefix = f"requests[{i}]." if len(definitions) > 1 else ""
                found += [replace(problem, field=prefix + problem.field) for problem in check_property(each)]
                if names.index(names[i]) < i:
                    found.append(Problem(f"{prefix}property_id", "is there twice", "declare it once"))
            refuse(found)
            for name, each in zip(names, definitions, strict=True):
                if name in self._properties:
                    raise AlreadyExists(f"{each.name} is declared already: update it", reason="ALREADY_EXISTS")
            for key, added in Counter(key for key, _ in names).items():
                if len(self.properties(key)) + added > MAX_PROPERTIES:
                    raise FailedPrecondition(
                        f"{key} would have more than {MAX_PROPERTIES} properties: delete some", reason="OUT_OF_RANGE"
                    )
            before = await self._store.generations(self._project, names)
            now_us = self._clock.now_us()
            stored = [
                StoredProperty(each, now_us, now_us, before.get(name, 0) + 1)
                for name, each in zip(names, definitions, strict=True)
            ]
            if not validate_only:
                await self._store.put_properties(self._project, stored)
                self._properties.update(zip(names, stored, strict=True))
                self._changed()
            return stored

    async def update(
        self, definition: PropertyDefinition, problems: Iterable[Problem], etag: str, *, validate_only: bool = False
    ) -> StoredProperty:
        """Changes a declaration. A given etag must match; type and merge strategy stay."""
        async with self._lock:
            before = self.property(definition.name)
            if etag and etag != before.etag:
                raise Aborted("somebody else changed it: read it again", reason="ETAG_MISMATCH")
            found = [*problems, *check_property(definition)]
            old = before.definition
            hint = "delete the property and declare it again"
            if definition.type is not old.type:
                found.append(Problem("property.type", "cannot be changed", hint))
            if definition.merge is not old.merge:
                found.append(Problem("property.merge_strategy", "cannot be changed", hint))
            if definition.refers_to != old.refers_to:
                self._check_unused(before)
            refuse(found)
            now_us = max(self._clock.now_us(), before.update_time_us + 1)
            stored = replace(before, definition=definition, update_time_us=now_us)
            if not validate_only:
                await self._store.put_properties(self._project, [stored])
                self._properties[old.attribute_key, old.property_id] = stored
                self._changed()
            return stored

    async def delete(self, name: str) -> StoredProperty:
        """Removes a declaration, unless a roll-up or a segment needs it."""
        async with self._lock:
            stored = self.property(name)
            self._check_unused(stored)
            definition = stored.definition
            self._check_unread(definition.name, definition.attribute_key, PROPERTIES, definition.property_id)
            gone = replace(stored, update_time_us=max(self._clock.now_us(), stored.update_time_us + 1))
            await self._store.put_properties(self._project, [gone], deleted=True)
            del self._properties[stored.definition.attribute_key, stored.definition.property_id]
            self._changed()
            return stored

    def _check_unused(self, stored: StoredProperty) -> None:
        definition = stored.definition
        used = [
            rollup.definition.name
            for rollup in self.rollups()
            if rollup.definition.reference == definition.name
            or (
                rollup.definition.attribute == f"properties.{definition.property_id}"
                and rollup.definition.referring[0] == definition.attribute_key
            )
        ]
        if used:
            raise FailedPrecondition(
                f"{definition.name} is read by {', '.join(used[:5])}: delete that first",
                reason="IN_USE",
                metadata={"rollups": ",".join(used[:20])},
            )

    def _check_unread(self, name: str, attribute_key: str, namespace: str, field: str) -> None:
        users = sorted({segment for segment, read in self.fields_read(attribute_key, namespace) if read == field})
        if users:
            raise FailedPrecondition(
                f"{name} is read by {', '.join(users[:5])}: change or delete that first",
                reason="IN_USE",
                metadata={"segments": ",".join(users[:20])},
            )

    # Roll-ups.

    async def create_rollup(
        self, definition: RollupDefinition, problems: Iterable[Problem], *, validate_only: bool = False
    ) -> StoredRollup:
        """Declares a roll-up; `problems` are those that others found. Its reference must refer to its key."""
        async with self._lock:
            found = [*problems, *check_rollup(definition)]
            if not found:
                reference = self._properties.get(definition.referring)
                if reference is None:
                    text = f"there is no {definition.reference}"
                    found.append(Problem("rollup.reference", text, self.hint(*definition.referring)))
                elif reference.definition.refers_to != definition.attribute_key:
                    refers_to = reference.definition.refers_to or "nothing"
                    hint = f"give the property refers_to: {definition.attribute_key}"
                    found.append(Problem("rollup.reference", f"refers to {refers_to}", hint))
            refuse(found)
            key = definition.attribute_key, definition.rollup_id
            if key in self._rollups:
                raise AlreadyExists(f"{definition.name} is declared already: delete it first", reason="ALREADY_EXISTS")
            if len(self.rollups(key[0])) >= MAX_ROLLUPS:
                raise FailedPrecondition(f"{key[0]} has {MAX_ROLLUPS} roll-ups: delete some", reason="OUT_OF_RANGE")
            stored = StoredRollup(definition, self._clock.now_us())
            if not validate_only:
                await self._store.add_rollup(self._project, stored)
                self._rollups[key] = stored
                self._changed()
            return stored

    async def delete_rollup(self, name: str) -> None:
        """Removes a declaration, unless a segment needs it."""
        async with self._lock:
            stored = self.rollup(name)
            definition = stored.definition
            self._check_unread(definition.name, definition.attribute_key, ROLLUPS, definition.rollup_id)
            await self._store.delete_rollup(self._project, stored.definition)
            del self._rollups[stored.definition.attribute_key, stored.definition.rollup_id]
            self._changed()


def refuse(problems: Sequence[Problem]) -> None:
    """Raises InvalidArgument with all problems, if there are any."""
    if problems:
        raise InvalidArgument(
            f"the declaration has mistakes; the first: {problems[0].field}: {problems[0].description}",
            reason="BAD_DEFINITION",
            violations=[Violation(each.field, describe(each), "BAD_DEFINITION") for each in problems],
        )


def bad_name(name: str, form: str) -> InvalidArgument:
    """The error for a name that is not of its form."""
    text = f"{name[:200]!r} is not a name of the form {form}"
    return InvalidArgument(text, reason="BAD_NAME", violations=(Violation("name", text, "BAD_NAME"),))


def _missing(name: str) -> NoReturn:
    raise NotFound(f"there is no {name}", reason="NOT_FOUND", metadata={"name": name[:200]})
