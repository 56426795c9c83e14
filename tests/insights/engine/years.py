"""More than a year of one bank's customers: CDNOW's real purchases as card payments, with salaries of every month.

Each row becomes known when its record arrives: at once, or up to forty days late. Some are corrected days later
(booked, another amount, moved to another day), some are taken back.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from examples.demo import cdnow
from services.insights.direct.outcome import Cell, Rows
from services.insights.engine.engine import Engine
from services.insights.engine.entering import from_values, hash_of
from services.insights.language.sources import transactions
from tests.insights.asking import us

HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_US, LAST_US = us("1997-04-01T00:00:00"), us("1998-04-01T00:00:00")
"""The year; the rows begin months earlier."""
Row = Mapping[str, Cell]


@dataclass(frozen=True, slots=True)
class Record:
    """What becomes known of one transaction at an instant; without a row it is taken back."""

    arrives_us: int
    customer: str
    event_id: str
    row: Row | None


def records(seed: int, customers: int) -> list[Record]:
    """Everything that becomes known of some customers, in the order in which it does."""
    random = Random(seed)
    bought = cdnow.by_customer(cdnow.read(cdnow.find_file()))
    chosen = random.sample([name for name, purchases in bought.items() if len(purchases) >= 4], customers)
    found: list[Record] = []
    for name in chosen:
        for purchase in bought[name]:
            time_us = round((purchase.at - EPOCH).total_seconds()) * 1_000_000 + random.choice((0, 0, 9, 14)) * HOUR_US
            found += _payment(random, name, purchase.event_id, time_us, purchase.dollars)
        found += _salaries(random, name)
    return sorted(found, key=lambda record: (record.arrives_us, record.event_id))


def _payment(random: Random, customer: str, event_id: str, time_us: int, dollars: float) -> list[Record]:
    row: dict[str, Cell] = {
        "date_time": time_us,
        "amount": -dollars,
        "credit_debit_indicator": "debit",
        "currency": random.choice(("GBP", "GBP", "GBP", "EUR")),
        "status": random.choice(("booked", "booked", "pending")),
        "category_l1": random.choice(("entertainment", "gambling_and_lotteries", "groceries")),
        "merchant": random.choice(("CDNOW", "Lotto", "Corner Shop")),
        "tags": (),
    }
    arrives = time_us + (random.randint(1, 40) * DAY_US if random.random() < 0.15 else random.randint(0, 3) * HOUR_US)
    found = [Record(arrives, customer, event_id, row)]
    later = arrives + random.randint(0, 20 * DAY_US)
    if row["status"] == "pending" or random.random() < 0.1:
        moved = time_us + random.choice((0, 0, DAY_US, -3 * DAY_US))
        amount = -dollars if random.random() < 0.5 else -round(dollars * 1.5, 2)
        found.append(
            Record(later, customer, event_id, row | {"date_time": moved, "amount": amount, "status": "booked"})
        )
    if random.random() < 0.07:
        found.append(Record(later + random.randint(1, 30 * DAY_US), customer, event_id, None))
    return found


def _salaries(random: Random, customer: str) -> list[Record]:
    monthly = random.choice((60.0, 400.0, 3_600.0))
    found = []
    for month in range(random.randint(-5, 3), random.randint(9, 16)):
        at = datetime(1997 + month // 12, month % 12 + 1, random.choice((1, 27, 28)), tzinfo=UTC)
        time_us = round((at - EPOCH).total_seconds()) * 1_000_000
        row: dict[str, Cell] = {
            "date_time": time_us,
            "amount": monthly,
            "credit_debit_indicator": "credit",
            "currency": "GBP",
            "status": "booked",
            "category_l1": "income",
            "tags": ("income", "regular-transaction"),
        }
        found.append(Record(time_us, customer, f"salary-{customer}-{month}", row))
    return found


class Truth:
    """The rows that are known, as the latest record of each has them."""

    def __init__(self) -> None:
        self._rows: defaultdict[str, dict[str, Row]] = defaultdict(dict)

    def take(self, arrived: Sequence[Record]) -> None:
        """Some more becomes known."""
        for record in arrived:
            self._rows[record.customer].pop(record.event_id, None)
            if record.row is not None:
                self._rows[record.customer][record.event_id] = record.row

    @property
    def customers(self) -> list[str]:
        """Everyone who was ever heard of."""
        return list(self._rows)

    def tables(self) -> dict[str, dict[str, Rows]]:
        """Everybody's rows, as the direct evaluator takes them."""
        return {name: {"transactions": table_of(list(rows.values()))} for name, rows in self._rows.items()}


def table_of(rows: Sequence[Row]) -> Rows:
    """Rows by column."""
    names = dict.fromkeys(name for row in rows for name in row)
    return Rows(len(rows), {name: [row.get(name) for row in rows] for name in names})


def give(engine: Engine, arrived: Sequence[Record]) -> None:
    """Some more becomes known to an engine; of each id only the latest record counts."""
    latest = {record.event_id: record for record in arrived}
    living = [record for record in latest.values() if record.row is not None]
    table = table_of([record.row for record in living if record.row is not None])
    new = from_values(
        transactions(),
        engine.pools,
        engine.customers,
        [record.customer for record in living],
        [record.event_id for record in living],
        table.columns,
    )
    engine.replace_rows("transactions", map(hash_of, latest), new)
