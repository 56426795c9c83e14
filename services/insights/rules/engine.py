"""The incremental evaluation of many rules over a log of events.

State is kept by rule and user. It is a function of the set of events before the instant t, whatever order they came
in and however the log is cut into batches. Records are taken each at its own instant, so the actions asked for are a
function of the log too: whoever goes on from a snapshot asks for the same ones again, under the same ids.

Of a batch, the events of a rule and user are taken at once where each comes after all others, which is nearly always.
Where one is late, corrected or ahead of its time, all of this rule and user are taken one by one. What is decided is
put into the order of the log after that.

A condition that becomes true is an *edge*. Edges fire events and call webhooks, once each, and not when they are past
by more than the rule's allowed lateness. A property follows what holds now, whenever the events happened.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from services.insights.rules.actions import Action, RuleResult, RuleStatistics
from services.insights.rules.compile import Number, compile_rule, exact_arithmetic
from services.insights.rules.definitions import Rule
from services.insights.rules.grouping import Grouper
from services.insights.rules.state import Holding, Past, RuleState
from services.insights.rules.tally import Track
from services.kernel.columns import EventBatch
from services.kernel.dedup import ADDED, REPLACED, RETRACTED
from services.kernel.windows import MIN_US

Match = tuple[RuleState, str, Number | None]
"""A rule that counts an event, for whom, and by how much."""
_Order = tuple[int, int, int, int, int]
"""When something was decided: the instant, whether time alone did it, the row, whether an event came, the rule."""


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
        self._ahead: dict[str, tuple[int, tuple[Match, ...]]] = {}
        """Of each event whose time has not come: its time, and who counts it."""
        self._waiting: list[tuple[int, str]] = []
        """The same: a heap."""
        self._holding = Holding()
        self._noted: list[tuple[_Order, RuleState, Action]] = []
        """What was decided and is not yet in order."""
        self._actions: list[Action] = []
        self.trimmed_us = MIN_US
        """Events before this instant may have been let go."""
        self.evaluated = 0
        """Events counted, by each rule, since the engine was made."""
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
        self._attach(state)

    def _attach(self, state: RuleState) -> None:
        state.order = 1 + max((other.order for other in self._rules.values()), default=0)
        self._rules[state.rule.rule_id] = state
        self._by_event[state.rule.event_name].append(state)

    def note_complete_since(self, since_us: int | None) -> None:
        """Before the first event: from which event time on the log is complete."""
        for state in self._rules.values():
            state.note_complete_since(since_us)

    def adopt(self, other: "RuleEngine") -> None:
        """Takes over the rules of an engine that has seen the same log up to the same position, and its actions.

        A rule that is here already in another version gives way; what it had set is set or withdrawn as the new one
        says.
        """
        for rule_id in other._rules:
            old = self._detach(rule_id)
            state = other._rules[rule_id]
            self._actions += state.move_to(self._holding, old, self.as_of_us - 1)
            self._attach(state)
        for event_id, (at_us, matches) in other._ahead.items():
            known = self._ahead.get(event_id)
            self._ahead[event_id] = (at_us, (known[1] if known else ()) + matches)
        self._waiting = sorted({*self._waiting, *other._waiting})
        self._actions += other.take_actions()
        self.trimmed_us = max(self.trimmed_us, other.trimmed_us)
        self.evaluated += other.evaluated
        self.advance(max(self.as_of_us, other.as_of_us))

    def remove(self, rule_id: str) -> None:
        """Deletes a rule and all of its state at once; what it had set is withdrawn, unless it is sticky."""
        state = self._rules[rule_id]
        for user, track in state.tracks.items():
            self._actions += filter(None, map(state.settle, state.withdraw(user, track, self.as_of_us - 1)))
        self._detach(rule_id)

    def _detach(self, rule_id: str) -> RuleState | None:
        state = self._rules.pop(rule_id, None)
        if state is None:
            return None
        self._by_event[state.rule.event_name].remove(state)
        self._leave_ahead(lambda match: match[0] is state)
        return state

    def _leave_ahead(self, goes: Callable[[Match], bool]) -> None:
        """Takes matches out of what waits for its time."""
        for event_id, (at_us, matches) in list(self._ahead.items()):
            kept = tuple(match for match in matches if not goes(match))
            if kept:
                self._ahead[event_id] = (at_us, kept)
            else:
                del self._ahead[event_id]
        self._waiting = [(at_us, event_id) for event_id, (at_us, _) in self._ahead.items()]
        heapq.heapify(self._waiting)

    def apply(self, batch: EventBatch, actions: NDArray[np.int8], instants_us: NDArray[np.int64]) -> None:
        """Applies records in the order of the log.

        `actions` are what the de-duplicator says of each, `instants_us` the instant t after each, never going back
        (`running_instants`).
        """
        if not len(instants_us):
            return
        instants_us = np.maximum(instants_us, self.as_of_us)
        grouper = Grouper(batch, actions, instants_us)
        corrections = np.flatnonzero(actions >= REPLACED).tolist()
        corrected = {grouper.ids[row] for row in corrections}
        alone = self._alone(corrected, int(instants_us[-1]))
        single: dict[int, list[Match]] = defaultdict(list)
        names = grouper.names() & self._by_event.keys()
        for state in sorted((state for name in names for state in self._by_event[name]), key=lambda each: each.order):
            self._take_runs(state, grouper, alone, corrected, single)
        for row in sorted({*corrections, *single}):
            self._advance(int(instants_us[row]))
            event_id, matches = grouper.ids[row], single.get(row, [])
            held = self._retract(event_id, row) if actions[row] != ADDED else []
            if actions[row] != RETRACTED:
                at_us = int(batch.occurred_at[row])
                if actions[row] == REPLACED and at_us < self.trimmed_us:
                    # Whoever let the version before go has counted it still.
                    matches = [match for match in matches if match[0] in held]
                self._take(event_id, at_us, tuple(matches), row)
        self.advance(int(instants_us[-1]))

    def _alone(self, corrected: set[str], until_us: int) -> set[tuple[RuleState, str]]:
        """Rules and users whose events are to be taken one by one: some of those held before change."""
        found = set()
        for event_id in corrected:
            for state in self._rules.values():
                place = state.find(event_id)
                if place is not None:
                    found.add((state, place[1]))
        if self._waiting and self._waiting[0][0] < until_us:
            for at_us, matches in self._ahead.values():
                if at_us < until_us:
                    found |= {(state, user) for state, user, _ in matches}
        return found

    def _take_runs(
        self,
        state: RuleState,
        grouper: Grouper,
        alone: set[tuple[RuleState, str]],
        corrected: set[str],
        single: dict[int, list[Match]],
    ) -> None:
        """Takes each user's events that a rule counts at once; those to be taken one by one go to `single`."""
        group = grouper.group(state.compiled)
        if group is None:
            return
        state.rejected += group.rejected
        self.evaluated += len(group.events)
        events, start, tracks = group.events, 0, state.tracks
        for user, end, plain in zip(group.users, group.bounds[1:], group.plain, strict=True):
            run, track = events[start:end], tracks.get(user)
            if (
                not plain
                or (track is not None and track.events and track.events[-1][0] >= run[0][0])
                or (alone and (state, user) in alone)
                or (corrected and any(event[1] in corrected for event in run))
            ):
                for row, event in zip(group.rows[start:end].tolist(), run, strict=True):
                    single[row].append((state, user, event[2]))
                start = end
                continue
            if track is None:
                track = tracks[user] = Track()
            state.note_held(user, run)
            passed = track.glide(run, state.stepper)
            if passed < len(run):
                instants = group.instants_us[start:end]
                for i, action in state.count_rest(user, track, run, passed, instants, self.past):
                    order = (action.decided_us, 1, int(group.rows[start + i]), 1, state.order)
                    self._noted.append((order, state, action))
            start = end

    def _take(self, event_id: str, at_us: int, matches: tuple[Match, ...], row: int) -> None:
        if not matches:
            return
        if at_us >= self.as_of_us:
            self._ahead[event_id] = (at_us, matches)
            heapq.heappush(self._waiting, (at_us, event_id))
            return
        for state, user, number in matches:
            for action in state.count(user, (at_us, event_id, number), self.as_of_us, self.past):
                self._noted.append(((action.decided_us, 1, row, 1, state.order), state, action))

    def _retract(self, event_id: str, row: int) -> list[RuleState]:
        """Takes an event out; gives the rules that had counted it, or would have when its time had come."""
        known = self._ahead.pop(event_id, None)
        if known is not None:
            return [state for state, _, _ in known[1]]
        held = []
        for state in self._rules.values():
            place = state.find(event_id)
            if place is not None:
                held.append(state)
                for action in state.discount(place[1], place[0], event_id, self.as_of_us, self.past):
                    self._noted.append(((action.decided_us, 1, row, 0, state.order), state, action))
        return held

    def advance(self, t_us: int) -> None:
        """Time has passed: moves to the instant t, never back. Events whose time has come count, each at its own."""
        self._advance(t_us)
        # The sort is stable: what time alone did stays as it was done.
        noted, self._noted = sorted(self._noted, key=lambda each: each[0]), []
        self._actions += filter(None, (state.settle(action) for _, state, action in noted))

    def _advance(self, t_us: int) -> None:
        while self._waiting and self._waiting[0][0] < t_us:
            at_us, event_id = heapq.heappop(self._waiting)
            while self._waiting and self._waiting[0] == (at_us, event_id):
                # Replaced by a version of the same time while it waited.
                heapq.heappop(self._waiting)
            known = self._ahead.get(event_id)
            # It may have been corrected while it waited.
            if known is not None and known[0] == at_us:
                del self._ahead[event_id]
                self.as_of_us = max(self.as_of_us, at_us + 1)
                for state, user, number in known[1]:
                    for action in state.count(user, (at_us, event_id, number), self.as_of_us, self.past):
                        self._noted.append(((action.decided_us, 0, 0, 0, 0), state, action))
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
        for event_id, (at_us, matches) in self._ahead.items():
            yield at_us, event_id, matches

    def take_back(self, as_of_us: int, trimmed_us: int, ahead: dict[str, tuple[int, tuple[Match, ...]]]) -> None:
        """Takes instants and the events that wait back, from a snapshot, after the rules' states."""
        self.as_of_us, self.trimmed_us, self._ahead = as_of_us, trimmed_us, ahead
        self._leave_ahead(lambda match: False)

    def forget(self, user: str, user_key: str = "user_id") -> None:
        """All of a user's state goes, without any action: the user is erased."""
        for state in self._rules.values():
            if state.rule.user_key == user_key:
                state.forget(user)
        self._leave_ahead(lambda match: (match[1], match[0].rule.user_key) == (user, user_key))
        self._actions = [a for a in self._actions if a.user != user or self._rules[a.rule_id].rule.user_key != user_key]

    def trim(self, before_us: int) -> int:
        """Lets events go that are older; returns how many. Values stay as they are.

        What comes late still counts, after those that went. A correction of one that went changes nothing, nor does one
        that puts an event before the instant for rules that had not counted it.
        """
        self.trimmed_us = max(self.trimmed_us, min(before_us, self.as_of_us))
        return sum(state.trim(self.trimmed_us) for state in self._rules.values())


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
