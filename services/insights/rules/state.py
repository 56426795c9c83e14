"""One rule's state for all users, and its decisions."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from decimal import Context
from enum import StrEnum

from services.insights.rules.actions import Action, Effect, RuleResult, RuleStatistics
from services.insights.rules.compile import CompiledRule
from services.insights.rules.definitions import ActionKind
from services.insights.rules.tally import Edge, Event, Stepper, Track

_EDGE_EFFECTS = {ActionKind.FIRE_EVENT: Effect.FIRE_EVENT, ActionKind.WEBHOOK: Effect.WEBHOOK}

Noted = tuple[int, Action]
"""Something to do, and the place of the event that made it so."""


class Past(StrEnum):
    """What becomes of what happened in the past."""

    LATENESS = "lateness"
    """Each rule's allowed lateness says it."""
    QUIET = "quiet"
    """It changes values and asks for nothing: a new rule is filled from the log."""
    ASKED = "asked"
    """It is acted upon however long ago: a new rule is filled from the log, and its owner asked for it."""


class Holding:
    """How many rules have set each property of each user: it is withdrawn with the last of them."""

    def __init__(self) -> None:
        self._counts = Counter[tuple[str, str, str]]()

    def set(self, place: tuple[str, str, str]) -> None:
        """One more rule has set it."""
        self._counts[place] += 1

    def unset(self, place: tuple[str, str, str]) -> bool:
        """One rule less; whether it was the last."""
        self._counts[place] -= 1
        if self._counts[place] > 0:
            return False
        del self._counts[place]
        return True


