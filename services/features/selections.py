"""What a request asks to read: names, and the definitions that they mean now."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.features.catalog import Catalog
from services.features.definitions import (
    IDENTIFIER,
    Attribute,
    AttributeGroup,
    GroupReference,
    GroupState,
    parse_group_name,
    suggestion,
)
from services.features.properties import PropertyDefinition, Visibility
from services.features.rollups import RollupDefinition
from services.runtime.errors import InvalidArgument, NotFound, Violation

MAX_ATTRIBUTES = 2_000
ALL = "*"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which values to read: a service, or groups, or single attributes; and what else. Names are as in requests."""

    feature_service: str = ""
    groups: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    """By name; ALL is all visible ones."""
    rollups: tuple[str, ...] = ()
    """By name; ALL is all."""
    segments: bool = False
    everything: bool = False
    """All that is known of the attribute key, and nothing else is named."""

    @property
    def names_attributes(self) -> bool:
        """Whether a service, groups or attributes are named."""
        return bool(self.feature_service or self.groups or self.attributes)

    @property
    def names_more(self) -> bool:
        """Whether anything is asked for beside attributes."""
        return bool(self.properties or self.rollups or self.segments or self.everything)


@dataclass(frozen=True, slots=True)
class Chosen:
    """One attribute of a published group."""

    attribute: Attribute
    group: AttributeGroup
    state: GroupState
    shows_group: bool = False
    """Whether its value says of which group it is."""


@dataclass(frozen=True, slots=True)
class More:
    """What is read beside attributes."""

    properties: tuple[PropertyDefinition, ...] = ()
    rollups: tuple[RollupDefinition, ...] = ()
    segments: bool = False


def choose(catalog: Catalog, selection: Selection, attribute_key: str = "") -> list[Chosen]:
    """The attributes that a selection names, in the order of their definitions."""
    kinds = [bool(selection.feature_service), bool(selection.groups), bool(selection.attributes)]
    if selection.everything:
        if any(kinds) or selection.properties or selection.rollups or selection.segments:
            raise _bad_selection("asks for everything and names something besides")
        return _choose_everything(catalog, attribute_key or only_key(catalog))
    if not any(kinds) and selection.names_more:
        return []
    if sum(kinds) != 1:
        raise _bad_selection("names nothing to read" if not any(kinds) else "mixes services, groups and attributes")
    if selection.attributes:
        return _choose_attributes(catalog, selection.attributes)
    if selection.feature_service:
        references: Sequence[GroupReference] = catalog.service(selection.feature_service).service.groups
    else:
        references = [_reference(name) for name in selection.groups]
    chosen: list[Chosen] = []
    seen: set[str] = set()
    for reference in references:
        stored = catalog.resolve(reference)
        if stored.group.name in seen:
            raise _bad_selection(f"names {stored.group.name} twice")
        seen.add(stored.group.name)
        chosen.extend(Chosen(attribute, stored.group, stored.state) for attribute in stored.group.attributes)
    return _limited(chosen)


def choose_more(catalog: Catalog, selection: Selection, attribute_key: str) -> More:
    """What a selection names beside attributes, of an attribute key."""
    everything = selection.everything
    return More(
        tuple(_choose_properties(catalog, (ALL,) if everything else selection.properties, attribute_key)),
        tuple(_choose_rollups(catalog, (ALL,) if everything else selection.rollups, attribute_key)),
        selection.segments or everything,
    )


def key_of_selection(catalog: Catalog, chosen: Sequence[Chosen], attribute_key: str) -> str:
    """The attribute key to read by: the one given, that of everything chosen, or the only one there is."""
    return common_key(chosen, attribute_key) if chosen else attribute_key or only_key(catalog)


def common_key(chosen: Sequence[Chosen], attribute_key: str) -> str:
    """The attribute key to read by: the one given, or that of everything chosen."""
    keys = sorted({each.group.attribute_key for each in chosen})
    if not attribute_key and len(keys) > 1:
        raise _ambiguous("the selection has", keys)
    return attribute_key or keys[0]


def only_key(catalog: Catalog) -> str:
    """The attribute key of all definitions; raises InvalidArgument when there is not just one."""
    keys = {stored.group.attribute_key for stored in catalog.published}
    keys |= {stored.definition.attribute_key for stored in catalog.properties.properties()}
    keys |= {stored.definition.attribute_key for stored in catalog.properties.rollups()}
    if len(keys) != 1:
        raise _ambiguous("the project has", sorted(keys))
    return next(iter(keys))


