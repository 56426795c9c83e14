"""CDNOW: 69,659 transactions of the 23,570 customers who first bought in early 1997, until June 1998.

Collected by Fader and Hardie (brucehardie.com). The file ships in the `lifetimes` package, from whose installed wheel
it is read, without importing the package.
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

from inkling import CustomerEvent

PACKAGE, FILE = "lifetimes", "lifetimes/datasets/CDNOW_master.txt"
PURCHASES, CUSTOMERS = 69_659, 23_570
VENDOR, NAME, VERSION = "com.cdnow", "purchase", "1-0-0"
KEY = "customer_id"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Purchase:
    """One line of the file: who bought how many CDs for how many dollars, and on which day (midnight, UTC)."""

    line: int
    customer: str
    at: datetime
    discs: int
    dollars: float

    @property
    def event_id(self) -> str:
        """Derived from the line's number, so that loading twice counts once; in the order of the file."""
        return f"cdnow-{self.line:05d}"

    @property
    def order(self) -> tuple[datetime, str]:
        """The total order of one customer's events."""
        return self.at, self.event_id

    def to_event(self) -> CustomerEvent:
        """The event of it."""
        return CustomerEvent(
            event_id=self.event_id,
            vendor=VENDOR,
            name=NAME,
            version=VERSION,
            occurred_at=self.at,
            keys={KEY: self.customer},
            properties={"discs": self.discs, "dollars": self.dollars},
        )

    def taken_back(self) -> CustomerEvent:
        """The event that says that it was returned: as if it had never been."""
        return replace(self.to_event(), revision=1, deleted=True)


def find_file() -> Path:
    """Where the installed wheel has the file; FileNotFoundError when it is not installed."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        files = []
    for each in files:
        if str(each) == FILE:
            return Path(str(each.locate()))
    raise FileNotFoundError(f"{FILE} is in the package {PACKAGE}, which is not installed: `make install` installs it")


def read(path: Path) -> list[Purchase]:
    """The purchases in the order of time, as the shop saw them. ValueError when the file is not the known one."""
    purchases: list[Purchase] = []
    with path.open() as file:
        next(file)
        for number, text in enumerate(file, start=2):
            customer, day, discs, dollars = text.split()
            at = datetime(int(day[:4]), int(day[4:6]), int(day[6:]), tzinfo=UTC)
            purchases.append(Purchase(number, customer, at, int(discs), float(dollars)))
    customers = {each.customer for each in purchases}
    if (len(purchases), len(customers)) != (PURCHASES, CUSTOMERS):
        raise ValueError(f"{path} holds {len(purchases):,} purchases of {len(customers):,} customers: another file")
    return sorted(purchases, key=lambda purchase: purchase.order)


def by_customer(purchases: list[Purchase]) -> dict[str, list[Purchase]]:
    """Each customer's purchases, in order."""
    found: dict[str, list[Purchase]] = defaultdict(list)
    for purchase in sorted(purchases, key=lambda purchase: purchase.order):
        found[purchase.customer].append(purchase)
    return dict(found)


def instant_after(purchases: list[Purchase]) -> datetime:
    """The instant at which the log's clock stands once these are applied: just after the newest."""
    return max(purchase.at for purchase in purchases) + timedelta(microseconds=1)
