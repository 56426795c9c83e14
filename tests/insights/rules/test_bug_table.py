"""Each row of the bug table in the conformance document `rules_original.md`, with our rule's answer."""

from decimal import Decimal

import numpy as np
import pytest

from services.insights.rules.definitions import Condition, Operator, Rule
from services.insights.rules.engine import RuleEngine, running_instants
from services.kernel.building import EventRow, build_batch
from services.kernel.columns import EventBatch
from services.kernel.dedup import Deduplicator

from .offline_runs import DAY_MS, START_MS, Offline, as_csv, count, event, rule

FIRE, SET, UNSET = "fire_event", "set_property", "unset_property"


def events(size: int, user: str = "u", start: int = 0, **more: object) -> list[dict[str, str]]:
    return [event(START_MS + (start + i) * 1_000, user, **more) for i in range(size)]


def test_b1_every_rule_of_an_event_type_has_its_own_operators_and_state(offline: Offline) -> None:
    table = [count("equal", 2, attributename="lang", attributevalue="C"), count("equal", 3, resetwhenreachtarget="yes")]
    lines = events(2, attributes={"lang": "C"}) + events(1, start=5, attributes={"lang": "D"})
    assert offline.names(table, lines) == [(SET, "buy_C"), (FIRE, "trk_buy")]
    assert offline.names(table[::-1], lines) == [(SET, "buy_C"), (FIRE, "trk_buy")]


def test_b2_the_rule_names_the_metric_decimals_are_kept_and_bad_values_are_told(offline: Offline) -> None:
    table = [rule(operator_v="equal", target_v="0.3", metric="b")]
    lines = events(1, metrics={"a": 5, "b": 0.1}) + events(1, start=1, metrics={"a": 7, "b": 0.2})
    (action,) = offline.actions(table, lines)
    assert (action["name"], action["sum"]) == ("buy", 0.3)
    bad = event(START_MS, metrics={"b": "many"})
    done = offline.run(table, [bad, *lines])
    assert (done.exit_code, done.stdout.count("\n")) == (1, 1)
    assert "line 2, metrics.b: is not a number" in done.stderr


@pytest.mark.parametrize("which", ["c", "v"])
def test_b3_an_unknown_operator_is_refused_on_both_sides_and_less_is_known(offline: Offline, which: str) -> None:
    cells = {f"operator_{which}": "graeter", f"target_{which}": "3"}
    done = offline.run([rule(**cells)], events(5, metrics={"m": 1}))
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"Operator-{which.upper()}: 'graeter' is not an operator (is it greater?)" in done.stderr
    both = rule(operator_c="less", target_c="3", operator_v="equal", target_v="2")
    assert offline.names([both], events(3, metrics={"m": 1})) == [(SET, "buy"), (UNSET, "buy")]


def test_b4_a_row_without_any_operator_is_refused_and_the_others_go_on(offline: Offline) -> None:
    done = offline.run([rule(), count("equal", 1)], events(1))
    assert "line 2, Operator-C: neither the count nor the sum has a condition" in done.stderr
    assert (done.exit_code, done.stdout.count("\n")) == (1, 1)


def test_b5_events_without_user_session_or_attributes_are_legal(offline: Offline) -> None:
    lines = [event(START_MS, ""), *events(2)]
    assert offline.names([count("equal", 2)], lines) == [(SET, "buy")]


def test_b6_an_event_delivered_again_counts_once(offline: Offline) -> None:
    lines = [event(START_MS + i, event_id=f"e{i // 2}") for i in range(6)]
    assert offline.names([count("greater_or_equal", 4)], lines) == []
    assert offline.names([count("greater_or_equal", 3)], lines) == [(SET, "buy")]