def _choose_everything(catalog: Catalog, attribute_key: str) -> list[Chosen]:
    groups = dict.fromkeys(
        stored.group.group_id for stored in catalog.published if stored.group.attribute_key == attribute_key
    )
    newest = [catalog.latest_published(group_id) for group_id in groups]
    return _limited(
        [
            Chosen(attribute, stored.group, stored.state, shows_group=True)
            for stored in newest
            if stored is not None and stored.state is GroupState.SERVING and stored.group.attribute_key == attribute_key
            for attribute in stored.group.attributes
        ]
    )


def _choose_attributes(catalog: Catalog, names: Sequence[str]) -> list[Chosen]:
    if len(names) > MAX_ATTRIBUTES:
        raise _bad_selection(f"names more than {MAX_ATTRIBUTES} attributes")
    if len(set(names)) < len(names):
        raise _bad_selection("names an attribute twice")
    chosen = []
    for name in names:
        group_part, _, attribute_name = name.partition(":")
        group_id, _, version = group_part.partition("/")
        versioned = version.isascii() and version.isdigit() and 0 < int(version) < 10**9
        if not IDENTIFIER.fullmatch(group_id) or not attribute_name or not (versioned or "/" not in group_part):
            raise _bad_selection(
                f"{name[:200]!r} is not {{group}}:{{attribute}} or {{group}}/{{version}}:{{attribute}}"
            )
        stored = catalog.resolve(GroupReference(group_id, int(version) if version else 0))
        found = [each for each in stored.group.attributes if each.name == attribute_name]
        if not found:
            text = f"{stored.group.name} has no attribute {attribute_name[:64]!r}"
            raise NotFound(text, reason="NOT_FOUND", metadata={"name": name[:200]})
        chosen.append(Chosen(found[0], stored.group, stored.state))
    return chosen


def _choose_properties(catalog: Catalog, names: Sequence[str], attribute_key: str) -> list[PropertyDefinition]:
    found: dict[str, PropertyDefinition] = {}
    for name in names:
        if name == ALL:
            declared = (stored.definition for stored in catalog.properties.properties(attribute_key))
            found |= {each.property_id: each for each in declared if each.visibility is Visibility.VISIBLE}
            continue
        stored = catalog.properties.find(attribute_key, name)
        if stored is None:
            hint = catalog.properties.hint(attribute_key, name)
            text = f"{attribute_key} has no property {name[:128]!r}: {hint}"
            raise NotFound(text, reason="NOT_FOUND", metadata={"name": name[:200]})
        found[name] = stored.definition
    return list(found.values())


def _choose_rollups(catalog: Catalog, names: Sequence[str], attribute_key: str) -> list[RollupDefinition]:
    declared = {each.definition.rollup_id: each.definition for each in catalog.properties.rollups(attribute_key)}
    found: dict[str, RollupDefinition] = {}
    for name in names:
        if name == ALL:
            found |= declared
        elif name in declared:
            found[name] = declared[name]
        else:
            text = f"{attribute_key} has no roll-up {name[:64]!r}: {suggestion(name, declared) or 'declare it'}"
            raise NotFound(text, reason="NOT_FOUND", metadata={"name": name[:200]})
    return list(found.values())


def _limited(chosen: list[Chosen]) -> list[Chosen]:
    if len(chosen) > MAX_ATTRIBUTES:
        raise _bad_selection(f"means {len(chosen)} attributes: at most {MAX_ATTRIBUTES} can be read at once")
    return chosen


def _reference(name: str) -> GroupReference:
    reference = parse_group_name(name)
    if reference is None:
        raise _bad_selection(f"holds {name[:200]!r}, which is not attributeGroups/{{group}} or …/versions/{{version}}")
    return reference


def _ambiguous(what: str, keys: Sequence[str]) -> InvalidArgument:
    names = f"the attribute keys {', '.join(keys)}" if keys else "no definition yet"
    return InvalidArgument(
        f"{what} {names}: say which in attribute_key",
        reason="BAD_SELECTION",
        violations=(Violation("attribute_key", f"is needed: {what} {names}", "BAD_SELECTION"),),
    )


def _bad_selection(what: str) -> InvalidArgument:
    return InvalidArgument(
        f"the selection {what}",
        reason="BAD_SELECTION",
        violations=(Violation("selection", what, "BAD_SELECTION"),),
    )
