"""Random definitions and random logs for the kernel's properties.

Alphabets are small on purpose: equal times, equal ids, equal values and window edges must meet often. Times lie on a
few days around the ends of months, a microsecond apart or together; periods are differences of such times.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from hypothesis import strategies as st

from services.kernel.aggregations import NUMERIC_ONLY, ORDERED_ONLY, WITHOUT_TERM, Aggregation, Function, TermType
from services.kernel.building import Entity, EventRow, Scalar, from_us
from services.kernel.expressions import (
    AllOf,
    AnyOf,
    Compare,
    Constant,
    EventTypeIs,
    Everything,
    Expression,
    Instant,
    OccurredWithin,
    Property,
)
from services.kernel.windows import CalendarWindow, Lifetime, Rolling, Window

from .reference import ADD, DAY_US, DELETE, REPLACE, microseconds

START_US = microseconds(datetime(2024, 1, 29, 12, tzinfo=UTC))
KEY = "user"
KEY_VALUES = ("ada", "bob", "çiğdem")
KEYS = ({KEY: "ada"},) * 8 + ({KEY: "bob"}, {KEY: KEY_VALUES[2], "other": "o"}, {"other": "o"})
RECEIVED_US = START_US - 2 * DAY_US
"""When the first records are received: before all event times, so that a wall clock leaves the instants to the test."""
HORIZON_US = 3_600_000_000
DAYS = (0, 0, 0, 0, 0, 1, 1, 2, 29, 30, 31, 32, 60, 366)
JITTERS = (0, 0, 0, 0, 1, 2, DAY_US // 2, DAY_US // 2 + 1)
TIMES_US = tuple(START_US + day * DAY_US + jitter for day in DAYS for jitter in JITTERS)
STEMS = ("", "id-with-a-long-common-prefix-", "é", "zz")
IDS = tuple(f"{stem}{number * 37 % 100}" for number in range(30) for stem in STEMS)
OPERATIONS = (*((ADD, 0),) * 16, (REPLACE, 1), (REPLACE, 2), (REPLACE, 3), (DELETE, 0))
PERIODS = (1, 2, 3, DAY_US - 1, DAY_US, DAY_US + 1, 30 * DAY_US, 31 * DAY_US)

X, Y = Property("atomic", "x"), Property("atomic", "y")
PATH = Property("event", "path", vendor="shop", name="view", major_version=1)
DEVICES = tuple(Property("entity", "device", "ua", "context", 1, index) for index in (0, 1))
PROPERTIES = (X, X, X, Y, PATH, *DEVICES)

TEXTS = ("", "a", "b", "ab", "A", "%", "é")
INTEGERS = (0, 1, -1, 2, 3, 2**53 + 1, 2**63 - 1, -(2**63))
DOUBLES = (0.0, -0.0, 0.1, 0.2, -0.1, 2.0, 3.0, 1e16, 1e308, -1e308, 5e-324, -5e-324, 2.0**53, 2.0**63, -(2.0**63))
INSTANTS_US = (START_US, START_US + 1, START_US + DAY_US)
COMMON: tuple[Scalar | None, ...] = (
    *(1, 2, 2.0, 0.1, -0.0, None, "a", "b", True, False),
    *map(from_us, INSTANTS_US[:2]),
)
SCALARS: tuple[Scalar | None, ...] = (
    *COMMON * 4, *TEXTS, *INTEGERS, *DOUBLES, True, False, *map(from_us, INSTANTS_US * 3), ["a", "b"]
)  # fmt: skip
GAPS = (*(0,) * 12, 1, -1, -HORIZON_US // 2, HORIZON_US // 2, HORIZON_US - 1, HORIZON_US)
COMMON_FILTERS: tuple[Expression, ...] = (
    *(Everything(), Everything()),
    EventTypeIs("shop"),
    Compare(X, "is_not_null"),
)
CONTENTS = (*({"x": x} for x in SCALARS), *({"x": x, "y": y} for x in COMMON for y in COMMON), {})
DATA = ({}, {}, *({"path": value} for value in COMMON))


def devices(*values: Scalar | None) -> tuple[Entity, ...]:
    """Entities of one kind with these devices, and one of another kind before them."""
    return (Entity("ua", "other", 1, {"device": 9}), *(Entity("ua", "context", 1, {"device": v}) for v in values))


ENTITIES = ((), (), (Entity("ua", "context", 2, {"device": 9}),), *(devices(a, b) for a in COMMON for b in COMMON))
TYPES = (*(("shop", "view", "1-0-0"),) * 4, ("", "view", "1-0-0"), ("shop", "buy", "1-0-0"), ("shop", "view", "2-0-0"))


def times() -> st.SearchStrategy[int]:
    """Event times and instants to read at: few days, often equal or a microsecond apart."""
    return st.sampled_from(TIMES_US)


def constants() -> st.SearchStrategy[Constant]:
    """What a property is compared with."""
    return st.one_of(
        st.sampled_from(TEXTS),
        st.sampled_from(INTEGERS),
        st.sampled_from((0.1, 1.5, 2.0, 2.0**53, -0.0)),
        st.booleans(),
        st.sampled_from(INSTANTS_US).map(Instant),
    )


def compares() -> st.SearchStrategy[Compare]:
    """One criterion."""
    places = st.sampled_from(PROPERTIES)
    patterns = st.sampled_from(("%", "a%", "_", "\\%", "%b"))
    operators = st.sampled_from(("=", "!=", "<", ">", "<=", ">="))
    null_tests = st.builds(Compare, places, st.sampled_from(("is_null", "is_not_null")))
    likes = st.builds(Compare, places, st.just("like"), st.tuples(patterns))
    sets = st.builds(Compare, places, st.just("in"), st.lists(constants(), min_size=1, max_size=3).map(tuple))
    single = st.builds(Compare, places, operators, st.tuples(constants()))
    return st.one_of(single, sets, likes, null_tests)


def event_types() -> st.SearchStrategy[EventTypeIs]:
    """A selector: given parts equal, absent ones match all."""
    return st.builds(
        EventTypeIs,
        st.sampled_from((None, "shop", "")),
        st.sampled_from((None, "view", "buy")),
        st.sampled_from((None, "1-0-0", "2-0-0")),
    )


@st.composite
def filters(draw: st.DrawFn) -> Expression:
    """A filter as definitions make them: selectors, criteria, an absolute range; mostly a common one."""
    if draw(st.integers(0, 9)) < 7:
        return draw(st.sampled_from(COMMON_FILTERS))
    ranges = st.builds(OccurredWithin, st.one_of(st.none(), times()), st.one_of(st.none(), times()))
    part = st.one_of(event_types(), compares(), ranges, st.lists(compares(), max_size=2).map(tuple).map(AnyOf))
    return draw(st.one_of(part, st.lists(part, max_size=3).map(tuple).map(AllOf)))


def windows() -> st.SearchStrategy[Window]:
    """Rolling, calendar and lifetime windows."""
    calendars = st.sampled_from(((0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (0, 2, 0), (0, 0, 0)))
    return st.one_of(
        st.just(Lifetime()),
        st.sampled_from(PERIODS).map(Rolling),
        calendars.map(lambda parts: CalendarWindow(*parts)),
    )


@st.composite
def aggregations(draw: st.DrawFn, functions: Sequence[Function] = tuple(Function)) -> Aggregation:
    """Any definition that an Aggregation accepts."""
    function = draw(st.sampled_from(functions))
    term = term_type = None
    if function not in WITHOUT_TERM:
        term = draw(st.sampled_from(PROPERTIES))
        allowed = set(TermType)
        if function in NUMERIC_ONLY:
            allowed = {TermType.INTEGER, TermType.NUMBER}
        elif function in ORDERED_ONLY:
            allowed -= {TermType.STRING, TermType.BOOLEAN}
        term_type = draw(st.sampled_from(sorted(allowed)))
    window = draw(windows())
    ttl_us = draw(st.one_of(st.none(), st.sampled_from(PERIODS))) if window == Lifetime() else None
    limited = function in (Function.UNIQUE_LIST, Function.CATEGORY_COUNT)
    limit = draw(st.sampled_from((0, 1, 2))) if limited else 0
    return Aggregation(function, draw(filters()), term, term_type, window, ttl_us, limit)


def event_ids() -> st.SearchStrategy[str]:
    """Ids that repeat now and then, whose order is not the order in which they come, some with a long prefix."""
    return st.sampled_from(IDS)


@st.composite
def events(draw: st.DrawFn, received_us: int = RECEIVED_US) -> EventRow:
    """One record of the log: mostly an added event, sometimes a replacement or a deletion."""
    operation, revision = draw(st.sampled_from(OPERATIONS))
    vendor, name, version = draw(st.sampled_from(TYPES))
    return EventRow(
        event_id=draw(event_ids()),
        name=name,
        occurred_at_us=draw(times()),
        received_at_us=received_us,
        keys=draw(st.sampled_from(KEYS)),
        vendor=vendor,
        version=version,
        properties=draw(st.sampled_from(CONTENTS)),
        data=draw(st.sampled_from(DATA)),
        entities=draw(st.sampled_from(ENTITIES)),
        operation=operation,
        revision=revision,
    )


@st.composite
def logs(draw: st.DrawFn, min_size: int = 1, max_size: int = 24) -> list[EventRow]:
    """A log: received times mostly rise, now and then across the horizon; some records come again word for word."""
    received_us = RECEIVED_US
    log: list[EventRow] = []
    for _ in range(draw(st.integers(min_size, max_size))):
        received_us += draw(st.sampled_from(GAPS))
        repeated = log and draw(st.integers(0, 9)) == 0
        record = again(draw(st.sampled_from(log)), received_us) if repeated else draw(events(received_us))
        log.append(record)
    return log


def again(record: EventRow, received_us: int) -> EventRow:
    """The same event, delivered once more."""
    fields = {name: getattr(record, name) for name in EventRow.__slots__}
    return EventRow(**(fields | {"received_at_us": received_us}))


def edges(definitions: Sequence[Aggregation], log: Sequence[EventRow]) -> list[int]:
    """The instants around which a value can change: an event happens, leaves a window, or outlives a ttl."""
    found: set[int] = set()
    for event in log:
        at_us = event.occurred_at_us
        found.add(at_us)
        for definition in definitions:
            leaves = definition.window.leaves_at_us(at_us)
            found |= {at_us + (definition.ttl_us or 0), at_us if leaves is None else leaves}
    return sorted({edge + step for edge in found for step in (-1, 0, 1, 2)})
