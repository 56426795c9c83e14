"""Long random histories, for what small ones cannot reach: grown arrays, many keys, states that definitions share."""

from collections.abc import Iterator
from random import Random

from services.kernel.aggregations import NUMERIC_ONLY, ORDERED_ONLY, WITHOUT_TERM, Aggregation, Function, TermType
from services.kernel.building import EventRow, Scalar, from_us
from services.kernel.expressions import Compare, EventTypeIs, Everything, Expression
from services.kernel.windows import CalendarWindow, Lifetime, Rolling, Window

from .reference import ADD, DAY_US, DELETE, REPLACE
from .strategies import HORIZON_US, KEY, KEY_VALUES, RECEIVED_US, START_US, X, Y, again

SPAN_US = 80 * DAY_US
FILTERS: tuple[Expression, ...] = (Everything(), EventTypeIs(name="view"), Compare(Y, "in", ("a", "b", 1)))
WINDOWS: tuple[Window, ...] = (
    *(Rolling(days * DAY_US) for days in (1, 7, 30)),
    *(CalendarWindow(0, 1, 0), CalendarWindow(0, 0, 3), Lifetime()),
)


def term_types(function: Function) -> tuple[TermType | None, ...]:
    """The term types that a function takes."""
    if function in WITHOUT_TERM:
        return (None,)
    if function in NUMERIC_ONLY:
        return (TermType.INTEGER, TermType.NUMBER)
    return (TermType.INTEGER, TermType.NUMBER, TermType.TIMESTAMP) if function in ORDERED_ONLY else tuple(TermType)


def random_definitions(random: Random, count: int) -> list[Aggregation]:
    """Definitions over few filters and one term, so that they share what can be shared."""
    return [random_definition(random) for _ in range(count)]


def random_definition(random: Random) -> Aggregation:
    """One definition."""
    function = random.choice(tuple(Function))
    term_type = random.choice(term_types(function))
    window = random.choice(WINDOWS)
    ttl_us = random.choice((None, DAY_US, 3 * DAY_US)) if window == Lifetime() else None
    limit = random.choice((0, 1, 3)) if function in (Function.UNIQUE_LIST, Function.CATEGORY_COUNT) else 0
    return Aggregation(
        function, random.choice(FILTERS), None if term_type is None else X, term_type, window, ttl_us, limit
    )


def random_value(random: Random) -> Scalar | None:
    """A value of any kind: few distinct ones of each, now and then one of many."""
    makers = (
        lambda: random.randrange(-3, 12),
        lambda: random.choice((0.1, 0.2, -0.0, 2.5, 1e300, -1e300, 5e-324, random.random() * 1e6)),
        lambda: random.choice(("a", "b", "ä", f"text {random.randrange(200)}")),
        lambda: random.random() < 0.5,
        lambda: from_us(START_US + random.randrange(9)),
        lambda: None,
    )
    return random.choice(makers)()


def random_log(random: Random, size: int) -> Iterator[EventRow]:
    """Records mostly in the order of time, some late, some ahead; ties, corrections and repeats among them."""
    received_us = RECEIVED_US
    kept: list[EventRow] = []
    for number in range(size):
        received_us += random.choice((0, 0, 1, 20 * HORIZON_US // size))
        if kept and random.random() < 0.05:
            yield again(random.choice(kept), received_us)
            continue
        operation = random.choices((ADD, REPLACE, DELETE), (94, 4, 2))[0]
        known = random.choice(kept).event_id if kept and operation != ADD else None
        progress = START_US + number * SPAN_US // size + random.randrange(-2 * DAY_US, 2 * DAY_US)
        row = EventRow(
            event_id=known or f"{random.randrange(16**8):x}",
            name=random.choice(("view", "view", "buy")),
            occurred_at_us=random.choice((progress, progress // DAY_US * DAY_US, START_US + random.randrange(SPAN_US))),
            received_at_us=received_us,
            keys={KEY: random.choice(KEY_VALUES)} if random.random() < 0.97 else {"other": "x"},
            properties={"x": random_value(random), "y": random.choice(("a", "b", "c", 1, None))},
            operation=operation,
            revision=random.randrange(1, 4) if operation == REPLACE else 0,
        )
        kept.append(row)
        yield row