def test_b7_one_fold_by_user_fires_once_however_the_log_is_cut() -> None:
    definition = Rule("r", "buy", Condition(Operator.EVERY, Decimal(2)))
    log = [EventRow(f"e{i}", "buy", i, i, {"user_id": "u"}) for i in range(10)]
    told = []
    for size in (1, 3, 10):
        engine, deduplicator = RuleEngine([definition]), Deduplicator(10**9)
        for start in range(0, len(log), size):
            batch = EventBatch(build_batch(log[start : start + size]))
            done = deduplicator.resolve(batch).actions
            engine.apply(batch, done, running_instants(batch, done, of_log=True, before_us=engine.as_of_us))
        told.append([(action.action_id, action.at_us) for action in engine.take_actions()])
    assert told[0] == told[1] == told[2]
    assert len(told[0]) == 5 + 4  # set by each second event, withdrawn by the next


def test_b8_both_dates_are_inside_in_the_zone_of_the_rule(offline: Offline) -> None:
    dated = {"ruletype": "date", "startdate": "2021-02-01", "finishdate": "2021-02-02"}
    last_ms = START_MS + 2 * DAY_MS - 1
    lines = [event(START_MS - 1), event(START_MS), event(last_ms), event(last_ms + 1)]
    (action,) = offline.actions([count("greater", 1, **dated)], lines)
    assert (action["instant"], action["count"]) == ("2021-02-02T23:59:59.999000Z", 2)
    assert action["name"] == "trk_date_buy"
    hour = DAY_MS // 24
    paris = count("equal", 1, **dated, zone="Europe/Paris")
    assert offline.names([paris], [event(START_MS - hour - 1)]) == []
    assert offline.names([paris], [event(START_MS - hour)]) == [(SET, "trk_date_buy")]
    assert offline.names([paris], [event(START_MS + 2 * DAY_MS - hour)]) == []


def test_b9_event_time_decides_when_events_come_late(offline: Offline) -> None:
    table = [count("equal", 2, ruletype="date", startdate="2021-02-01", finishdate="2021-02-01")]
    lines = [event(START_MS), event(START_MS + 5 * DAY_MS), event(START_MS + 1)]
    for more in ((), ("--as-they-came",)):
        assert offline.names(table, lines, *more) == [(SET, "trk_date_buy")]
    # What is late re-evaluates, and fires nothing for a past edge.
    fires = [count("equal", 2, resetwhenreachtarget="yes", attributename="a", attributevalue="1")]
    marked = [line | {"attributes": '{"a": "1"}'} for line in (lines[0], lines[2])]
    late = [marked[0], lines[1], marked[1]]
    assert offline.names(fires, late) == [(FIRE, "trk_buy_1")]
    assert offline.names(fires, late, "--as-they-came") == []


def test_b10_nothing_is_lost_beyond_a_first_page(offline: Offline) -> None:
    table = [count("equal", 1, eventname=f"e{i}") for i in range(150)]
    lines = [event(START_MS + i, name=f"e{i}") for i in range(150)]
    assert len(offline.actions(table, lines)) == 150
    assert offline.actions([count("equal", 9_000)], events(9_000))[0]["count"] == 9_000


@pytest.mark.parametrize("value", ["C++", "it's", 'say "x"', "(", "a.c", "[", "é", "na", "999"])
def test_b11_b12_attribute_values_are_compared_as_they_are(offline: Offline, value: str) -> None:
    table = [count("equal", 1, attributename="lang", attributevalue=value)]
    near = [
        event(START_MS, attributes={"lang": text}) for text in (value + "x", "x" + value, "abc", value.upper() + "1")
    ]
    assert offline.names(table, near) == []
    assert offline.names(table, [*near, event(START_MS + 9, attributes={"lang": value})]) == [(SET, f"buy_{value}")]


def test_b13_users_and_events_do_not_run_into_each_other(offline: Offline) -> None:
    table = [count("equal", 2, eventname="x"), count("equal", 2, eventname="2x")]
    lines = [event(START_MS, "u1", "2x"), event(START_MS, "u12", "x"), event(START_MS, "u#1#", "x")]
    assert offline.names(table, lines) == []
    assert offline.actions(table, [*lines, event(START_MS + 1, "u#1#", "x")])[0]["user"] == "u#1#"


