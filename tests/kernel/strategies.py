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
KEYS = ({KEY: "ada"},) * 4 + ({KEY: "bob"}, {KEY: KEY_VALUES[2], "other": "o"}, {"other": "o"})
HORIZON_US = 3_600_000_000
DAYS = (0, 0, 0, 1, 2, 29, 30, 31, 32, 60, 61, 366)
PERIODS = (1, 2, 3, DAY_US - 1, DAY_US, DAY_US + 1, 30 * DAY_US, 31 * DAY_US)

X, Y = Property("atomic", "x"), Property("atomic", "y")
PATH = Property("event", "path", vendor="shop", name="view", major_version=1)
DEVICES = tuple(Property("entity", "device", "ua", "context", 1, index) for index in (0, 1))
PROPERTIES = (X, X, X, Y, PATH, *DEVICES)

TEXTS = ("", "a", "b", "ab", "A", "%", "é")
INTEGERS = (0, 1, -1, 2, 3, 2**53 + 1, 2**63 - 1, -(2**63))
DOUBLES = (0.0, -0.0, 0.1, 0.2, -0.1, 2.0, 3.0, 1e16, 1e308, -1e308, 5e-324, -5e-324, 2.0**53, 2.0**63, -(2.0**63))
INSTANTS_US = (START_US, START_US + 1, START_US + DAY_US)


def times() -> st.SearchStrategy[int]:
    """Event times and instants to read at: few days, often equal or a microsecond apart."""
    return st.builds(
        lambda day, halves, jitter: START_US + day * DAY_US + halves * DAY_US // 2 + jitter,
        st.sampled_from(DAYS),
        st.sampled_from((0, 0, 1)),
        st.sampled_from((0, 0, 1, 2)),
    )


def scalars() -> st.SearchStrategy[Scalar | None]:
    """A property's value: of any kind, often a small number."""
    return st.one_of(
        st.sampled_from((1, 2, 1, 2, 2.0, 0.1)),
        st.none(),
        st.sampled_from(TEXTS),
        st.sampled_from(INTEGERS),
        st.sampled_from(DOUBLES),
        st.booleans(),
        st.sampled_from(INSTANTS_US).map(from_us),
        st.just(["a", "b"]),
    )


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


def filters() -> st.SearchStrategy[Expression]:
    """A filter as definitions make them: selectors, criteria, an absolute range; most often everything."""
    ranges = st.builds(OccurredWithin, st.one_of(st.none(), times()), st.one_of(st.none(), times()))
    parts = st.one_of(event_types(), compares(), ranges, st.lists(compares(), max_size=2).map(tuple).map(AnyOf))
    return st.one_of(st.just(Everything()), parts, st.lists(parts, max_size=3).map(tuple).map(AllOf))


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
    """Ids that repeat now and then, whose order is not the order in which they come, one long prefix among them."""
    stems = ("", "id-with-a-long-common-prefix-", "é")
    return st.builds(lambda stem, number: f"{stem}{number}", st.sampled_from(stems), st.integers(0, 99))


@st.composite
def events(draw: st.DrawFn, received_us: int = START_US, ids: st.SearchStrategy[str] | None = None) -> EventRow:
    """One record of the log: mostly an added event, sometimes a replacement or a deletion."""
    operation = draw(st.sampled_from((ADD,) * 7 + (REPLACE, REPLACE, DELETE)))
    device = st.dictionaries(st.just("device"), scalars())
    entity = st.builds(Entity, st.just("ua"), st.sampled_from(("context", "context", "other")), st.just(1), device)
    return EventRow(
        event_id=draw(ids or event_ids()),
        name=draw(st.sampled_from(("view", "view", "buy"))),
        occurred_at_us=draw(times()),
        received_at_us=received_us,
        keys=draw(
            st.sampled_from(({KEY: "ada"},) * 4 + ({KEY: "bob"}, {KEY: KEY_VALUES[2], "other": "o"}, {"other": "o"}))
        ),
        vendor=draw(st.sampled_from(("shop", "shop", ""))),
        version=draw(st.sampled_from(("1-0-0", "1-0-0", "2-0-0"))),
        properties=draw(st.fixed_dictionaries({}, optional={"x": scalars(), "y": scalars()})),
        data=draw(st.one_of(st.just({}), st.dictionaries(st.just("path"), scalars()))),
        entities=tuple(draw(st.one_of(st.just([]), st.lists(entity, max_size=3)))),
        operation=operation,
        revision=draw(st.integers(1, 3)) if operation == REPLACE else 0,
    )


@st.composite
def logs(draw: st.DrawFn, max_size: int = 24) -> list[EventRow]:
    """A log: received times rise, now and then across the horizon; some records are repeated word for word."""
    received_us = START_US
    log: list[EventRow] = []
    for _ in range(draw(st.integers(0, max_size))):
        received_us += draw(st.sampled_from((0, 0, 0, 1, HORIZON_US // 2, HORIZON_US - 1, HORIZON_US)))
        record = draw(events(received_us))
        if log and draw(st.integers(0, 7)) == 0:
            record = again(draw(st.sampled_from(log)), received_us)
        log.append(record)
    return log


def again(record: EventRow, received_us: int) -> EventRow:
    """The same event, delivered once more."""
    fields = {name: getattr(record, name) for name in EventRow.__slots__}
    return EventRow(**(fields | {"received_at_us": received_us}))
