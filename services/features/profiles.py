"""Reads profiles: from a selection to the place of each value, once; from there to the bytes of an answer."""

from collections.abc import Callable, Iterable, Sequence

from services.features import wire
from services.features.catalog import Catalog
from services.features.compile import compile_attribute
from services.features.definitions import Attribute, GroupState
from services.features.profile_parts import (
    MOVING,
    LastEvent,
    Memberships,
    Part,
    PlacedProperty,
    RollupPart,
    SegmentPart,
    place_property,
)
from services.features.projection import Projection, Slot, Touched
from services.features.properties import PropertyDefinition
from services.features.selections import (
    Chosen,
    Selection,
    choose,
    choose_more,
    common_key,
    key_of_selection,
)
from services.features.values import STATUSES, Status, converter
from services.kernel.engine import Engine, Reading
from services.kernel.engine import Status as KernelStatus
from services.kernel.windows import MIN_US

__all__ = ["Chosen", "CompiledSelection", "ProfileReader", "Selection", "choose", "common_key"]

REMEMBERED = 1_024


class CompiledSelection:
    """A selection with the places of its values: valid while catalog and projection keep their revisions."""

    def __init__(
        self,
        chosen: Sequence[Chosen],
        attribute_key: str,
        projection: Projection | None,
        properties: Sequence[PropertyDefinition] = (),
        parts: Sequence[Part] = (),
    ) -> None:
        self.attribute_key = attribute_key
        self.attributes = [each.attribute for each in chosen]
        self.engines: list[Engine] = []
        """Where values come from; each once."""
        self._projection = projection
        self._parts = parts
        """What comes from elsewhere than the engines."""
        self._written: dict[str, tuple[list[int], bytes]] = {}
        """By key value: the stamps of its state, and the entries for it."""
        self.moving = any(part.moving for part in parts)
        """Whether values change with every instant, even when nothing happens."""
        self._key = wire.text_field(1, attribute_key)
        self._plan: list[tuple[int, int, Callable[[Reading], bytes]]] = []
        """For each value: the engine's place in `engines` or -1, the aggregation's place in it, and its writer."""
        last_event = wire.cached_last_event_field()
        for each in chosen:
            self._place(each, projection, last_event)
        self._properties = [self._place_property(each, last_event) for each in properties]

    def _place(self, chosen: Chosen, projection: Projection | None, last_event: LastEvent) -> None:
        attribute = chosen.attribute
        slot = None
        status = Status.WRONG_KEY
        if chosen.group.attribute_key == self.attribute_key:
            status = Status.BACKFILLING
            if projection is not None and chosen.state is GroupState.SERVING:
                slot = projection.slot(self.attribute_key, compile_attribute(attribute))
        if slot is None:
            data = value_writer(attribute, group=_group_shown(chosen)).write(None, status)
            self._plan.append((-1, 0, lambda _: data))
            return
        writer = reading_writer(attribute, last_event, _group_shown(chosen))
        self._plan.append((self._engine(slot), slot.place, writer))
        self.moving |= attribute.aggregation in MOVING

    def _place_property(
        self, definition: PropertyDefinition, last_event: LastEvent
    ) -> tuple[PlacedProperty, list[tuple[int, int]]]:
        """A property with the places of its readings: of the engine, and in it. None while it is not computed."""
        placed = place_property(definition, self._projection, last_event)
        return placed, [(self._engine(slot), slot.place) for slot in placed.slots]

    def _engine(self, slot: Slot) -> int:
        if slot.engine not in self.engines:
            self.engines.append(slot.engine)
        self.moving |= slot.engine.complete_since_us is not None
        return self.engines.index(slot.engine)

    def values(self, key_value: str) -> bytes:
        """The fields of `Profile` with what was asked for of a key, as of the projection's instant.

        What was written is remembered, and written again only after something happened to the key.
        """
        engines = self.engines
        codes = [engine.key_codes.find(key_value) for engine in engines]
        if self._projection is None or self.moving:
            return self._write(codes, key_value)
        stamp = self._projection.stamp
        stamps = [-1 if code is None else stamp(engine, code) for engine, code in zip(engines, codes, strict=True)]
        if self._parts:
            stamps += [part.stamp(key_value) for part in self._parts]
        known = self._written.get(key_value)
        if known is not None and known[0] == stamps:
            return known[1]
        data = self._write(codes, key_value)
        if len(self._written) >= REMEMBERED:
            self._written.clear()
        self._written[key_value] = (stamps, data)
        return data

    def _write(self, codes: Sequence[int | None], key_value: str) -> bytes:
        engines = self.engines
        parts = []
        for engine, place, write in self._plan:
            reading = engines[engine].reading(place, codes[engine]) if engine >= 0 else _NOTHING
            parts.append(write(reading))
        for placed, places in self._properties:
            if places:
                readings = [engines[engine].reading(place, codes[engine]) for engine, place in places]
                parts.append(placed.write(*readings))
            else:
                parts.append(placed.backfilling)
        parts += [part.write(key_value) for part in self._parts]
        return b"".join(parts)

    def concerned(self, touched: Touched) -> Iterable[str]:
        """The keys whose values may have changed in a step of the fold; called within the step."""
        for engine in self.engines:
            codes = touched.get(engine)
            if codes is not None:
                yield from [engine.key_of(code) for code in codes.tolist()]
        for part in self._parts:
            yield from part.concerned(touched)

    @property
    def has_parts(self) -> bool:
        """Whether something comes from elsewhere than the engines."""
        return bool(self._parts)

    def changed_since(self, position: int, as_of_us: int) -> Iterable[str]:
        """The keys whose values may have changed since the projection had this position and instant."""
        for engine in self.engines:
            yield from [engine.key_of(code) for code in engine.changed_since(position, as_of_us).tolist()]
        for part in self._parts:
            yield from part.changed_since(position, as_of_us)

    def profile(self, key_value: str, position: int, as_of: bytes) -> bytes:
        """The Profile message of a key; `as_of` comes from `as_of_field`."""
        return self.profile_of(key_value, self.values(key_value), position, as_of)

    def profile_of(self, key_value: str, values: bytes, position: int, as_of: bytes) -> bytes:
        """The same from values that were read before."""
        return wire.profile(self._key, key_value, values, position, as_of)


