"""What rules mean, the slow and obvious way: everything is computed anew at every moment."""

from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from services.insights.rules.actions import Effect
from services.insights.rules.dates import bounds
from services.insights.rules.definitions import ActionKind, Condition, Operator, Rule
from services.kernel.building import EventRow
from services.kernel.columns import ADD, DELETE, REPLACE


@dataclass
class Life:
    """What one rule said to one user so far."""

    done: int = 0
    shown: bool = False
    is_set: bool = False
    moves: int = 0


@dataclass
class Folded:
    """What a list of events comes to."""

    count: int = 0
    sum: Fraction = Fraction(0)
    met: bool = False
    edges: list[tuple[EventRow, int, Fraction]] = field(default_factory=list)


def number_of(event: EventRow, metric: str) -> Fraction | None:
    """A metric's exact value, None when it is no number."""
    if metric:
        value = event.properties.get(metric, 0)
        numbers = [value]
    else:
        numbers = [v for v in event.properties.values() if isinstance(v, int | float) and not isinstance(v, bool)] or [
            0
        ]
    if len(numbers) != 1 or isinstance(numbers[0], bool) or not isinstance(numbers[0], int | float):
        return None
    return Fraction(str(numbers[0]))


def counts(rule: Rule, event: EventRow) -> bool:
    """Whether a rule counts an event."""
    if event.name != rule.event_name or event.vendor == "inkling" or not event.keys.get(rule.user_key):
        return False
    if rule.attribute is not None:
        have = event.properties.get(rule.attribute.name)
        if not any(type(have) is type(value) and have == value for value in rule.attribute.values):
            return False
    start_us, end_us = bounds(rule.period)
    if start_us is not None and event.occurred_at_us < start_us:
        return False
    if end_us is not None and event.occurred_at_us >= end_us:
        return False
    return rule.sum is None or number_of(event, rule.sum.metric) is not None


def fold(rule: Rule, events: list[EventRow]) -> Folded:
    """The events of one user, in the order of their own time."""
    state, reached = Folded(), {"count": 0, "sum": 0}

    def holds(name: str, condition: Condition | None, total: Fraction) -> bool:
        if condition is None or condition.target is None:
            return True
        target = Fraction(condition.target)
        if condition.operator is Operator.EVERY:
            multiple = int(total / target)
            new = multiple > reached[name]
            reached[name] = max(multiple, reached[name])
            return new
        return {
            Operator.EQUAL: total == target,
            Operator.GREATER: total > target,
            Operator.GREATER_OR_EQUAL: total >= target,
            Operator.LESS: total < target,
            Operator.LESS_OR_EQUAL: total <= target,
        }[condition.operator]  # type: ignore[index]

    conditions = [rule.count, rule.sum.condition if rule.sum else None]
    pulse = any(each and each.operator is Operator.EVERY for each in conditions)
    for event in sorted(events, key=lambda each: (each.occurred_at_us, each.event_id)):
        before = state.met
        state.count += 1
        if rule.sum is not None:
            state.sum += number_of(event, rule.sum.metric) or 0
        both = [holds("count", conditions[0], Fraction(state.count)), holds("sum", conditions[1], state.sum)]
        state.met = all(both)
        if state.met and (pulse or not before):
            state.edges.append((event, state.count, state.sum))
            if rule.reset:
                state.count, state.sum, state.met = 0, Fraction(0), False
                reached.update(count=0, sum=0)
    return state


Told = tuple[str, str, Effect, int, int, Fraction | None, int]
"""Rule, user, effect, at, count, sum, ordinal."""


