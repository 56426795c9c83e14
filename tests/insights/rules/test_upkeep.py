"""Rules come, change and go; users are forgotten; old events are let go; cycles are refused; the past is tested."""

from dataclasses import replace
from decimal import Decimal
from random import Random

import numpy as np
import pytest

from services.insights.rules.actions import Action, Effect
from services.insights.rules.backtest import back_test
from services.insights.rules.cycles import check_cycles
from services.insights.rules.definitions import ActionKind, Condition, Operator, Rule, RuleAction
from services.insights.rules.engine import RuleEngine, running_instants
from services.insights.rules.state import Past
from services.insights.rules.storing import dump, load, missing
from services.kernel.building import EventRow, build_batch
from services.kernel.columns import DELETE, REPLACE, EventBatch
from services.kernel.dedup import ADDED

from .reference import Reference, fold
from .strategies import MINUTE_US, START_US, USERS
from .test_engine import Run, reference_of
from .walks import random_log, random_rules

TWICE = Rule("twice", "buy", Condition(Operator.GREATER_OR_EQUAL, Decimal(2)))
FIRES = replace(TWICE, rule_id="fires", action=RuleAction(ActionKind.FIRE_EVENT), reset=True)


def buys(count: int, user: str = "u", start_us: int = START_US) -> list[EventRow]:
    at = [start_us + i for i in range(count)]
    return [EventRow(f"{user}{at_us}", "buy", at_us, at_us, {"user_id": user}) for at_us in at]


def apply(engine: RuleEngine, log: list[EventRow]) -> list[Action]:
    batch = EventBatch(build_batch(log))
    added = np.full(batch.num_rows, ADDED, np.int8)
    engine.apply(batch, added, running_instants(batch, added, of_log=False, before_us=engine.as_of_us))
    return engine.take_actions()


def filled(rule: Rule, log: list[EventRow], past: Past = Past.QUIET) -> RuleEngine:
    engine = RuleEngine([rule], past)
    batch = EventBatch(build_batch(log))
    added = np.full(batch.num_rows, ADDED, np.int8)
    engine.apply(batch, added, running_instants(batch, added, of_log=False, before_us=0))
    return engine


@pytest.mark.parametrize("rule", [TWICE, FIRES])
def test_a_new_rule_knows_the_past_and_acts_on_it_only_when_asked(rule: Rule) -> None:
    past = buys(2)
    for how, effects in ((Past.QUIET, 0), (Past.ASKED, 1)):
        engine = RuleEngine()
        engine.adopt(filled(rule, past, how))
        assert len(engine.take_actions()) == effects
        result = engine.result(rule.rule_id, "u")
        assert result is not None
        assert result.edges == 1
        later = apply(engine, buys(2, start_us=START_US + MINUTE_US))
        # The rule with reset fires anew; the property's rule has nothing new to say.
        assert [action.effect for action in later] == ([Effect.FIRE_EVENT] if rule is FIRES else [])


def test_a_new_version_takes_over_what_the_old_one_had_set() -> None:
    log = [*buys(2, "two"), *buys(4, "four", START_US + 10)]
    engine = RuleEngine([TWICE])
    assert {action.user for action in apply(engine, log)} == {"two", "four"}
    stricter = replace(TWICE, version=2, count=Condition(Operator.GREATER, Decimal(3)))
    engine.adopt(filled(stricter, log))
    (gone,) = engine.take_actions()
    assert (gone.user, gone.effect, gone.version) == ("two", Effect.UNSET_PROPERTY, 1)
    assert [result.is_set for result in engine.results("four")] == [True]
    engine.remove("twice")
    (gone,) = engine.take_actions()
    assert (gone.user, gone.effect, gone.version) == ("four", Effect.UNSET_PROPERTY, 2)
    assert (engine.rules, engine.results("four")) == ([], [])