def test_b14_results_of_two_dated_rules_of_an_event_are_kept_apart(offline: Offline) -> None:
    first = count("greater", 1, ruletype="date", startdate="2021-02-01", finishdate="2021-02-01")
    second = count("equal", 1, ruletype="date", startdate="2021-02-01", finishdate="2021-02-28")
    found = offline.actions([first, second], events(2))
    told = [(action["rule"], action["action"]) for action in found]
    # The second no longer holds, but the property stays: the first holds.
    assert told == [("date_buy_2", SET), ("date_buy", SET)]
    assert {action["name"] for action in found} == {"trk_date_buy"}


def test_b15_actions_carry_no_channel_and_no_consent(offline: Offline) -> None:
    (action,) = offline.actions([count("equal", 1, resetwhenreachtarget="yes")], events(1))
    assert set(action) == {"instant", "rule", "user", "action", "name", "value", "count", "sum"}


def test_b16_greater_fires_on_the_fourth_and_every_on_each_third(offline: Offline) -> None:
    def fired(operator: str) -> list[str]:
        table = [count(operator, 3, resetwhenreachtarget="yes")]
        return [action["instant"][-3:-1] for action in offline.actions(table, events(9))]

    assert fired("greater") == ["03", "07"]
    assert fired("greater_or_equal") == fired("every") == ["02", "05", "08"]


def test_b17_what_no_longer_holds_is_withdrawn(offline: Offline) -> None:
    assert offline.names([count("equal", 2)], events(3)) == [(SET, "buy"), (UNSET, "buy")]
    for word in ("smaller", "less"):
        found = offline.actions([count(word, 3)], events(4))
        assert [(action["action"], action["count"]) for action in found] == [(SET, 1), (UNSET, 3)]


def test_b18_a_value_without_an_attribute_is_told_and_not_used(offline: Offline) -> None:
    done = offline.run([count("equal", 1, attributevalue="x")], events(1))
    assert (done.exit_code, done.stdout.count("\n")) == (0, 1)
    assert "warning" in done.stderr
    assert "AttributeName is `na`" in done.stderr


def test_b19_many_users_qualify_at_once(offline: Offline) -> None:
    lines = [event(START_MS + i % 2, f"u{i // 2}") for i in range(10_000)]
    found = offline.actions([count("equal", 2)], lines)
    assert len({action["user"] for action in found}) == 5_000


def test_b20_messages_quote_no_cell_of_an_event(offline: Offline) -> None:
    secret = "ada@example.org"
    lines = [
        event(START_MS, secret, metrics=secret),
        event(START_MS, secret, attributes=f"[{secret}"),
        event(START_MS, secret, metrics={"m": secret}),
        {"event_type": "buy", "event_timestamp": secret, "user_id": secret},
        {"event_type": f"a/{secret}", "event_timestamp": "1", "user_id": secret},
    ]
    done = offline.run([count("equal", 1)], lines)
    assert done.exit_code == 1
    assert done.stderr.count("line ") == 5
    assert secret not in done.stderr


def test_one_bad_record_never_fails_the_others_of_its_batch() -> None:
    definition = Rule("r", "buy", Condition(Operator.EQUAL, Decimal(1)))
    batch = EventBatch(build_batch([EventRow("a", "buy", 1, 1, {}), EventRow("b", "buy", 2, 2, {"user_id": "u"})]))
    engine = RuleEngine([definition])
    engine.apply(batch, np.ones(2, np.int8), np.array([2, 3], np.int64))
    assert [action.user for action in engine.take_actions()] == ["u"]


def test_the_table_may_come_in_any_order_of_columns(offline: Offline) -> None:
    row = count("equal", 1)
    turned = as_csv([dict(reversed(list(row.items())))]).replace("Operator-C", "operator_c")
    assert offline.names(turned, events(1)) == [(SET, "buy")]
