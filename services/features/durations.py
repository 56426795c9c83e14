"""ISO-8601 durations as the Signals SDK writes and reads them: a year is 365 days, a month 30.

Instants in documents are ISO 8601 with a zone, and always written in UTC.
"""

import re
from datetime import UTC, datetime, timedelta

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
YEAR_US = 365 * DAY_US
MAX_DURATION_US = 1_000 * YEAR_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = r"(\d{1,18}(?:[.,]\d{1,9})?)"
_PATTERN = re.compile(
    rf"P(?=.)(?:{_NUMBER}Y)?(?:{_NUMBER}M)?(?:{_NUMBER}W)?(?:{_NUMBER}D)?"
    rf"(?:T(?=.)(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?",
    re.ASCII,
)
_UNITS_US = (YEAR_US, 30 * DAY_US, 7 * DAY_US, DAY_US, HOUR_US, MINUTE_US, SECOND_US)


def parse_duration(text: str) -> int | None:
    """Microseconds of a duration such as `P7D` or `P1Y2DT3H`, or None when it is not one that is exact to them."""
    match = _PATTERN.fullmatch(text)
    if match is None:
        return None
    total = 0
    for part, unit_us in zip(match.groups(), _UNITS_US, strict=True):
        if part is None:
            continue
        whole, _, fraction = part.replace(",", ".").partition(".")
        fraction_us, rest = divmod(int(fraction or 0) * unit_us, 10 ** len(fraction))
        if rest:
            return None
        total += int(whole) * unit_us + fraction_us
    return total


def format_duration(duration_us: int) -> str:
    """The shortest duration text in years of 365 days, days, hours, minutes and seconds."""
    years, rest = divmod(duration_us, YEAR_US)
    days, rest = divmod(rest, DAY_US)
    hours, rest = divmod(rest, HOUR_US)
    minutes, rest = divmod(rest, MINUTE_US)
    seconds, fraction = divmod(rest, SECOND_US)
    date = (f"{years}Y" if years else "") + (f"{days}D" if days else "")
    second_text = f"{seconds}.{fraction:06d}".rstrip("0").rstrip(".") if fraction else str(seconds)
    time = (f"{hours}H" if hours else "") + (f"{minutes}M" if minutes else "")
    time += f"{second_text}S" if seconds or fraction else ""
    return f"P{date}" + (f"T{time}" if time else "") if date or time else "PT0S"


def parse_instant(text: str) -> int | None:
    """Microseconds since the epoch of an ISO-8601 instant; without a zone it is UTC. None when it is not one."""
    try:
        instant = datetime.fromisoformat(text)
        aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
        return (aware - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return None


def format_instant(instant_us: int) -> str:
    """An instant as ISO 8601 in UTC, to the microsecond where needed."""
    return (_EPOCH + timedelta(microseconds=instant_us)).isoformat().replace("+00:00", "Z")
