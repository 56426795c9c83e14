"""The web events of `web_events` as a client sends them: Ingest requests."""

from benchmarks.web_events import KEY, Traffic
from inkling.ingest.v1 import event_pb2, ingest_service_pb2
from inkling.types.v1 import value_pb2


def web_requests(events: int, batch: int, visitors: int) -> tuple[list[bytes], list[str]]:
    """The requests, serialised, and the visitors in them."""
    traffic = Traffic(visitors=visitors)
    requests, seen = [], dict[str, None]()
    for _ in range(events // batch):
        rows = traffic.batch(batch).to_pylist()
        seen.update(dict.fromkeys(row[f"k.{KEY}"] for row in rows))
        requests.append(ingest_service_pb2.IngestRequest(events=[as_event(row) for row in rows]).SerializeToString())
    return requests, list(seen)


def as_event(row: dict[str, object]) -> event_pb2.Event:
    """One row of the log's schema as an event."""
    vendor, name, version = str(row["event_type"]).split("/")
    event = event_pb2.Event(
        event_id=str(row["event_id"]),
        type=event_pb2.EventType(vendor=vendor, name=name, version=version),
        keys={KEY: str(row[f"k.{KEY}"])},
        properties={
            column[2:-2]: value_pb2.Value(string_value=str(value))
            for column, value in row.items()
            if column.startswith("a.") and value is not None
        },
        entities=[
            event_pb2.Entity(
                vendor="nl.basjes",
                name="yauaa_context",
                major_version=1,
                properties={
                    "deviceClass": value_pb2.Value(
                        string_value=str(row["e.nl.basjes/yauaa_context/1[0].deviceClass:s"])
                    )
                },
            )
        ],
    )
    event.occurred_at.FromMicroseconds(int(str(row["occurred_at"])))
    return event