def test_a_deleted_rule_leaves_nothing_and_a_sticky_one_its_property() -> None:
    engine = RuleEngine([replace(TWICE, sticky=True), FIRES])
    apply(engine, buys(3))
    engine.remove("twice")
    assert engine.take_actions() == []
    engine.remove("fires")
    assert len(dump(engine)["tracks.rule"]) == 0
    assert list(engine.waiting()) == []


def test_a_forgotten_user_is_nowhere() -> None:
    engine = RuleEngine([TWICE, FIRES])
    apply(engine, [*buys(3, "secret"), *buys(1, "other", START_US + 10)])
    ahead = EventRow("ahead", "buy", START_US + 10 * MINUTE_US, START_US + 11, {"user_id": "secret"})
    apply(engine, [ahead])
    engine.forget("secret")
    assert engine.results("secret") == []
    assert b"secret" not in b"".join(array.tobytes() for array in dump(engine).values())
    assert engine.next_change_us() is None
    assert len(engine.results("other")) == 2


def test_what_is_let_go_still_counts() -> None:
    engine = RuleEngine([FIRES, TWICE])
    apply(engine, buys(1_001))
    before = [(result.count, result.edges) for result in engine.results("u")]
    assert engine.trim(START_US + 1_000) > 1_500
    again = load(engine.rules, dump(engine))
    assert [(result.count, result.edges) for result in again.results("u")] == before
    for each in (engine, again):
        assert len(apply(each, buys(1, start_us=START_US + 2_000))) == 1
    # A late event folds again from what was let go.
    apply(again, buys(1, "u", START_US + 1_500))
    assert [result.count for result in again.results("u")] == [1, 1_003]


def test_a_snapshot_says_which_rules_it_does_not_have() -> None:
    arrays = dump(RuleEngine([TWICE]))
    newer = replace(TWICE, version=2)
    assert missing([newer, FIRES], arrays) == [newer, FIRES]
    assert load([newer, FIRES], arrays).rules == [newer, FIRES]


def test_time_brings_events_that_were_ahead_and_ends_periods() -> None:
    dated = replace(TWICE, period=replace(TWICE.period, start="2021-02-01", end="2021-02-01"))
    engine = RuleEngine([dated])
    assert engine.next_change_us() == START_US
    log = [replace(row, received_at_us=START_US - 1) for row in buys(2)]
    assert apply(engine, log) == []
    assert engine.next_change_us() == START_US + 1
    engine.advance(START_US + 2)
    (action,) = engine.take_actions()
    assert (action.at_us, action.decided_us) == (START_US + 1, START_US + 1)
    end_us = START_US + 24 * 60 * MINUTE_US
    assert engine.next_change_us() == end_us
    assert [result.final for result in engine.results("u")] == [False]
    engine.advance(end_us)
    assert [(result.final, result.holds) for result in engine.results("u")] == [(True, True)]


@pytest.mark.parametrize(
    ("count", "fires", "chain"),
    [
        ("trk_buy", "", ""),
        ("buy", "buy", "a -> a"),
        ("done", "buy", "a -> b -> a"),
        ("done", "other", ""),
    ],
)
def test_rules_that_would_feed_themselves_are_refused(count: str, fires: str, chain: str) -> None:
    fired = RuleAction(ActionKind.FIRE_EVENT, fires)
    rule = replace(FIRES, rule_id="a", event_name=count, action=fired, count_system_events=True)
    back = replace(FIRES, rule_id="b", event_name="buy", action=RuleAction(ActionKind.FIRE_EVENT, "done"))
    problems = check_cycles(rule, [back] if count == "done" else [])
    assert [problem.description for problem in problems] == ([f"would feed itself: {chain}"] if chain else [])


def test_a_rule_that_counts_properties_cannot_set_one() -> None:
    rule = replace(TWICE, event_name="set_properties", event_vendor="inkling", count_system_events=True)
    assert check_cycles(rule, [])
    assert not check_cycles(replace(rule, action=RuleAction(ActionKind.FIRE_EVENT)), [])
    assert check_cycles(TWICE, [replace(rule, rule_id="other", action=RuleAction(ActionKind.FIRE_EVENT, "buy"))])


