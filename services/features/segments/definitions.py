"""What people define: a named condition on the profiles of one attribute key."""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from services.features.definitions import IDENTIFIER
from services.features.segments.language import Mistake
from services.runtime.errors import InvalidArgument, Violation

MAX_SEGMENTS = 500
"""Of one project."""
MAX_DESCRIPTION = 4_000
MAX_OWNER = 256


@dataclass(frozen=True, slots=True)
class SegmentDefinition:
    """A stored segment."""

    segment_id: str
    attribute_key: str
    condition: str
    description: str = ""
    owner: str = ""
    uid: str = ""
    """Distinguishes it from others that had its id before, and from itself before its membership was lost."""
    evaluated: bool = False
    """Whether its first members were found and kept: changes are journaled from then on."""
    create_time_us: int = 0
    update_time_us: int = 0

    @property
    def name(self) -> str:
        """The resource name."""
        return f"segments/{self.segment_id}"

    @property
    def etag(self) -> str:
        """Changes with each change that people make."""
        content = f"{self.uid}\n{self.update_time_us}\n{self.attribute_key}\n{self.condition}\n{self.description}"
        return hashlib.sha256(f"{content}\n{self.owner}".encode()).hexdigest()[:16]

    @property
    def stream(self) -> str:
        """Its stream in the journal of changes."""
        return f"{self.name}@{self.uid}"


def new_uid() -> str:
    """A uid that no other segment has."""
    return secrets.token_hex(8)


def parse_segment_name(name: str, field: str = "name") -> str:
    """The id in `segments/{segment}`; raises InvalidArgument."""
    match = re.fullmatch(rf"segments/({IDENTIFIER.pattern})", name)
    if match is None:
        text = "is not a name of the form segments/{segment}"
        raise InvalidArgument(f"{field} {text}", reason="BAD_NAME", violations=(Violation(field, text, "BAD_NAME"),))
    return match[1]


def refuse_mistakes(mistakes: Sequence[Mistake], field: str) -> None:
    """Raises InvalidArgument with all mistakes of a condition, if there are any."""
    if mistakes:
        count = f"{len(mistakes)} mistakes; the first" if len(mistakes) > 1 else "a mistake"
        raise InvalidArgument(
            f"the condition has {count}: {mistakes[0]}",
            reason="BAD_DEFINITION",
            violations=[Violation(field, str(each), "BAD_DEFINITION") for each in mistakes],
        )


def check_texts(definition: SegmentDefinition) -> list[Violation]:
    """The mistakes of a definition besides its condition."""
    found = []
    if not IDENTIFIER.fullmatch(definition.segment_id):
        found.append(
            Violation("segment_id", "is not of the form [a-z][a-z0-9_]{0,63}: such as big_spenders", "BAD_NAME")
        )
    if not IDENTIFIER.fullmatch(definition.attribute_key):
        text = "is not an attribute key: give one, such as user_id"
        found.append(Violation("segment.attribute_key", text, "BAD_DEFINITION"))
    for field, text, most in (
        ("description", definition.description, MAX_DESCRIPTION),
        ("owner", definition.owner, MAX_OWNER),
    ):
        if len(text) > most:
            found.append(Violation(f"segment.{field}", f"is longer than {most:,} characters", "BAD_DEFINITION"))
    return found
