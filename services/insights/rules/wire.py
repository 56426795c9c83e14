"""Rules between messages and values. Nothing is judged here: `validation` does."""

from decimal import Decimal, InvalidOperation

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from inkling.insights.v1 import rule_pb2 as messages
from inkling.types.v1.value_pb2 import Value
from services.insights.actions.outbox import ActionState, Outgoing
from services.insights.rules.actions import RuleResult
from services.insights.rules.definitions import (
    DEFAULT_LATENESS_US,
    DEFAULT_USER_KEY,
    READY,
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
from services.insights.rules.store import StoredRule
from services.kernel.expressions import Instant

PREFIX = "rules/"
_STATES = {
    ActionState.PENDING: messages.RULE_ACTION_STATE_PENDING,
    ActionState.DONE: messages.RULE_ACTION_STATE_DONE,
    ActionState.DEAD: messages.RULE_ACTION_STATE_DEAD,
    ActionState.SUPPRESSED: messages.RULE_ACTION_STATE_SUPPRESSED,
}


def timestamp(instant_us: int) -> Timestamp:
    """An instant as a message."""
    return Timestamp(seconds=instant_us // 1_000_000, nanos=instant_us % 1_000_000 * 1_000)


def since_message(instant_us: int | None) -> Timestamp | None:
    """From when on something is complete; None: it lacks nothing."""
    return None if instant_us is None else timestamp(instant_us)


def state_message(state: ActionState) -> messages.RuleActionState.ValueType:
    """What became of an action."""
    return _STATES[state]


def read_rule(message: messages.Rule, rule_id: str) -> Rule:
    """A rule's content; what is missing or unknown is left for `validation` to find."""
    period, limits = message.period, message.limits
    lateness = message.allowed_lateness
    attribute = message.attribute
    total = message.sum
    quiet = limits.quiet_hours
    return Rule(
        rule_id,
        message.event_name,
        _read_condition(message.count) if message.HasField("count") else None,
        SumCondition(total.metric, _read_condition(total.condition)) if message.HasField("sum") else None,
        event_vendor=message.event_vendor if message.HasField("event_vendor") else None,
        event_version=message.event_version if message.HasField("event_version") else None,
        attribute=AttributeFilter(attribute.name, tuple(_read_value(value) for value in attribute.values))
        if message.HasField("attribute")
        else None,
        period=Period(period.start, period.end, period.zone or "UTC"),
        action=_read_action(message.action),
        reset=message.reset,
        sticky=message.sticky,
        allow_late_fire=message.allow_late_fire,
        allowed_lateness_us=_duration_us(lateness) if message.HasField("allowed_lateness") else DEFAULT_LATENESS_US,
        count_system_events=message.count_system_events,
        user_key=message.user_key or DEFAULT_USER_KEY,
        description=message.description,
        limits=Limits(
            limits.once_per_user,
            _duration_us(limits.cooldown),
            limits.per_hour,
            QuietHours(quiet.start, quiet.end, quiet.zone or "UTC") if limits.HasField("quiet_hours") else None,
        ),
        act_on_past=message.act_on_past,
    )


def rule_message(stored: StoredRule) -> messages.Rule:
    """A stored rule as a message."""
    rule = stored.rule
    message = messages.Rule(
        name=PREFIX + rule.rule_id,
        description=rule.description,
        event_name=rule.event_name,
        event_vendor=rule.event_vendor,
        event_version=rule.event_version,
        reset=rule.reset,
        sticky=rule.sticky,
        allow_late_fire=rule.allow_late_fire,
        allowed_lateness=_duration(rule.allowed_lateness_us),
        count_system_events=rule.count_system_events,
        user_key=rule.user_key,
        act_on_past=rule.act_on_past,
        active=stored.is_active,
        version=rule.version,
        action_name=rule.action_name,
        create_time=timestamp(stored.create_time_us),
        update_time=timestamp(stored.update_time_us),
        etag=stored.etag,
    )
    if rule.attribute is not None:
        message.attribute.name = rule.attribute.name
        message.attribute.values.extend(value_message(value) for value in rule.attribute.values)
    if rule.count is not None:
        message.count.CopyFrom(_condition(rule.count))
    if rule.sum is not None:
        message.sum.metric = rule.sum.metric
        message.sum.condition.CopyFrom(_condition(rule.sum.condition))
    if rule.has_dates:
        period = rule.period
        message.period.start, message.period.end, message.period.zone = period.start, period.end, period.zone
    _put_action(message.action, rule.action)
    if rule.limits != Limits():
        _put_limits(message.limits, rule.limits)
    return message


def result_message(result: RuleResult) -> messages.RuleResult:
    """What a rule says of a user."""
    return messages.RuleResult(
        rule=PREFIX + result.rule_id,
        version=result.version,
        compatible_name=result.name,
        holds=result.holds,
        since_time=timestamp(result.since_us) if result.since_us else None,
        count=result.count,
        sum=decimal_text(result.sum),
        hit_count=result.edges,
        property_set=result.is_set,
        final=result.final,
        complete_since_time=since_message(result.complete_since_us),
    )


def action_message(action: Outgoing) -> messages.RuleActionRecord:
    """What a rule asked for."""
    return messages.RuleActionRecord(
        action_id=action.action_id,
        rule=PREFIX + action.rule_id,
        version=action.version,
        user=action.user,
        effect=action.effect.value,
        action_name=action.name,
        state=_STATES[action.state],
        reason=action.reason,
        attempts=action.attempts,
        event_time=timestamp(action.at_us),
        create_time=timestamp(action.create_time_us),
        settle_time=None if action.done_time_us is None else timestamp(action.done_time_us),
    )


def decimal_text(number: Decimal | None) -> str | None:
    """A decimal as text without an exponent."""
    return None if number is None else format(number, "f")


def value_message(value: Constant) -> Value:
    """A constant as a message."""
    message = Value()
    if isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, str):
        message.string_value = value
    elif isinstance(value, int):
        message.int_value = value
    elif isinstance(value, float):
        message.double_value = value
    else:
        message.timestamp_value.FromMicroseconds(value.us)
    return message


def _condition(condition: Condition) -> messages.RuleCondition:
    name = f"RULE_OPERATOR_{condition.operator.name}" if condition.operator else "RULE_OPERATOR_UNSPECIFIED"
    return messages.RuleCondition(
        operator=messages.RuleOperator.Value(name), target=decimal_text(condition.target) or ""
    )


def _read_condition(message: messages.RuleCondition) -> Condition:
    names = dict(zip(messages.RuleOperator.values(), messages.RuleOperator.keys(), strict=True))
    name = names.get(message.operator, "").removeprefix("RULE_OPERATOR_")
    operator = Operator.__members__.get(name)
    try:
        return Condition(operator, Decimal(message.target[:100]))
    except InvalidOperation:
        return Condition(operator, None)


def _read_action(message: messages.RuleAction) -> RuleAction:
    kind = message.WhichOneof("kind")
    if kind == "fire_event":
        return RuleAction(ActionKind.FIRE_EVENT, message.fire_event.event_name)
    if kind == "webhook":
        return RuleAction(ActionKind.WEBHOOK, message.webhook.url)
    given = message.set_property
    return RuleAction(
        ActionKind.SET_PROPERTY, given.property, _read_value(given.value) if given.HasField("value") else READY
    )


def _put_action(message: messages.RuleAction, action: RuleAction) -> None:
    if action.kind is ActionKind.FIRE_EVENT:
        message.fire_event.event_name = action.name
        message.fire_event.SetInParent()
    elif action.kind is ActionKind.WEBHOOK:
        message.webhook.url = action.name
    else:
        message.set_property.property = action.name
        message.set_property.value.CopyFrom(value_message(action.value))


def _put_limits(message: messages.RuleLimits, limits: Limits) -> None:
    message.once_per_user, message.per_hour = limits.once_per_user, limits.per_hour
    message.cooldown.CopyFrom(_duration(limits.cooldown_us))
    if limits.quiet_hours is not None:
        quiet = limits.quiet_hours
        message.quiet_hours.start, message.quiet_hours.end, message.quiet_hours.zone = (
            quiet.start,
            quiet.end,
            quiet.zone,
        )


def _read_value(message: Value) -> Constant:
    kind = message.WhichOneof("kind")
    if kind == "timestamp_value":
        return Instant(message.timestamp_value.seconds * 1_000_000 + message.timestamp_value.nanos // 1_000)
    if kind in ("string_value", "double_value", "int_value", "bool_value"):
        value: Constant = getattr(message, kind)
        return value
    return ""


def _duration(duration_us: int) -> Duration:
    return Duration(seconds=duration_us // 1_000_000, nanos=duration_us % 1_000_000 * 1_000)


def _duration_us(message: Duration) -> int:
    return message.seconds * 1_000_000 + message.nanos // 1_000
