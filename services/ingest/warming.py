"""Makes the first request as fast as the others: the compiled code is loaded, or compiled where it never ran."""

from inkling.ingest.v1.event_pb2 import Event
from inkling.ingest.v1.ingest_service_pb2 import IngestRequest
from services.ingest.admission import TimeRules
from services.ingest.appender import prepare
from services.ingest.decode import Decoder, Part
from services.ingest.schemas import Schemas


def warm(decoder: Decoder) -> None:
    """Prepares a request that nobody sent. Takes seconds on the first start after an installation."""
    event = Event(event_id="warm")
    event.type.name = "warm"
    event.occurred_at.FromMicroseconds(1)
    event.keys["user_id"] = "nobody"
    event.properties["text"].string_value = "text"
    request = IngestRequest(events=[event]).SerializeToString()
    prepared = prepare(decoder, Schemas(), [Part(request)], TimeRules(0, 2), (), 1)
    prepared.batches[0].to_ipc()
