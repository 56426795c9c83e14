"""What rules ask for, as values: nothing is done here."""

import hashlib
import json
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from services.insights.rules.definitions import Constant


class Effect(StrEnum):
    """What is to be done."""

    FIRE_EVENT = "fire_event"
    SET_PROPERTY = "set_property"
    UNSET_PROPERTY = "unset_property"
    WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do for one user."""

    at_us: int
    """When it came true: the time of the event that made it so, or, when only a late event or a correction told, the
    instant at which that was known."""
    decided_us: int
    """The instant of the decision; it never goes back from one action to the next."""
    rule_id: str
    version: int
    user: str
    effect: Effect
    name: str
    """Of the event or property; a webhook's URL."""
    value: Constant | None
    """Of a property that is set."""
    count: int
    sum: Decimal | None
    """None when the rule has no condition on a sum."""
    ordinal: int
    """The user's n-th edge of this rule, or the property's n-th change by it."""
    event_id: str
    """The event that caused it; empty when it went."""

    @property
    def action_id(self) -> str:
        """The same for the same cause, in any run: whoever did it once need not do it again."""
        cause = json.dumps([self.rule_id, self.version, self.user])
        digest = hashlib.blake2b(cause.encode(), digest_size=16).hexdigest()
        kind = "p" if self.effect in (Effect.SET_PROPERTY, Effect.UNSET_PROPERTY) else "e"
        return f"rule:{digest}:{kind}{self.ordinal:09d}"


@dataclass(frozen=True, slots=True)
class RuleResult:
    """What a rule says of a user now."""

    rule_id: str
    version: int
    user: str
    holds: bool
    """Whether the condition holds after the user's last counted event; of a rule with reset it never does."""
    since_us: int
    """The time of the event since which it is so."""
    count: int
    sum: Decimal | None
    edges: int
    """How often the condition became true."""
    name: str
    """The compatible name."""
    is_set: bool
    """Whether the property is set by this rule."""
    final: bool
    """Whether the rule's period is over: only late events and corrections can change it."""
    complete_since_us: int | None = None
    """Events before this time were trimmed from the log when the rule was filled; None: nothing is lacking."""


@dataclass(frozen=True, slots=True)
class RuleStatistics:
    """What a rule has done."""

    users: int = 0
    """Who have a counted event."""
    holding: int = 0
    """Of them, those for whom the condition holds."""
    events: int = 0
    """Counted and held."""
    actions: int = 0
    """Asked for since the rule began."""
    past_edges: int = 0
    """Edges too long ago to act on."""
    rejected: int = 0
    """Events whose metric was no number, or nobody said which of several it is."""
    complete_since_us: int | None = None
    """Events before this time were trimmed from the log when the rule was filled; None: nothing is lacking."""
