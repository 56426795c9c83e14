"""Properties: what other systems know about a key. Each write is a record of the log; here is what a declaration says,
and the aggregations that give its value and its source from those records.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from services.features.definitions import IDENTIFIER, Problem, suggestion
from services.kernel.aggregations import Aggregation, Function, TermType
from services.kernel.columns import RESERVED_VENDOR
from services.kernel.expressions import AllOf, AnyOf, Compare, EventTypeIs, Expression
from services.kernel.expressions import Property as Place

PROPERTY_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")
EVENT_NAME, EVENT_VERSION = "set_properties", "1-0-0"
MAX_PROPERTIES = 500
"""Of one attribute key."""
MAX_TEXT = 1_024
"""Characters of a description or source."""


class PropertyType(StrEnum):
    """The type of a property's values."""

    BOOLEAN = "boolean"
    NUMERIC = "numeric"
    STRING = "string"
    DATE = "date"
    ARRAY = "array"
    RECORD = "record"


class Visibility(StrEnum):
    """Who sees a property."""

    VISIBLE = "visible"
    HIDDEN = "hidden"
    """Read only when named."""


class Merge(StrEnum):
    """What several writes mean together."""

    FIRST = "first"
    MOST_RECENT = "most_recent"
    MAX = "max"
    SUM = "sum"


TERM_TYPES = {
    PropertyType.BOOLEAN: TermType.BOOLEAN,
    PropertyType.NUMERIC: TermType.NUMBER,
    PropertyType.STRING: TermType.STRING,
    PropertyType.DATE: TermType.TIMESTAMP,
    # As canonical JSON.
    PropertyType.ARRAY: TermType.STRING,
    PropertyType.RECORD: TermType.STRING,
}
FUNCTIONS = {
    Merge.FIRST: Function.FIRST,
    Merge.MOST_RECENT: Function.LATEST,
    Merge.MAX: Function.MAX,
    Merge.SUM: Function.SUM,
}


@dataclass(frozen=True, slots=True)
class PropertyDefinition:
    """The declaration of a property of one attribute key."""

    attribute_key: str
    property_id: str
    type: PropertyType | None
    description: str = ""
    source: str = ""
    visibility: Visibility = Visibility.VISIBLE
    merge: Merge = Merge.MOST_RECENT
    refers_to: str = ""
    """The attribute key of the profile that a value names; empty when it is no reference."""

    @property
    def name(self) -> str:
        """The resource name."""
        return property_name(self.attribute_key, self.property_id)


def property_name(attribute_key: str, property_id: str) -> str:
    """attributeKeys/{attribute_key}/properties/{property}"""
    return f"attributeKeys/{attribute_key}/properties/{property_id}"


def parse_property_name(name: str) -> tuple[str, str] | None:
    """Attribute key and id of a resource name, or None when it is not one."""
    match = re.fullmatch(rf"attributeKeys/({IDENTIFIER.pattern})/properties/({PROPERTY_ID.pattern})", name)
    return (match[1], match[2]) if match else None


def compile_property(definition: PropertyDefinition) -> Aggregation:
    """The aggregation that computes a valid property's value."""
    assert definition.type is not None, "validated before"
    return Aggregation(
        FUNCTIONS[definition.merge],
        _writes_of(definition),
        Place("atomic", definition.property_id),
        TERM_TYPES[definition.type],
    )


def compile_source(definition: PropertyDefinition) -> Aggregation:
    """The aggregation that tells who set it."""
    function = Function.FIRST if definition.merge is Merge.FIRST else Function.LATEST
    return Aggregation(function, _writes_of(definition), _data("source"), TermType.STRING)


def aggregations_of(definition: PropertyDefinition) -> tuple[Aggregation, ...]:
    """Value and source; where the first write counts also how long ago the first and the newest write were."""
    both = compile_property(definition), compile_source(definition)
    if definition.merge is not Merge.FIRST:
        return both
    writes = _writes_of(definition)
    return *both, Aggregation(Function.TIME_SINCE_FIRST, writes), Aggregation(Function.TIME_SINCE_LAST, writes)


def event_time_us(newest_us: int | None, *since_seconds: float | None) -> int | None:
    """When the write was that a value is of: the newest, which was at `newest_us`, unless seconds are given since the
    first and since the newest write, as `aggregations_of` has them: then the first.

    Those seconds count from one instant, whichever; their difference does not depend on it.
    """
    if newest_us is None or len(since_seconds) < 2:
        return newest_us
    since_first, since_newest = (round((each or 0.0) * 1e6) for each in since_seconds)
    return newest_us - since_first + since_newest


def _writes_of(definition: PropertyDefinition) -> Expression:
    """The records that set or unset it."""
    is_set: Expression = Compare(Place("atomic", definition.property_id), "is_not_null")
    if definition.merge is Merge.MOST_RECENT:
        is_set = AnyOf((is_set, Compare(_data(f"unset.{definition.property_id}"), "is_not_null")))
    return AllOf((EventTypeIs(RESERVED_VENDOR, EVENT_NAME, EVENT_VERSION), is_set))


def _data(path: str) -> Place:
    return Place("event", path, RESERVED_VENDOR, EVENT_NAME, 1)


def check_property(definition: PropertyDefinition) -> list[Problem]:
    """The mistakes of a declaration by itself."""
    problems = []
    if not IDENTIFIER.fullmatch(definition.attribute_key):
        problems.append(Problem("attribute_key", "is not of the form [a-z][a-z0-9_]{0,63}", "such as user_id"))
    if not PROPERTY_ID.fullmatch(definition.property_id):
        problems.append(
            Problem("property_id", "is not of the form [A-Za-z_][A-Za-z0-9_.-]{0,127}", "such as lifetime_value")
        )
    kind, merge = definition.type, definition.merge
    if kind is None:
        problems.append(Problem("property.type", "is missing", suggestion("", PropertyType)))
    elif merge is Merge.SUM and kind is not PropertyType.NUMERIC:
        problems.append(Problem("property.merge_strategy", f"a sum of {kind} values means nothing", "use numeric"))
    elif merge is Merge.MAX and kind not in (PropertyType.NUMERIC, PropertyType.DATE):
        problems.append(
            Problem("property.merge_strategy", f"{kind} values have no greatest one", "use numeric or date")
        )
    if definition.refers_to:
        problems += _check_reference(definition)
    for field in ("description", "source"):
        if len(getattr(definition, field)) > MAX_TEXT:
            problems.append(Problem(f"property.{field}", f"is longer than {MAX_TEXT:,} characters", "say less"))
    return problems


def _check_reference(definition: PropertyDefinition) -> Iterable[Problem]:
    place = "property.refers_to"
    if not IDENTIFIER.fullmatch(definition.refers_to):
        yield Problem(place, "is not an attribute key", "such as account_id")
    elif definition.refers_to == definition.attribute_key:
        yield Problem(place, "is the property's own attribute key", "a profile refers to one of another key")
    if definition.type is not PropertyType.STRING or definition.merge is not Merge.MOST_RECENT:
        yield Problem(place, "a reference is a string whose most recent value counts", "make it one")
