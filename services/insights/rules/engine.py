"""The incremental evaluation of many rules over a log of events.

State is kept by rule and user. It is a function of the set of events before the instant t, whatever order they came
in and however the log is cut into batches. Records are taken one by one, each at its own instant, so the actions asked
for are a function of the log too: whoever goes on from a snapshot asks for the same ones again, under the same ids.

A condition that becomes true is an *edge*. Edges fire events and call webhooks, once each, and not when they are past
by more than the rule's allowed lateness. A property follows what holds now, whenever the events happened.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from services.insights.rules.actions import Action, RuleResult, RuleStatistics
from services.insights.rules.compile import Number, compile_rule, exact_arithmetic
from services.insights.rules.definitions import Rule
from services.insights.rules.state import Holding, Past, RuleState
from services.insights.rules.tally import Event
from services.kernel.columns import EventBatch, key_column
from services.kernel.dedup import ADDED, IGNORED, REPLACED, RETRACTED
from services.kernel.windows import MIN_US

Match = tuple[RuleState, str, Number | None]
"""A rule that counts an event, for whom, and by how much."""


class RuleEngine:
    """All rules of a project at one position of its log. Not thread-safe."""

    def __init__(self, rules: Iterable[Rule] = (), past: Past = Past.LATENESS) -> None:
        """`past` says what becomes of edges that lie in the past. Rules must be valid."""
        self.as_of_us = MIN_US
        """The instant t: events before it count."""
        self.past = past
        self._arithmetic = exact_arithmetic()
        self._rules: dict[str, RuleState] = {}
        self._by_event: dict[str, list[RuleState]] = defaultdict(list)
        self._places: dict[str, tuple[int, tuple[Match, ...]]] = {}
        """Of each event that counts or waits: its time, and who counts it."""
        self._waiting: list[tuple[int, str]] = []
        """Events whose time has not come: a heap."""
        self._holding = Holding()
        self._actions: list[Action] = []
        self._touched: set[tuple[str, str]] = set()
        for rule in rules:
            self.add(rule)

    @property
    def rules(self) -> list[Rule]:
        """The rules."""
        return [state.rule for state in self._rules.values()]

    def add(self, rule: Rule) -> None:
        """Adds a rule that has seen no event. For one that must know what happened before: see `adopt`."""
        if rule.rule_id in self._rules:
            raise ValueError(f"there is a rule {rule.rule_id} already")
        state = RuleState(compile_rule(rule), self._arithmetic, self._holding)
        self._rules[rule.rule_id] = state
        self._by_event[rule.event_name].append(state)

    def adopt(self, other: "RuleEngine") -> None:
        """Takes over the rules of an engine that has seen the same log up to the same position, and its actions.

        A rule that is here already in another version gives way; what it had set is set or withdrawn as the new one
        says.
        """
        for rule_id in other._rules:
            old = self._detach(rule_id)
            state = other._rules[rule_id]
            self._actions += state.move_to(self._holding, old, self.as_of_us - 1)
            self._rules[rule_id] = state
            self._by_event[state.rule.event_name].append(state)
        for event_id, (at_us, matches) in other._places.items():
            known = self._places.get(event_id)
            self._places[event_id] = (at_us, (known[1] if known else ()) + matches)
        self._waiting = sorted({*self._waiting, *other._waiting})
        self._actions += other.take_actions()
        self._touched |= other.touched()
        self.advance(max(self.as_of_us, other.as_of_us))

    def remove(self, rule_id: str) -> None:
        """Deletes a rule and all of its state at once; what it had set is withdrawn, unless it is sticky."""
        state = self._rules[rule_id]
        for user, track in state.tracks.items():
            self._actions += state.withdraw(user, track, self.as_of_us - 1)
        self._detach(rule_id)

    def _detach(self, rule_id: str) -> RuleState | None:
        state = self._rules.pop(rule_id, None)
        if state is None:
            return None
        self._by_event[state.rule.event_name].remove(state)
        for event_id, (at_us, matches) in list(self._places.items()):
            kept = tuple(match for match in matches if match[0] is not state)
            if kept:
                self._places[event_id] = (at_us, kept)
            else:
                del self._places[event_id]
        self._wait_again()
        return state

    def apply(self, batch: EventBatch, actions: NDArray[np.int8], instants_us: NDArray[np.int64]) -> None:
        """Applies records in the order of the log.

        `actions` are what the de-duplicator says of each, `instants_us` the instant t after each, never going back
        (`running_instants`).
        """
        matches = self._matches(batch, actions)
        wanted = actions >= REPLACED
        wanted[list(matches)] = True
        wanted &= actions != IGNORED
        rows = np.flatnonzero(wanted)
        ids = batch.record_batch.column("event_id")
        for row in rows.tolist():
            self.advance(int(instants_us[row]))
            event_id = ids[row].as_py()
            if actions[row] != ADDED:
                self._retract(event_id)
            if actions[row] != RETRACTED and row in matches:
                self._take(event_id, int(batch.occurred_at[row]), tuple(matches[row]))
        if len(instants_us):
            self.advance(int(instants_us[-1]))

    def _matches(self, batch: EventBatch, actions: NDArray[np.int8]) -> dict[int, list[Match]]:
        """By row the rules that count it."""
        found: dict[int, list[Match]] = defaultdict(list)
        types = batch.strings("event_type")
        if types is None:
            return found
        present = np.unique(types.codes[(actions == ADDED) | (actions == REPLACED)])
        names = {types.values[int(code)].as_py().split("/")[1] for code in present}
        users: dict[str, list[str | None]] = {}
        for name in sorted(names & self._by_event.keys()):
            for state in self._by_event[name]:
                key = state.rule.user_key
                if key not in users:
                    column = batch.column(key_column(key))
                    users[key] = [None] * batch.num_rows if column is None else column.to_pylist()
                counted = state.compiled.counted(batch)
                state.rejected += int((actions[counted.rejected] != IGNORED).sum())
                for i, row in enumerate(counted.rows.tolist()):
                    user = users[key][row]
                    if user is not None:
                        found[row].append((state, user, counted.numbers[i] if counted.numbers else None))
        return found

    def _take(self, event_id: str, at_us: int, matches: tuple[Match, ...]) -> None:
        self._places[event_id] = (at_us, matches)
        if at_us >= self.as_of_us:
            heapq.heappush(self._waiting, (at_us, event_id))
        else:
            self._enter(event_id, at_us, matches)

    def _enter(self, event_id: str, at_us: int, matches: Sequence[Match]) -> None:
        for state, user, number in matches:
            self._touched.add((state.rule.rule_id, user))
            self._actions += state.count(user, Event(at_us, event_id, number), self.as_of_us, self.past)

    def _retract(self, event_id: str) -> None:
        at_us, matches = self._places.pop(event_id, (0, ()))
        if at_us >= self.as_of_us:
            return
        for state, user, _ in matches:
            self._touched.add((state.rule.rule_id, user))
            self._actions += state.discount(user, at_us, event_id, self.as_of_us, self.past)

    def advance(self, t_us: int) -> None:
        """Time has passed: moves to the instant t, never back. Events whose time has come count, each at its own."""
        while self._waiting and self._waiting[0][0] < t_us:
            at_us, event_id = heapq.heappop(self._waiting)
            while self._waiting and self._waiting[0] == (at_us, event_id):
                # Replaced by a version of the same time while it waited.
                heapq.heappop(self._waiting)
            known = self._places.get(event_id)
            # It may have been corrected while it waited.
            if known is not None and known[0] == at_us:
                self.as_of_us = max(self.as_of_us, at_us + 1)
                self._enter(event_id, at_us, known[1])
        self.as_of_us = max(self.as_of_us, t_us)

    def next_change_us(self) -> int | None:
        """The next instant t at which time alone changes something: an event counts, a period begins or ends."""
        edges = [self._waiting[0][0] + 1] if self._waiting else []
        for state in self._rules.values():
            bounds = (state.compiled.start_us, state.compiled.end_us)
            edges += [bound for bound in bounds if bound is not None and bound > self.as_of_us]
        return min(edges, default=None)

    def take_actions(self) -> list[Action]:
        """What is to be done since the last call, in the order in which it was decided."""
        taken, self._actions = self._actions, []
        return taken

    def put_back(self, actions: list[Action]) -> None:
        """Gives back what was taken and could not be kept."""
        self._actions = actions + self._actions

    def touched(self) -> set[tuple[str, str]]:
        """Rules and users whose result may have changed since the last call."""
        taken, self._touched = self._touched, set()
        return taken

    def result(self, rule_id: str, user: str) -> RuleResult | None:
        """What a rule says of a user; None when it counted nothing. KeyError for a rule that is not there."""
        return self._rules[rule_id].result(user, self.as_of_us)

    def results(self, user: str, user_key: str = "user_id") -> list[RuleResult]:
        """What the rules of a user key say of a user, ordered by rule; those that counted nothing are left out."""
        found = (state.result(user, self.as_of_us) for state in self._rules.values() if state.rule.user_key == user_key)
        return sorted((result for result in found if result is not None), key=lambda result: result.rule_id)

    def users(self, rule_id: str) -> list[str]:
        """Who have a counted event, in no order. KeyError for a rule that is not there."""
        return list(self._rules[rule_id].tracks)

    def statistics(self, rule_id: str) -> RuleStatistics:
        """What a rule has done. KeyError for a rule that is not there."""
        return self._rules[rule_id].statistics()

    def states(self) -> Iterable[RuleState]:
        """The state of each rule, for a snapshot."""
        return self._rules.values()

    def state_of(self, name: str) -> RuleState | None:
        """The state of `rule/version`, or None when that version is not here."""
        rule_id, _, version = name.rpartition("/")
        state = self._rules.get(rule_id)
        return state if state is not None and str(state.rule.version) == version else None

    def waiting(self) -> Iterable[tuple[int, str, tuple[Match, ...]]]:
        """The events whose time has not come, with who counts them, for a snapshot."""
        for event_id, (at_us, matches) in self._places.items():
            if at_us >= self.as_of_us:
                yield at_us, event_id, matches

    def take_back(self, as_of_us: int, places: dict[str, tuple[int, tuple[Match, ...]]]) -> None:
        """Takes the instant and the events back, from a snapshot, after the rules' states."""
        self.as_of_us, self._places = as_of_us, places
        self._wait_again()

    def _wait_again(self) -> None:
        """Makes the heap anew of those that wait still."""
        self._waiting = [(at_us, event_id) for event_id, (at_us, _) in self._places.items() if at_us >= self.as_of_us]
        heapq.heapify(self._waiting)

    def forget(self, user: str, user_key: str = "user_id") -> None:
        """All of a user's state goes, without any action: the user is erased."""
        gone = Counter[str]()
        for state in self._rules.values():
            if state.rule.user_key == user_key:
                gone.update(state.forget(user))
                self._touched.discard((state.rule.rule_id, user))
        matched = {id_ for id_, (_, all_) in self._places.items() if any(match[1] == user for match in all_)}
        for event_id in gone.keys() | matched:
            at_us, matches = self._places[event_id]
            kept = tuple(m for m in matches if (m[1], m[0].rule.user_key) != (user, user_key))
            self._places[event_id] = (at_us, kept)
            if not kept:
                del self._places[event_id]
        self._wait_again()
        self._actions = [a for a in self._actions if a.user != user or self._rules[a.rule_id].rule.user_key != user_key]

    def trim(self, before_us: int) -> int:
        """Lets events go that are older than the retention; what they came to stays. Returns how many."""
        count = 0
        for state in self._rules.values():
            for event_id in state.trim(before_us):
                count += 1
                at_us, matches = self._places.get(event_id, (0, ()))
                kept = tuple(match for match in matches if match[0] is not state)
                if kept:
                    self._places[event_id] = (at_us, kept)
                else:
                    self._places.pop(event_id, None)
        return count


def running_instants(batch: EventBatch, actions: NDArray[np.int8], of_log: bool, before_us: int) -> NDArray[np.int64]:
    """The instant t after each record: the newest `received_at`, or with the clock of the log the newest
    `occurred_at` of what came, and 1 us more; never before `before_us`.
    """
    if of_log:
        comes = (actions == ADDED) | (actions == REPLACED)
        times = np.where(comes, batch.occurred_at, MIN_US)
    else:
        times = batch.received_at
    return np.maximum.accumulate(np.maximum(times + 1, before_us))
