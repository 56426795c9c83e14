"""Says everything that is wrong with a definition at once: where, what, and what to do about it."""

from collections import Counter
from collections.abc import Iterator

from services.features.definitions import (
    IDENTIFIER,
    AtomicProperty,
    Attribute,
    AttributeGroup,
    EntityProperty,
    EventSelector,
    FeatureService,
    Problem,
    Property,
)
from services.features.durations import DAY_US, MAX_DURATION_US
from services.features.validation_criteria import check_criteria
from services.features.validation_types import check_types
from services.kernel.aggregations import OF_SIGNALS, WITHOUT_TERM, Function

MAX_ATTRIBUTES = 500
MAX_GROUPS = 50
MAX_EVENTS = 100
MAX_TEXT = 4_096
MAX_NAME = 256
MAX_VERSION = 999_999_999
MAX_INSTANT_US = 9_214_646_400 * 1_000_000  # 2262: where log times end
LIMITED = (Function.UNIQUE_LIST, Function.CATEGORY_COUNT)


def check_group(group: AttributeGroup) -> list[Problem]:
    """The mistakes of a group; empty when it may be published."""
    problems = list(_check_names(group.group_id, group.owner, group.description))
    if not 1 <= group.version <= MAX_VERSION:
        problems.append(Problem("version", f"must be from 1 to {MAX_VERSION}"))
    if not IDENTIFIER.fullmatch(group.attribute_key):
        problems.append(Problem("attribute_key", _bad_name(group.attribute_key), "such as user_id"))
    if not 1 <= len(group.attributes) <= MAX_ATTRIBUTES:
        problems.append(Problem("attributes", f"must be 1 to {MAX_ATTRIBUTES}, not {len(group.attributes)}"))
    counts = Counter(attribute.name for attribute in group.attributes)
    for i, attribute in enumerate(group.attributes[:MAX_ATTRIBUTES]):
        path = f"attributes[{i}]"
        if counts[attribute.name] > 1 and attribute.name:
            problems.append(Problem(f"{path}.name", f"`{attribute.name}` is used twice", "names differ in a group"))
        problems.extend(check_attribute(attribute, path))
    return problems


def check_service(service: FeatureService) -> list[Problem]:
    """The mistakes of a service that can be seen without looking at its groups."""
    problems = list(_check_names(service.service_id, service.owner, service.description))
    if not 1 <= len(service.groups) <= MAX_GROUPS:
        hint = "name at least one group" if not service.groups else ""
        problems.append(
            Problem("attribute_groups", f"must be 1 to {MAX_GROUPS} groups, not {len(service.groups)}", hint)
        )
    counts = Counter(reference.group_id for reference in service.groups)
    for i, reference in enumerate(service.groups):
        path = f"attribute_groups[{i}]"
        if not IDENTIFIER.fullmatch(reference.group_id) or not 0 <= reference.version <= MAX_VERSION:
            problems.append(Problem(path, f"{reference.name!r} is not a group", "attributeGroups/{group}/versions/{n}"))
        elif counts[reference.group_id] > 1:
            problems.append(Problem(path, f"`{reference.group_id}` is named twice", "name one version of it"))
    return problems


def check_attribute(attribute: Attribute, path: str) -> Iterator[Problem]:
    """The mistakes of one attribute; `path` is where it stands."""
    if not IDENTIFIER.fullmatch(attribute.name):
        yield Problem(f"{path}.name", _bad_name(attribute.name))
    if len(attribute.description) > MAX_TEXT:
        yield Problem(f"{path}.description", f"must be at most {MAX_TEXT} characters")
    if not 1 <= len(attribute.events) <= MAX_EVENTS:
        yield Problem(f"{path}.events", f"must be 1 to {MAX_EVENTS} selectors", "say which events it looks at")
    for i, event in enumerate(attribute.events):
        yield from _check_event(event, f"{path}.events[{i}]")
    yield from _check_aggregation(attribute, path)
    yield from check_types(attribute, path)
    if attribute.criteria is not None:
        yield from check_criteria(attribute.criteria, f"{path}.criteria", check_property)
    yield from _check_window(attribute, path)


def check_property(place: Property, path: str) -> Iterator[Problem]:
    """The mistakes of a place in an event."""
    parts = {"name": place.name}
    if not isinstance(place, AtomicProperty):
        parts |= {"vendor": place.vendor, "path": place.path}
        if place.major_version < 1:
            yield Problem(f"{path}.major_version", "must be 1 or more", "1 for the schema version 1-0-0")
    for name, text in parts.items():
        if not text or len(text) > MAX_NAME:
            yield Problem(f"{path}.{name}", f"must have 1 to {MAX_NAME} characters")
    if isinstance(place, EntityProperty) and not 0 <= place.index < 32:
        yield Problem(f"{path}.index", "must be from 0 to 31", "0 is the first entity of the kind")


