"""Refuses rules that would feed themselves: a rule that counts what it, or a rule behind it, writes into the log."""

from collections.abc import Iterable

from services.insights.rules.definitions import ActionKind, Problem, Rule
from services.kernel.columns import RESERVED_VENDOR

SET_PROPERTIES = "set_properties"
"""The suite's own record of a property that was set."""


def check_cycles(rule: Rule, others: Iterable[Rule]) -> list[Problem]:
    """The mistake that a new or changed rule would close a cycle with the others; its older version is not among
    them that count. Attribute filters are not looked at: what is fired has none.
    """
    rules = {each.rule_id: each for each in others} | {rule.rule_id: rule}
    path = _path_back(rule, rules)
    if not path:
        return []
    chain = " -> ".join([*path, path[0]])
    hint = "count another event, or do not count system events" if rule.count_system_events else "fire another event"
    return [Problem("action", f"would feed itself: {chain}", hint)]


def _path_back(start: Rule, rules: dict[str, Rule]) -> list[str]:
    """The ids of a shortest cycle through a rule, beginning with it; empty when there is none."""
    paths = {start.rule_id: [start.rule_id]}
    queue = [start]
    while queue:
        rule = queue.pop(0)
        for other in rules.values():
            if not _feeds(rule, other):
                continue
            if other.rule_id == start.rule_id:
                return paths[rule.rule_id]
            if other.rule_id not in paths:
                paths[other.rule_id] = [*paths[rule.rule_id], other.rule_id]
                queue.append(other)
    return []


def _feeds(writer: Rule, counter: Rule) -> bool:
    """Whether what a rule writes is what another counts."""
    if writer.action.kind is ActionKind.FIRE_EVENT:
        # Fired events have no vendor and no version.
        plain = counter.event_vendor in (None, "") and counter.event_version is None
        return plain and counter.event_name == writer.action_name
    if writer.action.kind is ActionKind.SET_PROPERTY and counter.count_system_events:
        return counter.event_name == SET_PROPERTIES and counter.event_vendor in (None, RESERVED_VENDOR)
    return False
