"""The client: `AsyncClient` and its synchronous face `Client`."""

from inkling.client.asynchronous import AsyncClient
from inkling.client.batching import BatchOptions, Delivery
from inkling.client.csv_import import CsvProgress
from inkling.client.definitions import Applied, Plan
from inkling.client.profiles import Profile, ProfileChanges, Reading, Status
from inkling.client.project import ProjectSettings
from inkling.client.subjects import ErasureReceipt
from inkling.client.synchronous import Client, Signals
from inkling.client.transport import RetryPolicy, TlsFiles

__all__ = [
    "Applied",
    "AsyncClient",
    "BatchOptions",
    "Client",
    "CsvProgress",
    "Delivery",
    "ErasureReceipt",
    "Plan",
    "Profile",
    "ProfileChanges",
    "ProjectSettings",
    "Reading",
    "RetryPolicy",
    "Signals",
    "Status",
    "TlsFiles",
]
