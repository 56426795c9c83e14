"""Rules as JSON documents, for the database."""

import json
from decimal import Decimal
from typing import Any

from services.insights.rules.definitions import (
    ActionKind,
    AttributeFilter,
    Condition,
    Constant,
    Limits,
    Operator,
    Period,
    QuietHours,
    Rule,
    RuleAction,
    SumCondition,
)
from services.kernel.expressions import Instant

_PLAIN = (
    "rule_id",
    "event_name",
    "event_vendor",
    "event_version",
    "reset",
    "sticky",
    "allow_late_fire",
    "allowed_lateness_us",
    "count_system_events",
    "user_key",
    "version",
    "description",
    "live_from_us",
    "act_on_past",
)


def write_document(rule: Rule) -> str:
    """A rule as a JSON document."""
    document: dict[str, Any] = {name: getattr(rule, name) for name in _PLAIN}
    if rule.count is not None:
        document["count"] = _condition(rule.count)
    if rule.sum is not None:
        document["sum"] = {"metric": rule.sum.metric, **_condition(rule.sum.condition)}
    if rule.attribute is not None:
        document["attribute"] = {
            "name": rule.attribute.name,
            "values": [constant_json(v) for v in rule.attribute.values],
        }
    period, action, limits = rule.period, rule.action, rule.limits
    document["period"] = [period.start, period.end, period.zone]
    document["action"] = {"kind": action.kind.value, "name": action.name, "value": constant_json(action.value)}
    quiet = limits.quiet_hours
    document["limits"] = {
        "once_per_user": limits.once_per_user,
        "cooldown_us": limits.cooldown_us,
        "per_hour": limits.per_hour,
        "quiet_hours": [quiet.start, quiet.end, quiet.zone] if quiet else None,
    }
    return json.dumps(document, sort_keys=True)


def read_document(text: str) -> Rule:
    """A rule from its JSON document, as `write_document` wrote it."""
    document = json.loads(text)
    total, limits, action = document.get("sum"), document["limits"], document["action"]
    quiet, attribute = limits["quiet_hours"], None
    if "attribute" in document:
        values = tuple(read_constant(value) for value in document["attribute"]["values"])
        attribute = AttributeFilter(document["attribute"]["name"], values)
    return Rule(
        **{name: document[name] for name in _PLAIN},
        count=_read_condition(document["count"]) if "count" in document else None,
        sum=SumCondition(total["metric"], _read_condition(total)) if total else None,
        attribute=attribute,
        period=Period(*document["period"]),
        action=RuleAction(ActionKind(action["kind"]), action["name"], read_constant(action["value"])),
        limits=Limits(
            limits["once_per_user"], limits["cooldown_us"], limits["per_hour"], QuietHours(*quiet) if quiet else None
        ),
    )


def constant_json(value: Constant) -> Any:
    """A constant as JSON that keeps its type."""
    return {"instant_us": value.us} if isinstance(value, Instant) else value


def read_constant(value: Any) -> Constant:
    """A constant from its JSON."""
    return Instant(value["instant_us"]) if isinstance(value, dict) else value


def _condition(condition: Condition) -> dict[str, str]:
    assert condition.operator is not None, "a stored rule is valid"
    return {"operator": condition.operator.value, "target": str(condition.target)}


def _read_condition(document: dict[str, str]) -> Condition:
    return Condition(Operator(document["operator"]), Decimal(document["target"]))