@pytest.mark.parametrize("seed", range(4))
def test_a_back_test_says_what_the_final_events_come_to(seed: int) -> None:
    random = Random(seed)
    log = list(random_log(random, 150, USERS))
    truth = reference_of([TWICE], log, of_log=True)
    end_us = START_US + 40 * MINUTE_US
    for rule in random_rules(random, 8):
        batches = [EventBatch(build_batch(log[i : i + 40])) for i in range(0, len(log), 40)]
        found = back_test(rule, batches, START_US, end_us)
        reference = Reference([rule])
        reference.known = {i: event for i, event in truth.known.items() if event.occurred_at_us < end_us}
        reference.visible = set(reference.known)
        by_user = {user: reference.events(rule.rule_id, user) for user in USERS}
        assert found.events == sum(map(len, by_user.values()))
        assert found.users == sum(bool(events) for events in by_user.values())
        folded = [fold(rule, events) for events in by_user.values()]
        assert found.holding_users == sum(state.met for state in folded)
        assert found.hit_users == sum(any(e[0].occurred_at_us >= START_US for e in state.edges) for state in folded)
        edges = [edge for state in folded for edge in state.edges if edge[0].occurred_at_us >= START_US]
        assert found.hit_count == len(edges)
        assert sorted(hit.at_us for hit in found.hits) == sorted(edge[0].occurred_at_us for edge in edges)


def test_an_engine_without_corrections_and_one_with_all_of_them_agree() -> None:
    random = Random(7)
    rules = random_rules(random, 6)
    log = list(random_log(random, 120, USERS))
    run = Run(rules, of_log=False)
    run.apply(log)
    truth = reference_of(rules, log, of_log=False)
    clean = Run(rules, of_log=False)
    clean.apply([replace(event, operation=0, revision=0) for event in truth.known.values()])
    clean.engine.advance(run.engine.as_of_us)
    run.engine.advance(clean.engine.as_of_us)
    for user in USERS:
        mine, theirs = run.engine.results(user), clean.engine.results(user)
        assert [replace(each, is_set=False) for each in mine] == [replace(each, is_set=False) for each in theirs]


def test_a_correction_of_an_event_that_was_let_go_changes_nothing() -> None:
    run = Run([FIRES, replace(TWICE, event_name="view")], of_log=False)
    run.apply(buys(300))
    assert run.engine.trim(START_US + 300) == 300
    before = run.engine.result("fires", "u")
    gone, changed = buys(2)
    later = START_US + 1_000
    run.apply([replace(gone, operation=DELETE, received_at_us=later)])
    run.apply([replace(changed, operation=REPLACE, revision=1, received_at_us=later)])
    assert run.engine.result("fires", "u") == before
    # What comes late for the first time still counts.
    run.apply([EventRow("new", "buy", START_US, later, {"user_id": "u"})])
    after = run.engine.result("fires", "u")
    assert before is not None
    assert after is not None
    assert (before.count, after.count) == (0, 1)
    run.restart()
    assert run.engine.trimmed_us == START_US + 300
    assert run.engine.result("fires", "u") == after


def test_what_a_trimmed_log_lacks_is_said_of_rules_that_reach_that_far() -> None:
    dated = replace(TWICE, rule_id="dated", period=replace(TWICE.period, start="2021-02-01"))
    engine = RuleEngine([TWICE, dated])
    engine.note_complete_since(START_US)
    apply(engine, buys(2))
    for each in (engine, load(engine.rules, dump(engine))):
        told = {result.rule_id: result.complete_since_us for result in each.results("u")}
        assert told == {"twice": START_US, "dated": None}
        assert each.statistics("twice").complete_since_us == START_US
