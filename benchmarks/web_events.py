"""Web events in the form of the log, and the nineteen attributes of the Signals document over them.

Visitors come in sessions: a batch holds some twenty events of each visitor in it, as a site's traffic does. With
`scattered`, each event is of another random visitor: the worst case for caches and dictionaries.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from services.kernel.aggregations import Aggregation, Function, TermType
from services.kernel.columns import sorted_columns
from services.kernel.expressions import AllOf, AnyOf, Compare, EventTypeIs, Property
from services.kernel.windows import Rolling

VENDOR = "com.snowplowanalytics.snowplow"
DAY_US = 86_400_000_000
START_US = 1_700_000_000_000_000
KEY = "domain_userid"
TYPES = (
    f"{VENDOR}/page_view/1-0-0",
    f"{VENDOR}/page_ping/1-0-0",
    f"{VENDOR}/submit_form/1-0-0",
    f"{VENDOR}/focus_form/1-0-0",
    f"{VENDOR}.media/play/1-0-0",
)


@dataclass
class Traffic:
    """A site's events, batch after batch, in order of time."""

    visitors: int = 10_000
    scattered: bool = False
    seed: int = 1
    events_a_day: int = 5_000
    made: int = 0

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def batch(self, size: int) -> pa.RecordBatch:
        """The next events."""
        random, span = self._random, DAY_US * size // self.events_a_day
        begin = START_US + DAY_US * self.made // self.events_a_day
        times = np.sort(begin + random.integers(0, span, size))
        present = random.integers(0, self.visitors, size if self.scattered else max(1, size // 20))
        who = present if self.scattered else present[random.integers(0, len(present), size)]
        ids = [f"{self.made + i:08x}-5bd4-4f21-9f6c-{self.made + i:012x}" for i in range(size)]
        kinds = random.choice(len(TYPES), size, p=[0.40, 0.45, 0.03, 0.07, 0.05]).astype(np.int32)
        pages = random.integers(0, 500, size)
        campaigns = random.integers(0, 20, size)
        columns = {
            "event_id": pa.array(ids),
            "event_type": pa.DictionaryArray.from_arrays(pa.array(kinds), pa.array(TYPES)),
            "occurred_at": pa.array(times),
            "received_at": pa.array(times),
            "operation": pa.array(np.zeros(size, np.int8)),
            "revision": pa.array(np.zeros(size, np.int32)),
            "fingerprint": pa.array(np.zeros(size, np.uint64)),
            f"k.{KEY}": coded([f"{v:08x}-3a7c-4d1e-8b02-{v:012x}" for v in who.tolist()]),
            "a.app_id:s": coded(random.choice(["website", "app", "docs"], size).tolist()),
            "a.page_url:s": coded([f"https://x.io/{'pricing' if p % 10 == 0 else 'page'}/{p}" for p in pages.tolist()]),
            "a.domain_sessionid:s": coded(
                [f"{v:08x}-77aa-4c3b-9d10-{t // (DAY_US // 2):012x}" for v, t in zip(who, times, strict=True)]
            ),
            "a.refr_medium:s": coded(random.choice(["internal", "search", "social"], size).tolist()),
            "a.mkt_medium:s": coded([None if c % 5 else "cpc" for c in campaigns.tolist()]),
            "a.mkt_campaign:s": coded([None if c > 3 else f"campaign {c}" for c in campaigns.tolist()]),
            "e.nl.basjes/yauaa_context/1[0].deviceClass:s": coded(random.choice(["Desktop", "Phone"], size).tolist()),
        }
        self.made += size
        names = sorted_columns(columns)
        return pa.RecordBatch.from_arrays([columns[name] for name in names], names=names)


def coded(values: list[str] | list[str | None]) -> pa.Array:
    """Strings as Arrow's dictionary array."""
    return pa.array(values, pa.string()).dictionary_encode()


def nineteen_attributes() -> list[Aggregation]:
    """The attributes of the document (seed 004), compiled."""

    def named(name: str) -> EventTypeIs:
        return EventTypeIs(VENDOR, name, "1-0-0")

    def atomic(name: str) -> Property:
        return Property("atomic", name)

    page_view, page_ping, submit = named("page_view"), named("page_ping"), named("submit_form")
    pricing = AllOf((page_view, Compare(atomic("page_url"), "like", ("%pricing%",))))
    forms = AnyOf((named("focus_form"), named("change_form")))
    media = EventTypeIs(f"{VENDOR}.media")
    device = Property("entity", "deviceClass", "nl.basjes", "yauaa_context", 1)
    week, month, text = Rolling(7 * DAY_US), Rolling(30 * DAY_US), TermType.STRING
    result = [
        Aggregation(Function.LAST, page_view, atomic("app_id"), text),
        Aggregation(Function.LAST, page_view, device, text),
    ]
    for window in (week, month):
        result += [
            Aggregation(Function.UNIQUE_LIST, page_view, atomic("domain_sessionid"), text, window),
            Aggregation(Function.UNIQUE_LIST, page_view, atomic("app_id"), text, window),
            *(Aggregation(Function.COUNTER, f, window=window) for f in (page_view, page_ping, pricing, submit)),
        ]
    return [
        *result,
        Aggregation(Function.COUNTER, forms, window=week),
        Aggregation(Function.COUNTER, media, window=month),
        Aggregation(Function.FIRST, page_view, atomic("refr_medium"), text, month),
        Aggregation(Function.FIRST, page_view, atomic("mkt_medium"), text, month),
        Aggregation(Function.UNIQUE_LIST, page_view, atomic("mkt_campaign"), text, month),
    ]
