"""What a training set is: keys, moments, features, goal, sampling. Frozen values; times and spans are microseconds."""

from dataclasses import dataclass, field
from enum import StrEnum

from services.features.definitions import Criteria, EventSelector, Property

SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class AllKeys:
    """Every value of the attribute key that has an event."""


@dataclass(frozen=True, slots=True)
class SegmentKeys:
    """The members of a segment; `input_id` names the table that they were pinned in."""

    segment: str
    input_id: str = ""


@dataclass(frozen=True, slots=True)
class ListedKeys:
    """These."""

    values: tuple[str, ...]


Keys = AllKeys | SegmentKeys | ListedKeys


@dataclass(frozen=True, slots=True)
class SinceCreation:
    """A row for each span after the key's creation: events up to and with it count; at 0 none does."""

    spans_us: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Percentiles:
    """The spans since creation by which so many percent (above 0, to 100) of the converted keys had converted."""

    percents: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Latest:
    """One row a key at the instant up to which things are known: what serving says then."""


@dataclass(frozen=True, slots=True)
class Instants:
    """A row for each instant and key that exists then: events before the instant count."""

    instants_us: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SuppliedRows:
    """A row for each row of an uploaded table, of its key and instant: events before the instant count."""

    input_id: str


Moments = SinceCreation | Percentiles | Latest | Instants | SuppliedRows


@dataclass(frozen=True, slots=True)
class EventGoal:
    """So many events of these types that meet the criteria. Without types, any event: that is an expression."""

    events: tuple[EventSelector, ...] = ()
    criteria: Criteria | None = None
    times: int = 1


@dataclass(frozen=True, slots=True)
class SumGoal:
    """The sum of a number over such events reaches an amount."""

    property: Property
    at_least: float
    events: tuple[EventSelector, ...] = ()
    criteria: Criteria | None = None


@dataclass(frozen=True, slots=True)
class ReturnGoal:
    """Back after a span: such an event that long, or longer, after the creation (KEEP: after the moment)."""

    after_us: int
    events: tuple[EventSelector, ...] = ()
    criteria: Criteria | None = None


@dataclass(frozen=True, slots=True)
class InsightGoal:
    """An insight applies."""

    insight: str


Achievement = EventGoal | SumGoal | ReturnGoal | InsightGoal


class Converted(StrEnum):
    """What becomes of a key that reached the goal at or before the moment."""

    LEAVE_OUT = "leave_out"
    """Its row is left out, and the goal counts from the key's creation."""
    KEEP = "keep"
    """Its row stays, and the goal counts what happens within the label window alone."""


@dataclass(frozen=True, slots=True)
class Goal:
    """The label: whether the goal is reached after the moment, within the label window."""

    achievement: Achievement
    converted: Converted = Converted.LEAVE_OUT
    label_window_us: int | None = None
    """After a moment m the label looks at (m, m + window]; None: at all that is known after m."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which of the rows to take. The same seed takes the same, whatever else is in the data."""

    seed: int = 0
    fraction: float = 1.0
    """Of the keys, with all their rows."""
    max_rows: int | None = None
    fraction_true: float = 1.0
    """Of the rows whose goal is true; and the same for false, and for unknown."""
    fraction_false: float = 1.0
    fraction_unknown: float = 1.0

    @property
    def by_class(self) -> bool:
        """Whether rows are taken by their goal."""
        return (self.fraction_true, self.fraction_false, self.fraction_unknown) != (1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Features:
    """What to compute: a feature service, or groups, or single attributes; declared properties, roll-ups."""

    feature_service: str = ""
    groups: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    rollups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """A training set as it is asked for; when pinned, all that makes its bytes."""

    moments: Moments
    features: Features = field(default_factory=Features)
    keys: Keys = field(default_factory=AllKeys)
    goal: Goal | None = None
    sampling: Sampling = field(default_factory=Sampling)
    attribute_key: str = ""
    """By default that of the features."""
    creation_property: str = ""
    """A declared property of type date that holds when a key was created; by default that is its first event."""
    up_to_position: int = 0
    """Records of the log up to here count; 0: all that are archived now."""
    as_of_us: int | None = None
    """The instant up to which, inclusive, things are known; None: now, by the project's clock."""
    partitions: int = 0
    """How many parts to compute, from 1 to 64; 0: as many as the archive's size asks for."""
