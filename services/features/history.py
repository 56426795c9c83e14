"""What a question about listed or past profiles means: which values, and which instants."""

from dataclasses import dataclass

from services.features import wire
from services.features.definitions import IDENTIFIER
from services.features.past import Past
from services.features.profile_parts import Part, RollupPart
from services.features.profiles import CompiledSelection, ProfileReader
from services.features.project import Project
from services.features.projection import Projection
from services.features.selections import Selection, choose, choose_more, key_of_selection
from services.kernel.aggregations import Aggregation
from services.runtime.errors import FailedPrecondition, InvalidArgument, NotFound, Violation

_PROPERTIES = "properties."
MAX_INSTANTS = 1_000
MAX_VALUES = 200_000
"""Of one answer: instants times attributes."""
FIRST_US, LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The instants that a Timestamp can say."""


@dataclass(frozen=True, slots=True)
class Explainable:
    """One value that can be explained."""

    attribute_key: str
    aggregations: tuple[Aggregation, ...]
    """The first computes the value; the others tell more of it."""
    compiled: CompiledSelection
    """It alone, against a past."""
    past: Past


def compiled_now(
    project: Project, selection: Selection | None, attribute_key: str, projection: Projection
) -> CompiledSelection:
    """What a selection means now; without a selection nothing but keys is read."""
    if selection is None:
        if not IDENTIFIER.fullmatch(attribute_key):
            text = "is needed when nothing is selected, such as user_id"
            raise InvalidArgument(
                f"attribute_key {text}",
                reason="BAD_SELECTION",
                violations=(Violation("attribute_key", text, "BAD_SELECTION"),),
            )
        return CompiledSelection([], attribute_key, projection)
    return ProfileReader(project.catalog).compiled(b"", attribute_key, projection, lambda: selection)


def compiled_then(
    project: Project, selection: Selection, attribute_key: str, past: Past, *, rollups: bool = True
) -> CompiledSelection:
    """What a selection means in the past: attributes, properties, and roll-ups unless these are not wanted.

    Segments are left out: who was in one then is in its journal.
    """
    chosen = choose(project.catalog, selection, attribute_key)
    own_key = key_of_selection(project.catalog, chosen, attribute_key)
    more = choose_more(project.catalog, selection, own_key)
    parts: list[Part] = []
    if rollups and more.rollups:
        last_event = wire.cached_last_event_field()
        parts.append(RollupPart(project.catalog, more.rollups, past.as_projection(), last_event))
    compiled = CompiledSelection(chosen, own_key, past.as_projection(), more.properties, parts)
    # Nothing is remembered: each pair is read once.
    compiled.moving = True
    return compiled


def explainable(project: Project, value: str, attribute_key: str) -> Explainable:
    """The value of a name: {group}:{attribute}, {group}/{version}:{attribute} or properties.{property}."""
    past = Past()
    if value.startswith(_PROPERTIES):
        selection = Selection(properties=(value.removeprefix(_PROPERTIES),))
    else:
        selection = Selection(attributes=(value,))
    compiled = compiled_then(project, selection, attribute_key, past)
    engine = past.engines.get(compiled.attribute_key)
    if engine is None:
        if compiled.attributes and choose(project.catalog, selection)[0].group.attribute_key != attribute_key:
            raise NotFound(f"the value is not one of {attribute_key}", reason="NOT_FOUND")
        raise FailedPrecondition("the value is still being computed: try again", reason="NOT_EXPLAINABLE")
    return Explainable(compiled.attribute_key, tuple(engine.aggregations), compiled, past)


def steps(start_us: int, end_us: int, step_us: int) -> list[int]:
    """The instants from a start up to an end at most; raises InvalidArgument."""
    if step_us <= 0:
        raise out_of_range("step", "must be more than nothing")
    if end_us < start_us:
        raise out_of_range("end_time", "is before start_time")
    if (end_us - start_us) // step_us >= MAX_INSTANTS:
        raise out_of_range("step", f"makes more than {MAX_INSTANTS} instants: take longer steps")
    return list(range(start_us, end_us + 1, step_us))


def check_instants(instants: list[int]) -> None:
    """Raises InvalidArgument for none, for too many, and for what no calendar has."""
    if not 1 <= len(instants) <= MAX_INSTANTS:
        raise out_of_range("as_of_times", f"must be 1 to {MAX_INSTANTS}: or give start_time, end_time and step")
    for i, instant in enumerate(instants):
        if not FIRST_US <= instant <= LAST_US:
            raise out_of_range(f"as_of_times[{i}]", "must be in the years 1 to 9999")


def out_of_range(field: str, description: str) -> InvalidArgument:
    """A number, or a count, that may not be."""
    return InvalidArgument(
        f"{field} {description}", reason="OUT_OF_RANGE", violations=(Violation(field, description, "OUT_OF_RANGE"),)
    )
