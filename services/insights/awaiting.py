"""Says what some records changed, once they are applied: to whoever wrote them and waits."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from services.insights.project import Project
from services.insights.watching import Seen, seen_of
from services.runtime.errors import Unavailable

MAX_CHANGES = 10_000
_CHUNK = 1_000


@dataclass(frozen=True, slots=True)
class KeyedChange:
    """A change, with the attribute key of its customer."""

    attribute_key: str
    seen: Seen
    query: str
    """The insight's query now."""


async def changes_since(
    project: Project, first_position: int, customers: Mapping[str, Collection[str]]
) -> list[KeyedChange]:
    """What was journaled for customers (by attribute key) since a position came, in order; at most `MAX_CHANGES`.

    Raises Unavailable when not all that changed could be journaled.
    """
    if not project.told_all:
        raise Unavailable("what changed is not written down yet: try again", reason="NOT_READY")
    held = {key: each for key, each in project.serving().held.items() if customers.get(each.attribute_key)}
    journal, found = project.journal, list[KeyedChange]()
    place = await journal.before_position(project.name, first_position)
    while held and len(found) < MAX_CHANGES:
        page = await journal.read(project.name, list(held), place, _CHUNK)
        for entry in page.entries:
            of = held[entry.change.stream]
            if entry.change.key_value in customers[of.attribute_key]:
                found.append(KeyedChange(of.attribute_key, seen_of(entry.change), of.insight.query))
        place = page.reached
        if page.complete:
            break
    return found[:MAX_CHANGES]
