"""Evaluates a group over events in hand, at one instant: what the document calls testing, and no service is needed."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from services.features.compile import compile_attribute
from services.features.definitions import AttributeGroup, CategoryCounts, EntityProperty
from services.features.durations import format_instant
from services.features.snowplow_json import Coordinates
from services.features.values import Answer, answer
from services.kernel.aggregations import Aggregation, Function
from services.kernel.columns import EventBatch
from services.kernel.engine import Engine
from services.kernel.expressions import Everything, Instant
from services.kernel.fold import Fold


class Evaluated(NamedTuple):
    """One key and its attributes' values, in the order of the group."""

    key_value: str
    answers: tuple[Answer, ...]


def entities_of(group: AttributeGroup) -> set[Coordinates]:
    """The entities that a group looks at."""
    places = [attribute.property for attribute in group.attributes]
    for attribute in group.attributes:
        places += [each.property for each in (attribute.criteria.criteria if attribute.criteria else ())]
    return {Coordinates(e.vendor, e.name, e.major_version) for e in places if isinstance(e, EntityProperty)}


def evaluate(
    group: AttributeGroup, attribute_key: str, batches: Iterable[EventBatch], as_of_us: int
) -> Iterator[Evaluated]:
    """The values of a valid group as of an instant, the window being `[t - period, t)`.

    Gives the keys with an event of any kind before the instant, ordered by key. An id counts once, the first time.
    """
    aggregations = [compile_attribute(attribute) for attribute in group.attributes]
    any_event = Aggregation(Function.COUNTER, Everything())
    engine = Engine(attribute_key, [any_event, *aggregations])
    places = [engine.index_of(aggregation) for aggregation in aggregations]
    fold = Fold("wall")
    fold.attach(engine)
    position = 0
    for batch in batches:
        fold.apply(position + 1, position + batch.num_rows, batch)
        position += batch.num_rows
    fold.advance_exactly(as_of_us)
    for key_value in sorted(engine.keys()):
        readings = engine.read(key_value)
        if readings[0].value is not None:
            answers = (
                answer(attribute, readings[place])
                for attribute, place in zip(group.attributes, places, strict=True)
                if place is not None
            )
            yield Evaluated(key_value, tuple(answers))


def as_json(value: Any) -> Any:
    """A value as JSON has it: instants as ISO 8601, counts as an object, lists as lists."""
    if isinstance(value, Instant):
        return format_instant(value.us)
    if isinstance(value, CategoryCounts):
        return dict(value.entries)
    if isinstance(value, tuple):
        return [as_json(each) for each in value]
    return value