class RuleState:
    """The tracks of a rule's users, and what the rule decides."""

    def __init__(self, compiled: CompiledRule, arithmetic: Context, holding: Holding) -> None:
        self.compiled = compiled
        self.rule = compiled.rule
        self.tracks: dict[str, Track] = {}
        self.stepper = Stepper(compiled, arithmetic)
        self.rejected = 0
        self.past_edges = 0
        self.asked = 0
        self._name = compiled.rule.action_name
        self.order = 0
        """Its place among the rules."""
        self.complete_since_us: int | None = None
        """Events before this time were trimmed from the log when the rule was filled; None: nothing is lacking."""
        self._holding = holding
        self._index: dict[str, tuple[int, str]] | None = None
        """Of each event that is held its time and user; made when first asked for."""

    def find(self, event_id: str) -> tuple[int, str] | None:
        """The time and user of an event that is held."""
        if self._index is None:
            self._index = {e[1]: (e[0], user) for user, track in self.tracks.items() for e in track.events}
        return self._index.get(event_id)

    def count_rest(
        self, user: str, track: Track, events: list[Event], i: int, instants_us: list[int], past: Past
    ) -> Iterator[Noted]:
        """Counts events from the i-th on, which changes something; all come after what is held and one after the
        other, each at its own instant. Gives what is to be done, with the place of the event.
        """
        stop = len(events)
        while i < stop:
            for action in self._count(user, track, events[i], instants_us[i], past):
                yield i, action
            i += 1
            i += track.glide(events[i:], self.stepper)

    def note_held(self, user: str, events: Iterable[Event]) -> None:
        """Says whose events these are, which were counted by way of the track."""
        if self._index is not None:
            self._index.update((event[1], (event[0], user)) for event in events)

    def count(self, user: str, event: Event, t_us: int, past: Past) -> Iterable[Action]:
        """Counts an event; gives what is to be done."""
        track = self.tracks.get(user)
        if track is None:
            track = self.tracks[user] = Track()
        if self._index is not None:
            self._index[event[1]] = event[0], user
        return self._count(user, track, event, t_us, past)

    def _count(self, user: str, track: Track, event: Event, t_us: int, past: Past) -> Iterable[Action]:
        is_last = not track.events or event[:2] > track.events[-1][:2]
        edges = track.add(event, self.stepper)
        if not edges and self._holds(track) == track.shown:
            return ()
        past = self._past(t_us, past)
        return [
            *self._edges(user, track, edges, t_us, past),
            *self.show(user, track, event if is_last else None, t_us, past),
        ]

    def discount(self, user: str, at_us: int, event_id: str, t_us: int, past: Past) -> Iterator[Action]:
        """Takes an event out; gives what is to be done."""
        past = self._past(t_us, past)
        track = self.tracks.get(user)
        if self._index is not None:
            self._index.pop(event_id, None)
        if track is not None:
            edges = track.remove(at_us, event_id, self.stepper)
            yield from self._edges(user, track, edges, t_us, past)
            yield from self.show(user, track, None, t_us, past)

    def _past(self, t_us: int, past: Past) -> Past:
        if past is not Past.LATENESS or t_us > self.rule.live_from_us:
            return past
        return Past.ASKED if self.rule.act_on_past else Past.QUIET

    def _edges(self, user: str, track: Track, edges: list[Edge], t_us: int, past: Past) -> Iterator[Action]:
        effect = _EDGE_EFFECTS.get(self.rule.action.kind)
        for edge in edges:
            track.done = edge.ordinal
            if effect is None:
                continue
            if not self._is_timely(edge, t_us, past):
                self.past_edges += 1
                continue
            self.asked += 1
            rule, total = self.rule, edge.sum if self.rule.sum else None
            yield Action(
                edge.event[0],
                t_us - 1,
                rule.rule_id,
                rule.version,
                user,
                effect,
                self._name,
                None,
                edge.count,
                total,
                edge.ordinal,
                edge.event[1],
            )

    def _is_timely(self, edge: Edge, t_us: int, past: Past) -> bool:
        if past is not Past.LATENESS:
            return past is Past.ASKED
        return self.rule.allow_late_fire or t_us - 1 - edge.event[0] <= self.rule.allowed_lateness_us

    def _holds(self, track: Track) -> bool:
        return track.tally.edges > 0 if self.rule.reset else track.tally.met

    def show(self, user: str, track: Track, cause: Event | None, t_us: int, past: Past) -> Iterator[Action]:
        """Sets or withdraws the property when what holds is not what is shown. `cause` is the event that came, when
        it came after all others.
        """
        rule = self.rule
        if rule.action.kind is not ActionKind.SET_PROPERTY:
            return
        holds = self._holds(track)
        if holds == track.shown:
            return
        track.shown = holds
        if not holds:
            yield from self.withdraw(user, track, t_us - 1, cause)
        elif past is not Past.QUIET and not track.is_set:
            track.is_set = True
            yield self._move(user, track, Effect.SET_PROPERTY, t_us - 1, cause)

    def withdraw(self, user: str, track: Track, now_us: int, cause: Event | None = None) -> Iterator[Action]:
        """Withdraws the property if this rule has set it and is not sticky; `settle` says whether another holds it."""
        if not track.is_set or self.rule.sticky:
            return
        track.is_set = False
        yield self._move(user, track, Effect.UNSET_PROPERTY, now_us, cause)

    def _move(self, user: str, track: Track, effect: Effect, now_us: int, cause: Event | None) -> Action:
        rule, tally = self.rule, track.tally
        return Action(
            cause[0] if cause else now_us,
            now_us,
            rule.rule_id,
            rule.version,
            user,
            effect,
            self._name,
            rule.action.value if effect is Effect.SET_PROPERTY else None,
            tally.count,
            tally.sum if rule.sum else None,
            0,
            cause[1] if cause else "",
        )

    def settle(self, action: Action) -> Action | None:
        """Gives the action as it is asked for, in the order of decisions over all rules; None: it is not to be done."""
        if action.effect is Effect.SET_PROPERTY:
            self._holding.set(self._place(action.user))
        elif action.effect is not Effect.UNSET_PROPERTY:
            return action
        elif not self._holding.unset(self._place(action.user)):
            return None
        track = self.tracks[action.user]
        track.moves += 1
        self.asked += 1
        return replace(action, ordinal=track.moves)

    def move_to(self, holding: Holding, old: "RuleState | None", now_us: int) -> Iterator[Action]:
        """Joins the rules that share `holding`, and takes over what an older version of the rule had set; gives what
        is withdrawn, because the new one does not say it.
        """
        self._holding = holding
        for user, track in self.tracks.items():
            before = old.tracks.get(user) if old and old._place(user) == self._place(user) else None
            if track.is_set or (track.shown and before is not None and before.is_set):
                track.is_set = True
                holding.set(self._place(user))
        if old is not None:
            for user, track in old.tracks.items():
                yield from filter(None, map(old.settle, old.withdraw(user, track, now_us)))

    def _place(self, user: str) -> tuple[str, str, str]:
        return self.rule.user_key, user, self._name

    def result(self, user: str, t_us: int) -> RuleResult | None:
        """What the rule says of a user; None when it counted nothing."""
        track = self.tracks.get(user)
        if track is None or not (track.events or track.base):
            return None
        rule, tally, end_us = self.rule, track.tally, self.compiled.end_us
        return RuleResult(
            rule.rule_id,
            rule.version,
            user,
            tally.met,
            tally.since_us,
            tally.count,
            tally.sum if rule.sum else None,
            tally.edges,
            rule.compatible_name,
            track.is_set,
            end_us is not None and t_us >= end_us,
            self.complete_since_us,
        )

    def note_complete_since(self, since_us: int | None) -> None:
        """Before the first event: from which event time on the log is complete."""
        if since_us is not None and self.compiled.reaches_before(since_us):
            self.complete_since_us = since_us

    def take_back(self, user: str, track: Track) -> None:
        """Takes a user's track back, from a snapshot."""
        self.tracks[user] = track
        if track.is_set:
            self._holding.set(self._place(user))

    def statistics(self) -> RuleStatistics:
        """What the rule has done."""
        held = [track for track in self.tracks.values() if track.events or track.base]
        holding = sum(track.tally.met for track in held)
        events = sum(len(track.events) for track in held)
        users, since_us = len(held), self.complete_since_us
        return RuleStatistics(users, holding, events, self.asked, self.past_edges, self.rejected, since_us)

    def forget(self, user: str) -> None:
        """All of a user's state goes."""
        track = self.tracks.pop(user, None)
        if track is None:
            return
        if track.is_set:
            self._holding.unset(self._place(user))
        self._drop(track.events)

    def trim(self, before_us: int) -> int:
        """Lets old events go; gives how many."""
        count = 0
        for track in self.tracks.values():
            gone = track.trim(before_us, self.stepper)
            count += len(gone)
            self._drop(gone)
        return count

    def _drop(self, events: Iterable[Event]) -> None:
        if self._index is not None:
            for event in events:
                self._index.pop(event[1], None)
