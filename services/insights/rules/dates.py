"""The dates of rules: both ends are inside, and belong to a zone."""

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

from services.insights.rules.definitions import Period

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DATE_LENGTH = len("2021-02-01")


class DateError(ValueError):
    """The text is no date; the message says what is."""


def zone_of(name: str) -> tzinfo:
    """A zone by its IANA name. Raises DateError."""
    try:
        return UTC if name in ("UTC", "") else ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise DateError("is not a zone: give an IANA name such as Europe/Paris") from None


def start_us(text: str, zone: tzinfo) -> int:
    """The first instant of a date, or the instant of a timestamp. Raises DateError."""
    if len(text) == _DATE_LENGTH:
        return _midnight(_date(text), zone)
    return _timestamp(text, zone)


def end_us(text: str, zone: tzinfo) -> int:
    """The first instant after a date or timestamp: the end itself is inside. Raises DateError."""
    if len(text) == _DATE_LENGTH:
        try:
            return _midnight(_date(text) + timedelta(days=1), zone)
        except OverflowError:
            raise DateError("is beyond the year 9999: leave it out for an open end") from None
    return _timestamp(text, zone) + 1


def bounds(period: Period) -> tuple[int | None, int | None]:
    """Start inclusive and end exclusive, in microseconds; None is open. Raises DateError."""
    zone = zone_of(period.zone)
    start = start_us(period.start, zone) if period.start else None
    end = end_us(period.end, zone) if period.end else None
    return start, end


def instant_text(instant_us: int) -> str:
    """An instant as ISO 8601 in UTC, to the microsecond where needed."""
    return (_EPOCH + timedelta(microseconds=instant_us)).isoformat().replace("+00:00", "Z")


def parse_instant(text: str) -> int:
    """Microseconds since the epoch of a timestamp, UTC unless it says otherwise. Raises DateError."""
    return _timestamp(text, UTC)


def _date(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise DateError("is not a date: write it as 2021-02-01") from None


def _midnight(day: date, zone: tzinfo) -> int:
    try:
        return (datetime.combine(day, time(), zone).astimezone(UTC) - _EPOCH) // _MICROSECOND
    except OverflowError:
        raise DateError("is out of range") from None


def _timestamp(text: str, zone: tzinfo) -> int:
    try:
        instant = datetime.fromisoformat(text.removesuffix(" UTC"))
        aware = instant if instant.tzinfo else instant.replace(tzinfo=zone)
        return (aware.astimezone(UTC) - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        raise DateError("is not a date: write it as 2021-02-01 or 2021-02-01T12:00:00Z") from None
