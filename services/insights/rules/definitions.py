"""What a rule says: which events it counts, when it is met, and what happens then. No protobuf, no SQL.

A rule read from outside may be incomplete or wrong: `validation` names every mistake. Targets are decimals, never
doubles, so that `equal 0.3` is met by 0.1 and 0.2.
"""

import re
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from services.kernel.expressions import Instant
from services.kernel.windows import MIN_US

RULE_ID = re.compile(r"[a-z][a-z0-9_]{0,99}")
READY = "ready"
FIRED_PREFIX = "trk_"
DATED_PREFIX = "trk_date_"
SYSTEM_PREFIXES = (FIRED_PREFIX, "_")
"""Names that the original's own events and Pinpoint's e-mail, SMS and session events begin with."""
DEFAULT_LATENESS_US = 5 * 60 * 1_000_000
DEFAULT_USER_KEY = "user_id"

Constant = str | bool | int | float | Instant


class Operator(StrEnum):
    """How a count or a sum compares with its target."""

    EQUAL = "equal"
    GREATER = "greater"
    GREATER_OR_EQUAL = "greater_or_equal"
    LESS = "less"
    LESS_OR_EQUAL = "less_or_equal"
    EVERY = "every"
    """Met by the event that reaches the next multiple of the target, and not by those between."""


class ActionKind(StrEnum):
    """What a rule does."""

    FIRE_EVENT = "fire_event"
    SET_PROPERTY = "set_property"
    WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison with a target."""

    operator: Operator | None
    target: Decimal | None


@dataclass(frozen=True, slots=True)
class SumCondition:
    """A comparison of the sum of a metric; without a name it is the event's only number."""

    metric: str
    condition: Condition


@dataclass(frozen=True, slots=True)
class AttributeFilter:
    """Events with a property equal to one of the values, each compared as the type that it has."""

    name: str
    values: tuple[Constant, ...]


@dataclass(frozen=True, slots=True)
class Period:
    """From when to when events count: `YYYY-MM-DD` or timestamps, both ends inside; an empty end is open.

    Dates, and timestamps without an offset, are of the zone.
    """

    start: str = ""
    end: str = ""
    zone: str = "UTC"


@dataclass(frozen=True, slots=True)
class RuleAction:
    """What happens: an event is fired, a property set, or a webhook called.

    An empty name stands for the compatible one (`Rule.action_name`); a webhook's name is its URL.
    """

    kind: ActionKind
    name: str = ""
    value: Constant = READY
    """Of the property."""


@dataclass(frozen=True, slots=True)
class QuietHours:
    """Hours of the day in which nobody is disturbed: from `start` to before `end`, `HH:MM`, over midnight too."""

    start: str
    end: str
    zone: str = "UTC"


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds back events that are fired and webhooks; properties are never held back."""

    once_per_user: bool = False
    """Only the user's first."""
    cooldown_us: int = 0
    """So long after one for a user, others are left out."""
    per_hour: int = 0
    """So many of the rule within an hour; others wait. 0: no limit."""
    quiet_hours: QuietHours | None = None
    """Those decided within wait for their end."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One version of a rule. Count and sum both given: both must hold."""

    rule_id: str
    event_name: str
    count: Condition | None = None
    sum: SumCondition | None = None
    event_vendor: str | None = None
    """None: any but the suite's own."""
    event_version: str | None = None
    attribute: AttributeFilter | None = None
    period: Period = field(default_factory=Period)
    action: RuleAction = RuleAction(ActionKind.SET_PROPERTY)
    reset: bool = False
    """Once met, count and sum of this rule and this user begin again at 0."""
    sticky: bool = False
    """The property stays when the condition no longer holds."""
    allow_late_fire: bool = False
    """Events are fired and webhooks called also when they should have been long ago."""
    allowed_lateness_us: int = DEFAULT_LATENESS_US
    """How long ago an edge may be and still fire."""
    count_system_events: bool = False
    """The events of other rules and of the suite may be counted."""
    user_key: str = DEFAULT_USER_KEY
    version: int = 1
    description: str = ""
    limits: Limits = Limits()
    live_from_us: int = MIN_US
    """Up to this instant of the log the rule was not there: what happened then changes values, and is past."""
    act_on_past: bool = False
    """It acts on what happened before it was there."""

    @property
    def has_dates(self) -> bool:
        """Whether only a period counts."""
        return bool(self.period.start or self.period.end)

    @property
    def derived_event(self) -> str:
        """`<event>` or `<event>_<value>`, as the original names what it counts."""
        if self.attribute is None or not self.attribute.values:
            return self.event_name
        return f"{self.event_name}_{text_of(self.attribute.values[0])}"

    @property
    def compatible_name(self) -> str:
        """The name that the original gives to the event that it fires, or to the attribute that it sets."""
        if self.has_dates:
            return DATED_PREFIX + self.derived_event
        if self.action.kind is ActionKind.FIRE_EVENT:
            return FIRED_PREFIX + self.derived_event
        return self.derived_event

    @property
    def action_name(self) -> str:
        """The name of the event or property, or the webhook's URL."""
        return self.action.name or self.compatible_name


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake in a rule: where, what, and what to do."""

    field: str
    description: str
    hint: str = ""

    def __str__(self) -> str:
        """As one text."""
        return f"{self.field}: {self.description}" + (f" ({self.hint})" if self.hint else "")


def text_of(value: Constant) -> str:
    """A constant as it is written in a name."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value.us) if isinstance(value, Instant) else str(value)


def plain(number: Decimal) -> int | float:
    """A decimal as JSON has it: whole numbers as integers, others correctly rounded."""
    return int(number) if number == number.to_integral_value() else float(number)
