"""The profiles behind a roll-up: who referred then, with what, and whether it counts."""

from dataclasses import dataclass

from services.features import wire
from services.features.definitions import ValueType
from services.features.explain import Page
from services.features.history import compiled_then
from services.features.past import Past, PastReader, profiles_at
from services.features.past_pairs import Pair
from services.features.profiles import CompiledSelection
from services.features.project import Project
from services.features.rollup_sources import RolledUp, resolve
from services.features.rollups import RollupDefinition
from services.features.selections import Selection, choose_more
from services.features.values import STATUSES, Status
from services.kernel.engine import Reading

PREFIX = "rollups."


@dataclass(frozen=True, slots=True)
class ExplainedMember:
    """One profile that referred to the one with the roll-up."""

    key_value: str
    value: bytes
    """What is rolled up of it, as an entry of `Profile.values`; nothing where profiles are counted."""
    counted: bool
    """Whether it enters: null does not."""


@dataclass(frozen=True, slots=True)
class ExplainedRollup:
    """A roll-up and a page of the profiles behind it, by key value."""

    value: bytes
    """The entry of `Profile.rollups`."""
    position: int
    relevant: int
    counted: int
    members: tuple[ExplainedMember, ...]


@dataclass(frozen=True, slots=True)
class RollupQuestion:
    """A declared roll-up of a project."""

    project: Project
    definition: RollupDefinition

    @classmethod
    def of(cls, project: Project, value: str, attribute_key: str) -> "RollupQuestion":
        """The one of a name, rollups.{rollup}; raises NotFound, InvalidArgument."""
        selection = Selection(rollups=(value.removeprefix(PREFIX),))
        key = compiled_then(project, selection, attribute_key, Past()).attribute_key
        return cls(project, choose_more(project.catalog, selection, key).rollups[0])

    async def answer(self, reader: PastReader, pair: Pair, position: int, known: int, page: Page) -> ExplainedRollup:
        """Recomputes it from the archive; for position and what is known see `PastReader.compute`."""
        pasts: list[Past] = []

        def compiled(past: Past) -> CompiledSelection:
            pasts.append(past)
            selection = Selection(rollups=(self.definition.rollup_id,))
            return compiled_then(self.project, selection, self.definition.attribute_key, past)

        (written,), reached = await profiles_at(reader, self.project.name, compiled, [pair], position, known)
        members = self._members(pasts[0], pair)
        shown = members[page.offset : page.offset + page.size]
        counted = sum(member.counted for member in members)
        return ExplainedRollup(written, reached, len(members), counted, tuple(shown))

    def _members(self, past: Past, pair: Pair) -> list[ExplainedMember]:
        key, _ = self.definition.referring
        source = resolve(self.project.catalog, self.definition)
        found = []
        for index in past.references.of(key):
            place = None if source is None else index.engine.place_of(source.aggregation)
            for code in index.referring(pair.key_value):
                name = index.pairs[code].key_value
                if source is None or place is None:
                    found.append(ExplainedMember(name, b"", not self.definition.attribute))
                else:
                    found.append(self._member(name, source, index.engine.reading(place, code)))
        return sorted(found, key=lambda member: member.key_value)

    def _member(self, key_value: str, source: RolledUp, reading: Reading) -> ExplainedMember:
        value = source.value_of(reading)
        status = STATUSES[reading.status.name]
        if value is None and reading.value is not None:
            status = Status.OUT_OF_RANGE
        kind: ValueType = source.value_type
        written = wire.AttributeWriter(self.definition.attribute, kind).write(value, status, reading.last_event_us)
        return ExplainedMember(key_value, written, value is not None)
