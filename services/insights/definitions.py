"""What an insight is as people define it."""

import hashlib
import re
from dataclasses import dataclass

from services.insights.language.tree import Dialect

PREFIX = "insights/"
_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Insight:
    """An INFER query of a project, in its present version."""

    insight_id: str
    query: str
    dialect: Dialect
    active: bool
    version: int
    """1 when created, one more with each other query or dialect."""
    description: str
    create_time_us: int
    update_time_us: int

    @property
    def name(self) -> str:
        """Its resource name."""
        return PREFIX + self.insight_id

    @property
    def etag(self) -> str:
        """Changes with each change."""
        text = f"{self.version}|{self.active}|{self.description}|{self.update_time_us}|{self.query}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_name(name: str) -> str | None:
    """The id in `insights/{insight}`, or None."""
    insight_id = name.removeprefix(PREFIX)
    return insight_id if name.startswith(PREFIX) and _ID.fullmatch(insight_id) else None


def is_id(text: str) -> bool:
    """Whether it can be an insight's id."""
    return _ID.fullmatch(text) is not None
