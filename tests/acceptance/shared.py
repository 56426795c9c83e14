"""Where the acceptance data lie: beside the repository, where it is given."""

from datetime import datetime
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[3] / "shared"
GROUP = SHARED / "conformance" / "signals_prospect_group.json"
SERVICE = SHARED / "conformance" / "signals_service.json"
EVENTS = SHARED / "data" / "snowplow_web_events.csv.gz"

needs_shared = pytest.mark.skipif(not EVENTS.exists(), reason="the shared data are not beside the repository")

INSTANTS = (
    # Before the first event, at it, and a microsecond later.
    "2025-04-01T14:21:44",
    "2025-04-01T14:21:44.794",
    "2025-04-01T14:21:44.794001",
    "2025-04-10T00:00:00",
    "2025-04-23T00:21:24.939",
    # A week and 30 days after an event, to the microsecond: inside, and no longer.
    "2025-04-30T00:21:24.939",
    "2025-04-30T00:21:24.939001",
    "2025-05-01T14:21:44.794",
    "2025-05-01T14:21:44.794001",
    # Just after the last event, and when windows have run empty with no event arriving.
    "2025-05-13T03:03:32.889001",
    "2025-05-18T12:00:00",
    "2025-06-30T00:00:00",
)


def instant(text: str) -> datetime:
    """An instant of INSTANTS, naive, in UTC."""
    return datetime.fromisoformat(text)
