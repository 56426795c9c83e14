"""Says everything that is wrong with a rule at once: where, what, and what to do about it."""

import re
from collections.abc import Iterator
from decimal import Decimal
from urllib.parse import urlsplit

from services.insights.rules.dates import DateError, end_us, start_us, zone_of
from services.insights.rules.definitions import (
    RULE_ID,
    SYSTEM_PREFIXES,
    ActionKind,
    AttributeFilter,
    Condition,
    Limits,
    Operator,
    Period,
    Problem,
    Rule,
)
from services.kernel.columns import RESERVED_VENDOR

MAX_NAME = 256
MAX_VALUES = 100
MAX_TEXT = 4_096
MAX_COUNT = 10**15
MAX_SUM = Decimal(10) ** 30
MAX_LATENESS_US = 366 * 86_400_000_000
MAX_PER_HOUR = 1_000_000_000
_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
OPERATORS = ", ".join(Operator)


def check_rule(rule: Rule) -> list[Problem]:
    """The mistakes of a rule; empty when it may be stored."""
    return list(_check(rule))


def _check(rule: Rule) -> Iterator[Problem]:
    if not RULE_ID.fullmatch(rule.rule_id):
        yield Problem(
            "rule_id", "must be a lower-case letter, then up to 99 lower-case letters, digits and underscores"
        )
    yield from _check_event(rule)
    if rule.attribute is not None:
        yield from _check_attribute(rule.attribute)
    if rule.count is None and rule.sum is None:
        yield Problem("count", "neither the count nor the sum has a condition", "give at least one of them")
    if rule.count is not None:
        yield from _check_condition(rule.count, "count")
        yield from _check_count(rule.count)
    if rule.sum is not None:
        yield from _check_condition(rule.sum.condition, "sum")
        if len(rule.sum.metric) > MAX_NAME:
            yield Problem("sum.metric", f"must have at most {MAX_NAME} characters")
    yield from _check_period(rule.period)
    yield from _check_action(rule)
    if not 0 <= rule.allowed_lateness_us <= MAX_LATENESS_US:
        yield Problem("allowed_lateness", "must be from 0 to 366 days", "`allow_late_fire` has no limit")
    yield from _check_limits(rule.limits)
    if not rule.user_key or len(rule.user_key) > MAX_NAME:
        yield Problem("user_key", f"must have 1 to {MAX_NAME} characters", "such as user_id")
    if len(rule.description) > MAX_TEXT:
        yield Problem("description", f"must have at most {MAX_TEXT} characters")


def _check_event(rule: Rule) -> Iterator[Problem]:
    parts = {"event_name": rule.event_name, "event_vendor": rule.event_vendor, "event_version": rule.event_version}
    for name, part in parts.items():
        if part is None:
            continue
        if not part and name != "event_vendor":
            yield Problem(
                name, "is missing" if name == "event_name" else "is empty", "the exact name of the event type"
            )
        elif "/" in part or len(part) > MAX_NAME:
            yield Problem(name, f"must have at most {MAX_NAME} characters, no slash")
    if rule.count_system_events:
        return
    if rule.event_name.startswith(SYSTEM_PREFIXES):
        hint = "set count_system_events to count them"
        yield Problem("event_name", "names that begin with `trk_` or `_` are not counted", hint)
    if rule.event_vendor == RESERVED_VENDOR:
        yield Problem("event_vendor", "the suite's own events are not counted", "set count_system_events to count them")


def _check_attribute(attribute: AttributeFilter) -> Iterator[Problem]:
    if not attribute.name or len(attribute.name) > MAX_NAME:
        yield Problem("attribute.name", f"must have 1 to {MAX_NAME} characters", "leave the filter out to match all")
    if not 1 <= len(attribute.values) <= MAX_VALUES:
        yield Problem("attribute.values", f"must be 1 to {MAX_VALUES} values")
    for i, value in enumerate(attribute.values[:MAX_VALUES]):
        if isinstance(value, str) and len(value) > MAX_TEXT:
            yield Problem(f"attribute.values[{i}]", f"must have at most {MAX_TEXT} characters")
        if isinstance(value, float) and value != value:
            yield Problem(f"attribute.values[{i}]", "is not a number")


