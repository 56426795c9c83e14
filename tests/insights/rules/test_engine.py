"""The incremental engine says what the reference says, after any history, however the log is cut."""

import os
from dataclasses import replace
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.insights.rules.actions import Action
from services.insights.rules.definitions import Rule
from services.insights.rules.engine import RuleEngine, running_instants
from services.insights.rules.storing import dump, load, missing
from services.kernel.building import EventRow, build_batch
from services.kernel.columns import ADD, EventBatch
from services.kernel.dedup import Deduplicator

from .reference import Reference, Told, as_fraction, fold
from .strategies import START_US, USERS, logs, records, rule_sets
from .walks import random_log, random_rules

FEW = settings(max_examples=40, deadline=None, derandomize=True, database=None)
WALKS = 60 if os.environ.get("INKLING_HYPOTHESIS_PROFILE") == "deep" else 6


class Run:
    """An engine with its de-duplicator, at the end of a log."""

    def __init__(self, rules: list[Rule], of_log: bool) -> None:
        self.engine = RuleEngine(rules)
        self.deduplicator = Deduplicator(10**15)
        self.of_log = of_log
        self.actions: list[Action] = []

    def apply(self, log: list[EventRow]) -> None:
        if not log:
            return
        batch = EventBatch(build_batch(log))
        done = self.deduplicator.resolve(batch).actions
        instants = running_instants(batch, done, self.of_log, self.engine.as_of_us)
        self.engine.apply(batch, done, instants)
        self.actions += self.engine.take_actions()

    def restart(self) -> None:
        """As from a snapshot."""
        arrays = dump(self.engine)
        assert missing(self.engine.rules, arrays) == []
        self.engine = load(self.engine.rules, arrays)
        self.deduplicator = Deduplicator.load(self.deduplicator.dump())

    def told(self) -> list[Told]:
        return [(a.rule_id, a.user, a.effect, a.at_us, a.count, as_fraction(a.sum), a.ordinal) for a in self.actions]


def reference_of(rules: list[Rule], log: list[EventRow], of_log: bool) -> Reference:
    reference, deduplicator, t_us = Reference(rules), Deduplicator(10**15), -(2**62)
    for record in log:
        batch = EventBatch(build_batch([record]))
        done = deduplicator.resolve(batch).actions
        t_us = int(running_instants(batch, done, of_log, t_us)[0])
        if done[0]:
            reference.apply(record, t_us)
        else:
            reference.advance(t_us)
    return reference


def check_results(run: Run, reference: Reference) -> None:
    for rule in reference.rules:
        for user in USERS:
            events = reference.events(rule.rule_id, user)
            result, expected = run.engine.result(rule.rule_id, user), fold(rule, events)
            if not events:
                assert result is None
                continue
            assert result is not None
            assert (result.count, result.holds, result.edges) == (expected.count, expected.met, len(expected.edges))
            assert as_fraction(result.sum) == (expected.sum if rule.sum else None)


@FEW
@given(rules=rule_sets(), log=logs(), of_log=st.booleans(), cuts=st.lists(st.integers(0, 14)))
def test_actions_and_results_are_those_of_the_reference(
    rules: list[Rule], log: list[EventRow], of_log: bool, cuts: list[int]
) -> None:
    run, reference = Run(rules, of_log), reference_of(rules, log, of_log)
    for start, end in pairwise(sorted({0, len(log), *(cut for cut in cuts if cut <= len(log))})):
        run.apply(log[start:end])
    assert run.told() == reference.told
    check_results(run, reference)
    run.engine.advance(START_US * 2)
    reference.advance(START_US * 2)
    check_results(run, reference)


@pytest.mark.parametrize("seed", range(WALKS))
def test_a_long_history_of_many_rules_is_that_of_the_reference(seed: int) -> None:
    random = Random(seed)
    rules, of_log = random_rules(random, 12), random.random() < 0.5
    log = list(random_log(random, 150, USERS))
    run, reference = Run(rules, of_log), reference_of(rules, log, of_log)
    start = 0
    while start < len(log):
        size = random.choice((1, 3, 20, 60))
        if random.random() < 0.3:
            run.restart()
        run.apply(log[start : start + size])
        start += size
    assert run.told() == reference.told
    check_results(run, reference)


@FEW
@given(rules=rule_sets(), log=st.lists(records(), max_size=10, unique_by=lambda row: row.event_id), data=st.data())
def test_results_do_not_depend_on_the_order_of_arrival(
    rules: list[Rule], log: list[EventRow], data: st.DataObject
) -> None:
    log = [replace(row, operation=ADD, revision=0) for row in log]
    shuffled = data.draw(st.permutations(log))
    repeated = shuffled + data.draw(st.lists(st.sampled_from(shuffled), max_size=4) if shuffled else st.just([]))
    one, other = Run(rules, of_log=True), Run(rules, of_log=True)
    one.apply(log)
    for row in repeated:
        other.apply([row])
    for user in USERS:
        mine, theirs = one.engine.results(user), other.engine.results(user)
        assert [replace(each, is_set=False) for each in mine] == [replace(each, is_set=False) for each in theirs]


@FEW
@given(rules=rule_sets(), log=logs())
def test_no_cause_is_acted_upon_twice(rules: list[Rule], log: list[EventRow]) -> None:
    run = Run(rules, of_log=True)
    run.apply(log)
    ids = [action.action_id for action in run.actions]
    assert len(ids) == len(set(ids))
    assert np.all(np.diff([action.decided_us for action in run.actions]) >= 0)
