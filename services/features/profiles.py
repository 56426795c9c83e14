"""Reads profiles: from a selection to the place of each value, once; from there to the bytes of an answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.features import wire
from services.features.catalog import Catalog
from services.features.compile import compile_attribute
from services.features.definitions import (
    IDENTIFIER,
    Attribute,
    AttributeGroup,
    GroupReference,
    GroupState,
    parse_group_name,
)
from services.features.projection import Projection
from services.features.values import STATUSES, Status, converter
from services.kernel.aggregations import Function
from services.kernel.engine import Engine, Reading
from services.kernel.engine import Status as KernelStatus
from services.kernel.windows import MIN_US
from services.runtime.errors import InvalidArgument, NotFound, Violation

MAX_ATTRIBUTES = 2_000
REMEMBERED = 1_024
MOVING = (Function.TIME_SINCE_FIRST, Function.TIME_SINCE_LAST)
LastEvent = Callable[[int | None], bytes]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which values to read: a service, or groups, or single attributes; names as in requests."""

    feature_service: str = ""
    groups: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chosen:
    """One attribute of a published group."""

    attribute: Attribute
    group: AttributeGroup
    state: GroupState


class CompiledSelection:
    """A selection with the places of its values: valid while catalog and projection keep their revisions."""

    def __init__(self, chosen: Sequence[Chosen], attribute_key: str, projection: Projection | None) -> None:
        self.attribute_key = attribute_key
        self.attributes = [each.attribute for each in chosen]
        self.engines: list[Engine] = []
        """Where values come from; each once."""
        self._projection = projection
        self._written: dict[str, tuple[list[int], bytes]] = {}
        """By key value: the stamps of its state, and the entries for it."""
        self.moving = False
        """Whether values change with every instant, even when nothing happens."""
        self._key = wire.text_field(1, attribute_key)
        self._plan: list[tuple[int, int, Callable[[Reading], bytes]]] = []
        """For each value: the engine's place in `engines` or -1, the aggregation's place in it, and its writer."""
        last_event = wire.cached_last_event_field()
        for each in chosen:
            self._place(each, projection, last_event)

    def _place(self, chosen: Chosen, projection: Projection | None, last_event: LastEvent) -> None:
        attribute = chosen.attribute
        slot = None
        status = Status.WRONG_KEY
        if chosen.group.attribute_key == self.attribute_key:
            status = Status.BACKFILLING
            if projection is not None and chosen.state is GroupState.SERVING:
                slot = projection.slot(self.attribute_key, compile_attribute(attribute))
        if slot is None:
            data = value_writer(attribute).write(None, status)
            self._plan.append((-1, 0, lambda _: data))
            return
        if slot.engine not in self.engines:
            self.engines.append(slot.engine)
        self.moving |= attribute.aggregation in MOVING or slot.engine.complete_since_us is not None
        self._plan.append((self.engines.index(slot.engine), slot.place, reading_writer(attribute, last_event)))

    def values(self, key_value: str) -> bytes:
        """The entries of `Profile.values` for a key, as of the projection's instant.

        What was written is remembered, and written again only after something happened to the key.
        """
        engines = self.engines
        codes = [engine.key_codes.find(key_value) for engine in engines]
        if self._projection is None or self.moving:
            return self._write(codes)
        stamp = self._projection.stamp
        stamps = [-1 if code is None else stamp(engine, code) for engine, code in zip(engines, codes, strict=True)]
        known = self._written.get(key_value)
        if known is not None and known[0] == stamps:
            return known[1]
        data = self._write(codes)
        if len(self._written) >= REMEMBERED:
            self._written.clear()
        self._written[key_value] = (stamps, data)
        return data

    def _write(self, codes: Sequence[int | None]) -> bytes:
        engines = self.engines
        parts = []
        for engine, place, write in self._plan:
            reading = engines[engine].reading(place, codes[engine]) if engine >= 0 else _NOTHING
            parts.append(write(reading))
        return b"".join(parts)

    def profile(self, key_value: str, position: int, as_of: bytes) -> bytes:
        """The Profile message of a key; `as_of` comes from `as_of_field`."""
        return self.profile_of(key_value, self.values(key_value), position, as_of)

    def profile_of(self, key_value: str, values: bytes, position: int, as_of: bytes) -> bytes:
        """The same from values that were read before."""
        return wire.profile(self._key, key_value, values, position, as_of)


