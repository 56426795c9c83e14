"""What ingest counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class IngestMetrics:
    """The metrics of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.accepted = Counter("inkling_ingest_events_accepted", "Events appended to the log.", registry=registry)
        self.refused = Counter(
            "inkling_ingest_events_refused", "Events refused, by reason.", ["reason"], registry=registry
        )
        self.overloads = Counter(
            "inkling_ingest_overloads", "Calls refused because too much was waiting.", registry=registry
        )
        self.group_calls = Histogram(
            "inkling_ingest_group_calls",
            "Calls stored together.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=registry,
        )
        self.subscribers = Gauge(
            "inkling_ingest_subscribers", "Streams that follow the log, by consumer.", ["consumer"], registry=registry
        )