def _check_names(identifier: str, owner: str, description: str) -> Iterator[Problem]:
    if not IDENTIFIER.fullmatch(identifier):
        yield Problem("name", _bad_name(identifier))
    if len(owner) > MAX_NAME:
        yield Problem("owner", f"must be at most {MAX_NAME} characters")
    if len(description) > MAX_TEXT:
        yield Problem("description", f"must be at most {MAX_TEXT} characters")


def _bad_name(name: str) -> str:
    if not name:
        return "is missing; a name is a lower-case letter, then up to 63 letters, digits and underscores"
    return f"{name[:80]!r} must be a lower-case letter, then up to 63 lower-case letters, digits and underscores"


def _check_event(event: EventSelector, path: str) -> Iterator[Problem]:
    parts = {"vendor": event.vendor, "name": event.name, "version": event.version}
    if all(part is None for part in parts.values()):
        yield Problem(path, "selects nothing", "give at least one of vendor, name and version")
    for name, part in parts.items():
        if part is None:
            continue
        if not part:
            yield Problem(f"{path}.{name}", "is empty", "leave it out to match any")
        elif "/" in part or "%" in part or "*" in part or len(part) > MAX_NAME:
            yield Problem(
                f"{path}.{name}", f"{part[:80]!r} cannot match", "parts are compared whole, without wildcards"
            )


def _check_aggregation(attribute: Attribute, path: str) -> Iterator[Problem]:
    function = attribute.aggregation
    if function is None:
        yield Problem(f"{path}.aggregation", "is missing", "one of " + ", ".join(OF_SIGNALS))
        return
    if function in WITHOUT_TERM and attribute.property is not None:
        yield Problem(f"{path}.property", f"`{function}` looks at events, not at a property", "leave it out")
    if function not in WITHOUT_TERM and attribute.property is None:
        yield Problem(f"{path}.property", f"`{function}` needs a property", "say which property is aggregated")
    if attribute.property is not None:
        yield from check_property(attribute.property, f"{path}.property")
    if attribute.limit < 0:
        yield Problem(f"{path}.limit", "must not be negative", "0 means no limit")
    elif attribute.limit and function not in LIMITED:
        yield Problem(f"{path}.limit", f"`{function}` has no limit", "only unique_list and category_count have one")


def _check_window(attribute: Attribute, path: str) -> Iterator[Problem]:
    windows = {
        "period": attribute.period_us is not None,
        "range": attribute.range is not None,
        "calendar_period": attribute.calendar_period is not None,
    }
    given = [name for name, present in windows.items() if present]
    if len(given) > 1:
        yield Problem(f"{path}.{given[1]}", f"cannot be together with `{given[0]}`", "keep one of them")
    if given and attribute.ttl_us is not None:
        yield Problem(
            f"{path}.ttl", f"cannot be together with `{given[0]}`", "a window forgets by itself: leave the ttl out"
        )
    for name, duration_us in (("period", attribute.period_us), ("ttl", attribute.ttl_us)):
        if duration_us is not None and not 0 < duration_us <= MAX_DURATION_US:
            yield Problem(f"{path}.{name}", f"must be positive and at most {MAX_DURATION_US // DAY_US} days")
    if attribute.range is not None:
        start_us, end_us = attribute.range.start_us, attribute.range.end_us
        if start_us is None and end_us is None:
            yield Problem(f"{path}.range", "has neither start nor end", "leave it out for the whole life")
        elif start_us is not None and end_us is not None and start_us >= end_us:
            yield Problem(f"{path}.range", "ends before it starts", "the end comes after the start, and is not inside")
        for name, end in (("start", start_us), ("end", end_us)):
            if end is not None and not 0 <= end <= MAX_INSTANT_US:
                yield Problem(f"{path}.range.{name}", "must be from the year 1970 to 2261")
    if attribute.calendar_period is not None:
        period = attribute.calendar_period
        parts = (period.years, period.months, period.days)
        if min(parts) < 0 or max(parts) == 0 or period.years > 1_000 or max(parts) > 400_000:
            yield Problem(f"{path}.calendar_period", "must be positive and at most 1,000 years", "such as months: 1")


def describe(problem: Problem) -> str:
    """A problem's description with its hint, as one text."""
    return f"{problem.description}: {problem.hint}" if problem.hint else problem.description