_NOTHING = Reading(None, KernelStatus.NEVER_SEEN, None)


class ProfileReader:
    """Reads profiles of one project; remembers what selections mean."""

    def __init__(self, catalog: Catalog, cache_size: int = 256) -> None:
        self._catalog = catalog
        self._cache_size = cache_size
        self._compiled: dict[tuple[bytes, str], CompiledSelection] = {}
        self._revisions: tuple[int, int, int] = (-1, -1, -1)

    def compiled(
        self, key: bytes, attribute_key: str, projection: Projection | None, selection: Callable[[], Selection]
    ) -> CompiledSelection:
        """What a selection means now. `key` stands for its content; `selection` is called when it is not known yet.

        Raises NotFound, FailedPrecondition and InvalidArgument for names that mean nothing.
        """
        state = (self._catalog.revision, id(projection), -1 if projection is None else projection.revision)
        if state != self._revisions or len(self._compiled) >= self._cache_size:
            self._compiled.clear()
            self._revisions = state
        found = self._compiled.get((key, attribute_key))
        if found is None:
            chosen = choose(self._catalog, selection())
            found = CompiledSelection(chosen, common_key(chosen, attribute_key), projection)
            self._compiled[key, attribute_key] = found
        return found


def value_writer(attribute: Attribute, last_event: LastEvent = wire.last_event_field) -> wire.AttributeWriter:
    """Writes values of an attribute as entries of `Profile.values`."""
    assert attribute.type is not None, "validated before"
    return wire.AttributeWriter(attribute.name, attribute.type, last_event)


def reading_writer(attribute: Attribute, last_event: LastEvent) -> Callable[[Reading], bytes]:
    """The hot path: from a reading of the kernel to bytes; the same as `values.answer` and then the writer."""
    write = value_writer(attribute, last_event).write
    convert = converter(attribute)
    default = attribute.default_value
    statuses = {status: STATUSES[status.name] for status in KernelStatus}
    truncated = Status.LEFT_TRUNCATED

    def write_reading(reading: Reading) -> bytes:
        value, kernel_status, last_event_us, covered_fraction = reading
        status = statuses[kernel_status]
        fraction = covered_fraction if status is truncated else 0.0
        if value is None:
            return write(default, status, last_event_us, fraction)
        converted = convert(value)
        if converted is None:
            return write(None, Status.OUT_OF_RANGE, last_event_us)
        return write(converted, status, last_event_us, fraction)

    return write_reading


def as_of_field(as_of_us: int) -> bytes:
    """The field `as_of_time` of a Profile; nothing while the clock of the log has not begun."""
    if as_of_us == MIN_US:
        return b""
    return wire.delimited(5, wire.timestamp(as_of_us))


def choose(catalog: Catalog, selection: Selection) -> list[Chosen]:
    """The attributes that a selection names, in the order of their definitions."""
    kinds = [bool(selection.feature_service), bool(selection.groups), bool(selection.attributes)]
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
    if len(chosen) > MAX_ATTRIBUTES:
        raise _bad_selection(f"means {len(chosen)} attributes: at most {MAX_ATTRIBUTES} can be read at once")
    return chosen


def common_key(chosen: Sequence[Chosen], attribute_key: str) -> str:
    """The attribute key to read by: the one given, or that of everything chosen."""
    keys = sorted({each.group.attribute_key for each in chosen})
    if not attribute_key and len(keys) > 1:
        raise InvalidArgument(
            f"the selection has the attribute keys {', '.join(keys)}: say which in attribute_key",
            reason="BAD_SELECTION",
            violations=(Violation("attribute_key", "is needed: the selection has several", "BAD_SELECTION"),),
        )
    return attribute_key or keys[0]


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


def _reference(name: str) -> GroupReference:
    reference = parse_group_name(name)
    if reference is None:
        raise _bad_selection(f"holds {name[:200]!r}, which is not attributeGroups/{{group}} or …/versions/{{version}}")
    return reference


def _bad_selection(what: str) -> InvalidArgument:
    return InvalidArgument(
        f"the selection {what}",
        reason="BAD_SELECTION",
        violations=(Violation("selection", what, "BAD_SELECTION"),),
    )