class Reference:
    """Applies a log record by record."""

    def __init__(self, rules: list[Rule]) -> None:
        self.rules = rules
        self.known: dict[str, EventRow] = {}
        self.visible: set[str] = set()
        self.lives: dict[tuple[str, str], Life] = {}
        self.told: list[Told] = []
        self.t_us = -(2**62)

    def apply(self, record: EventRow, t_us: int) -> None:
        """One effective record."""
        self.advance(t_us)
        if record.operation in (REPLACE, DELETE):
            self._change(record, None)
        if record.operation in (ADD, REPLACE):
            self.known[record.event_id] = record
            if record.occurred_at_us < self.t_us:
                self._change(record, record)

    def advance(self, t_us: int) -> None:
        """Lets time pass."""
        coming = [e for id_, e in self.known.items() if id_ not in self.visible and e.occurred_at_us < t_us]
        for event in sorted(coming, key=lambda each: (each.occurred_at_us, each.event_id)):
            self.t_us = max(self.t_us, event.occurred_at_us + 1)
            self._change(event, event)
        self.t_us = max(self.t_us, t_us)

    def _change(self, record: EventRow, comes: EventRow | None) -> None:
        before = {key: self.events(*key) for key in self._pairs()}
        if comes is None:
            self.known.pop(record.event_id, None)
            self.visible.discard(record.event_id)
        else:
            self.visible.add(record.event_id)
        for rule in self.rules:
            for user in sorted({user for _, user in self._pairs()} | {user for _, user in before}):
                was, now = before.get((rule.rule_id, user), []), self.events(rule.rule_id, user)
                if was != now:
                    last = comes if comes is not None and now[-1] == comes else None
                    self._decide(rule, user, now, last)

    def _pairs(self) -> list[tuple[str, str]]:
        users = {
            event.keys[r.user_key] for event in self.known.values() for r in self.rules if r.user_key in event.keys
        }
        return [(rule.rule_id, user) for rule in self.rules for user in sorted(users)]

    def events(self, rule_id: str, user: str) -> list[EventRow]:
        """The events that a rule counts for a user now."""
        rule = next(each for each in self.rules if each.rule_id == rule_id)
        found = [self.known[i] for i in self.visible]
        found = [e for e in found if counts(rule, e) and e.keys[rule.user_key] == user]
        return sorted(found, key=lambda event: (event.occurred_at_us, event.event_id))

    def _decide(self, rule: Rule, user: str, events: list[EventRow], last: EventRow | None) -> None:
        state = fold(rule, events)
        life = self.lives.setdefault((rule.rule_id, user), Life())
        total = state.sum if rule.sum else None
        if rule.action.kind is not ActionKind.SET_PROPERTY:
            for ordinal, (event, count, edge_sum) in enumerate(state.edges, 1):
                if ordinal > life.done:
                    age = self.t_us - 1 - event.occurred_at_us
                    if rule.allow_late_fire or age <= rule.allowed_lateness_us:
                        fired = edge_sum if rule.sum else None
                        effect = Effect(rule.action.kind.value)
                        at_us = event.occurred_at_us
                        self.told.append((rule.rule_id, user, effect, at_us, count, fired, ordinal))
        life.done = max(life.done, len(state.edges))
        if rule.action.kind is not ActionKind.SET_PROPERTY:
            return
        holds = bool(state.edges) if rule.reset else state.met
        at_us = last.occurred_at_us if last else self.t_us - 1
        if holds and not life.shown and not life.is_set:
            life.is_set, life.moves = True, life.moves + 1
            self.told.append((rule.rule_id, user, Effect.SET_PROPERTY, at_us, state.count, total, life.moves))
        elif not holds and life.shown and life.is_set and not rule.sticky:
            life.is_set = False
            others = [each for each in self.rules if each is not rule and each.action_name == rule.action_name]
            if not any(
                self.lives.get((o.rule_id, user), Life()).is_set and o.user_key == rule.user_key for o in others
            ):
                life.moves += 1
                self.told.append((rule.rule_id, user, Effect.UNSET_PROPERTY, at_us, state.count, total, life.moves))
        life.shown = holds


def as_fraction(number: Decimal | None) -> Fraction | None:
    """A decimal, exactly."""
    return None if number is None else Fraction(number)
