"""The nineteen attributes as a careful engineer would write them without a kernel: dicts and deques, for scale.

It holds exact windows at the time of the newest event of each key: it would be wrong between events, and after late
ones.
"""

from collections import Counter, defaultdict, deque
from typing import Any

from benchmarks.web_events import DAY_US, VENDOR
from services.kernel.columns import EventBatch

PERIODS = (7 * DAY_US, 30 * DAY_US)


class Window:
    """The events of one key and one period: what is counted, and when it must be taken away again."""

    def __init__(self, period_us: int) -> None:
        self.period_us = period_us
        self.waiting: deque[tuple[int, list[Any]]] = deque()
        self.counts: Counter[Any] = Counter()

    def add(self, time: int, parts: list[Any]) -> None:
        """Counts an event's parts, and takes away those of events that have left."""
        self.waiting.append((time, parts))
        self.counts.update(parts)
        oldest = time + 1 - self.period_us
        while self.waiting[0][0] < oldest:
            for part in self.waiting.popleft()[1]:
                self.counts[part] -= 1
                if not self.counts[part]:
                    del self.counts[part]


class PlainPython:
    """The attributes of all keys."""

    def __init__(self) -> None:
        self.windows: dict[str, tuple[Window, Window]] = defaultdict(lambda: (Window(PERIODS[0]), Window(PERIODS[1])))
        self.latest: dict[str, tuple[Any, Any]] = {}

    def apply(self, events: list[dict[str, Any]]) -> None:
        """Applies events, given as dicts."""
        for event in events:
            vendor, name, _ = event["event_type"].split("/")
            parts: list[Any] = [name]
            if vendor == f"{VENDOR}.media":
                parts.append("media")
            elif name == "page_view":
                if "pricing" in event["a.page_url:s"]:
                    parts.append("pricing")
                parts.append(("session", event["a.domain_sessionid:s"]))
                parts.append(("app", event["a.app_id:s"]))
                parts.append(("refr", event["a.refr_medium:s"]))
                if event["a.mkt_medium:s"] is not None:
                    parts.append(("mkt", event["a.mkt_medium:s"]))
                if event["a.mkt_campaign:s"] is not None:
                    parts.append(("campaign", event["a.mkt_campaign:s"]))
                device = event["e.nl.basjes/yauaa_context/1[0].deviceClass:s"]
                self.latest[event["k.domain_userid"]] = (event["a.app_id:s"], device)
            for window in self.windows[event["k.domain_userid"]]:
                window.add(event["occurred_at"], parts)


def as_dicts(batch: EventBatch) -> list[dict[str, Any]]:
    """A batch as the dicts that a service without columns would have at hand."""
    rows: list[dict[str, Any]] = batch.record_batch.to_pylist()
    return rows
