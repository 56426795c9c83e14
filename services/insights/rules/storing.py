"""An engine's state as arrays, for a snapshot, and back."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.insights.rules.compile import Number
from services.insights.rules.definitions import Rule
from services.insights.rules.engine import Match, RuleEngine
from services.insights.rules.tally import Event, Tally, Track
from services.kernel.windows import MIN_US

Arrays = dict[str, NDArray[np.generic]]
_NONE, _INT, _FLOAT = 0, 1, 2
_TRACK_COLUMNS = ("rule", "done", "shown", "is_set", "moves", "events")
_TALLY_COLUMNS = ("count", "met", "count_reached", "edges", "since_us")


def dump(engine: RuleEngine) -> Arrays:
    """The state of all rules. Actions and touched results that nobody took are not in it: take them first."""
    states = list(engine.states())
    index = {id(state): i for i, state in enumerate(states)}
    users: list[str] = []
    tracks: dict[str, list[int]] = {name: [] for name in (*_TRACK_COLUMNS, *_TALLY_COLUMNS)}
    sums: list[str] = []
    events: list[Event] = []
    for i, state in enumerate(states):
        for user, track in state.tracks.items():
            users.append(user)
            fields = (i, track.done, track.shown, track.is_set, track.moves, len(track.events))
            for name, value in zip(_TRACK_COLUMNS, fields, strict=True):
                tracks[name].append(int(value))
            base = track.base or Tally()
            for name in _TALLY_COLUMNS:
                tracks[name].append(int(getattr(base, name)))
            sums += [str(base.sum), str(base.sum_reached)]
            events += track.events
    waiting = [(at_us, id_, match) for at_us, id_, matches in engine.waiting() for match in matches]
    arrays: Arrays = {
        "as_of_us": np.array([engine.as_of_us, engine.trimmed_us], np.int64),
        "statistics": np.array([(s.rejected, s.past_edges, s.asked) for s in states], np.int64).reshape(-1, 3),
        "complete_since": np.array([_since(state.complete_since_us) for state in states], np.int64),
        "waiting.rule": np.array([index[id(match[0])] for _, _, match in waiting], np.int64),
    }
    arrays |= {f"tracks.{name}": np.array(values, np.int64) for name, values in tracks.items()}
    arrays |= _strings("rules", [f"{state.rule.rule_id}/{state.rule.version}" for state in states])
    arrays |= _strings("tracks.users", users) | _strings("tracks.sums", sums)
    arrays |= _events("events", events)
    arrays |= _events("waiting", [(at_us, id_, match[2]) for at_us, id_, match in waiting])
    return arrays | _strings("waiting.users", [match[1] for _, _, match in waiting])


def load(rules: Iterable[Rule], arrays: Mapping[str, NDArray[np.generic]]) -> RuleEngine:
    """An engine of these rules with the state that the arrays hold; `missing` says which rules they do not have."""
    engine = RuleEngine(rules)
    names = _texts(arrays, "rules")
    states = [engine.state_of(name) for name in names]
    for state, counters in zip(states, arrays["statistics"].tolist(), strict=True):
        if state is not None:
            state.rejected, state.past_edges, state.asked = counters
    for state, since_us in zip(states, arrays["complete_since"].tolist(), strict=True):
        if state is not None and since_us != MIN_US:
            state.complete_since_us = since_us
    columns = {name: arrays[f"tracks.{name}"].tolist() for name in (*_TRACK_COLUMNS, *_TALLY_COLUMNS)}
    sums, events, first = _texts(arrays, "tracks.sums"), _read_events(arrays, "events"), 0
    ahead: dict[str, tuple[int, tuple[Match, ...]]] = {}
    for i, user in enumerate(_texts(arrays, "tracks.users")):
        state = states[columns["rule"][i]]
        held = events[first : first + columns["events"][i]]
        first += len(held)
        if state is None:
            continue
        track = Track()
        if columns["since_us"][i] or columns["edges"][i] or columns["count"][i]:
            track.base = _tally({name: columns[name][i] for name in _TALLY_COLUMNS}, sums[2 * i], sums[2 * i + 1])
        track.done, track.moves = columns["done"][i], columns["moves"][i]
        track.shown, track.is_set = bool(columns["shown"][i]), bool(columns["is_set"][i])
        track.restore(held, state.stepper)
        state.take_back(user, track)
    for event, rule, user in zip(
        _read_events(arrays, "waiting"), arrays["waiting.rule"].tolist(), _texts(arrays, "waiting.users"), strict=True
    ):
        state = states[rule]
        if state is not None:
            known = ahead.get(event[1], (0, ()))[1]
            ahead[event[1]] = (event[0], (*known, (state, user, event[2])))
    as_of_us, trimmed_us = arrays["as_of_us"].tolist()
    engine.take_back(as_of_us, trimmed_us, ahead)
    return engine


def missing(rules: Iterable[Rule], arrays: Mapping[str, NDArray[np.generic]]) -> list[Rule]:
    """The rules, of these, that a snapshot does not have in their version: they must be filled from the log."""
    known = set(_texts(arrays, "rules"))
    return [rule for rule in rules if f"{rule.rule_id}/{rule.version}" not in known]


def _since(instant_us: int | None) -> int:
    return MIN_US if instant_us is None else instant_us


def _tally(fields: Mapping[str, int], total: str, reached: str) -> Tally:
    tally = Tally()
    tally.count, tally.count_reached, tally.edges = fields["count"], fields["count_reached"], fields["edges"]
    tally.met, tally.since_us = bool(fields["met"]), fields["since_us"]
    tally.sum, tally.sum_reached = Decimal(total), int(reached)
    return tally


def _strings(name: str, values: Sequence[str]) -> Arrays:
    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return {f"{name}.offsets": ends, f"{name}.content": np.frombuffer(b"".join(encoded), np.uint8)}


def _texts(arrays: Mapping[str, NDArray[Any]], name: str) -> list[str]:
    content, ends = arrays[f"{name}.content"].tobytes(), arrays[f"{name}.offsets"].tolist()
    return [content[ends[i] : ends[i + 1]].decode() for i in range(len(ends) - 1)]


def _events(name: str, events: Sequence[Event]) -> Arrays:
    numbers = [event[2] for event in events]
    kinds = [_NONE if n is None else _INT if isinstance(n, int) else _FLOAT for n in numbers]
    return {
        f"{name}.at_us": np.array([event[0] for event in events], np.int64),
        f"{name}.kind": np.array(kinds, np.int8),
        f"{name}.integer": np.array([n if isinstance(n, int) else 0 for n in numbers], np.int64),
        f"{name}.float": np.array([n if isinstance(n, float) else 0.0 for n in numbers], np.float64),
        **_strings(f"{name}.ids", [event[1] for event in events]),
    }


def _read_events(arrays: Mapping[str, NDArray[np.generic]], name: str) -> list[Event]:
    kinds, integers, floats = (arrays[f"{name}.{part}"].tolist() for part in ("kind", "integer", "float"))
    numbers: list[Number | None] = [
        None if kind == _NONE else integers[i] if kind == _INT else floats[i] for i, kind in enumerate(kinds)
    ]
    times, ids = arrays[f"{name}.at_us"].tolist(), _texts(arrays, f"{name}.ids")
    return list(zip(times, ids, numbers, strict=True))
