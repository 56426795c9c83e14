"""Inkling: events in, exact attributes out. The Python client.

`Client` (for scripts) and `AsyncClient` speak to the services; definitions carry the names of the Signals SDK.
"""

from inkling.client import AsyncClient, BatchOptions, Client, RetryPolicy, Signals, Status, TlsFiles
from inkling.definitions import (
    Attribute,
    AttributeKey,
    CalendarPeriod,
    Service,
    StreamAttributeGroup,
    TimeRange,
    domain_sessionid,
    domain_userid,
    network_userid,
    user_id,
)
from inkling.errors import InklingError
from inkling.events import CustomerEvent, Entity
from inkling.selectors import AtomicProperty, Criteria, Criterion, EntityProperty, Event, EventProperty

__all__ = [
    "AsyncClient",
    "AtomicProperty",
    "Attribute",
    "AttributeKey",
    "BatchOptions",
    "CalendarPeriod",
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
    "TimeRange",
    "TlsFiles",
    "domain_sessionid",
    "domain_userid",
    "network_userid",
    "user_id",
]
