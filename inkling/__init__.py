"""Inkling: events in, exact attributes out. The Python client.

`Client` (for scripts) and `AsyncClient` speak to the services; definitions carry the names of the Signals SDK.
"""

from inkling.client import AsyncClient, BatchOptions, Client, RetryPolicy, Signals, Status, TlsFiles
from inkling.definitions import (
    AtomicProperty,
    Attribute,
    AttributeKey,
    Criteria,
    Criterion,
    EntityProperty,
    Event,
    EventProperty,
    Service,
    StreamAttributeGroup,
    domain_sessionid,
    domain_userid,
    network_userid,
    user_id,
)
from inkling.errors import InklingError
from inkling.events import CustomerEvent, Entity

__all__ = [
    "AsyncClient",
    "AtomicProperty",
    "Attribute",
    "AttributeKey",
    "BatchOptions",
    "Client",
    "Criteria",
    "Criterion",
    "CustomerEvent",
    "Entity",
    "EntityProperty",
    "Event",
    "EventProperty",
    "InklingError",
    "RetryPolicy",
    "Service",
    "Signals",
    "Status",
    "StreamAttributeGroup",
    "TlsFiles",
    "domain_sessionid",
    "domain_userid",
    "network_userid",
    "user_id",
]