_NOTHING = Reading(None, KernelStatus.NEVER_SEEN, None)


class ProfileReader:
    """Reads profiles of one project; remembers what selections mean."""

    def __init__(self, catalog: Catalog, cache_size: int = 256, memberships: Memberships | None = None) -> None:
        """Without `memberships` there are no segments."""
        self._catalog = catalog
        self._memberships = memberships
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
            found = self._compile(selection(), attribute_key, projection)
            self._compiled[key, attribute_key] = found
        return found

    def _compile(self, selection: Selection, attribute_key: str, projection: Projection | None) -> CompiledSelection:
        chosen = choose(self._catalog, selection, attribute_key)
        own_key = key_of_selection(self._catalog, chosen, attribute_key)
        if not selection.names_more:
            return CompiledSelection(chosen, own_key, projection)
        more = choose_more(self._catalog, selection, own_key)
        parts: list[Part] = []
        if more.rollups:
            parts.append(RollupPart(self._catalog, more.rollups, projection, wire.cached_last_event_field()))
        if more.segments and self._memberships is not None:
            parts.append(SegmentPart(self._memberships, own_key))
        return CompiledSelection(chosen, own_key, projection, more.properties, parts)


def value_writer(
    attribute: Attribute, last_event: LastEvent = wire.last_event_field, group: str = ""
) -> wire.AttributeWriter:
    """Writes values of an attribute as entries of `Profile.values`, with the name of its group unless that is empty."""
    assert attribute.type is not None, "validated before"
    return wire.AttributeWriter(attribute.name, attribute.type, last_event, group=group)


def reading_writer(attribute: Attribute, last_event: LastEvent, group: str = "") -> Callable[[Reading], bytes]:
    """The hot path: from a reading of the kernel to bytes; the same as `values.answer` and then the writer."""
    write = value_writer(attribute, last_event, group).write
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


def _group_shown(chosen: Chosen) -> str:
    return chosen.group.name if chosen.shows_group else ""


def as_of_field(as_of_us: int) -> bytes:
    """The field `as_of_time` of a Profile; nothing while the clock of the log has not begun."""
    if as_of_us == MIN_US:
        return b""
    return wire.delimited(5, wire.timestamp(as_of_us))