def _check_condition(condition: Condition, path: str) -> Iterator[Problem]:
    if condition.operator is None:
        yield Problem(f"{path}.operator", "is missing or unknown", f"one of {OPERATORS}")
    if condition.target is None or not condition.target.is_finite():
        yield Problem(f"{path}.target", "is missing or not a number")
        return
    if abs(condition.target) > MAX_SUM or -int(condition.target.as_tuple().exponent) > 30:
        yield Problem(f"{path}.target", "must be below 10^30, with at most 30 decimals")
    if condition.operator is Operator.EVERY and condition.target <= 0:
        yield Problem(f"{path}.target", "must be positive", "`every 3` is met by the 3rd, 6th, 9th event")


def _check_count(count: Condition) -> Iterator[Problem]:
    if count.target is None or not count.target.is_finite():
        return
    if count.target != count.target.to_integral_value() or not 0 <= count.target <= MAX_COUNT:
        yield Problem("count.target", f"must be a whole number from 0 to {MAX_COUNT}")
    # Who has no event has no result: a count is 1 at least.
    least = {Operator.EQUAL: 1, Operator.LESS_OR_EQUAL: 1, Operator.LESS: 2}.get(count.operator or Operator.EVERY, 0)
    if 0 <= count.target < least:
        yield Problem("count.target", "can never be met", "users without an event have no result")


def _check_period(period: Period) -> Iterator[Problem]:
    try:
        zone = zone_of(period.zone)
    except DateError as error:
        yield Problem("period.zone", str(error))
        return
    found: dict[str, int] = {}
    for name, text, read in (("start", period.start, start_us), ("end", period.end, end_us)):
        try:
            if text:
                found[name] = read(text, zone)
        except DateError as error:
            yield Problem(f"period.{name}", str(error))
    if len(found) == 2 and found["start"] >= found["end"]:
        yield Problem("period.end", "is before the start", "both ends are inside")


def _check_action(rule: Rule) -> Iterator[Problem]:
    action = rule.action
    if action.kind is ActionKind.WEBHOOK:
        yield from _check_url(action.name)
    elif len(rule.action_name) > MAX_NAME or "/" in rule.action_name:
        hint = "" if action.name else "the name made of event and value is not one: give a name yourself"
        yield Problem("action.name", f"must have at most {MAX_NAME} characters, no slash", hint)
    if action.kind is ActionKind.SET_PROPERTY and rule.reset and not rule.sticky:
        hint = "set sticky, or fire an event, or leave the reset out"
        yield Problem("reset", "a property would be withdrawn in the moment in which it is set", hint)


def _check_limits(limits: Limits) -> Iterator[Problem]:
    if not 0 <= limits.cooldown_us <= MAX_LATENESS_US:
        yield Problem("limits.cooldown", "must be from 0 to 366 days", "`once_per_user` has no end")
    if not 0 <= limits.per_hour <= MAX_PER_HOUR:
        yield Problem("limits.per_hour", f"must be from 0 to {MAX_PER_HOUR}", "0 means no limit")
    quiet = limits.quiet_hours
    if quiet is None:
        return
    for name, text in (("start", quiet.start), ("end", quiet.end)):
        if not _TIME_OF_DAY.fullmatch(text):
            yield Problem(f"limits.quiet_hours.{name}", "is not a time of day", "such as 22:00")
    if quiet.start == quiet.end:
        yield Problem("limits.quiet_hours.end", "is the start", "leave the quiet hours out for none")
    try:
        zone_of(quiet.zone)
    except DateError as error:
        yield Problem("limits.quiet_hours.zone", str(error))


def _check_url(url: str) -> Iterator[Problem]:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username
    except ValueError:
        sound = False
    if not sound or len(url) > MAX_TEXT:
        yield Problem("action.name", "is not the URL of a webhook", "such as https://example.org/hook")
