"""The real events, and the same enriched: the file itself lacks campaigns, referrers, pings, forms and media."""

import csv
import gzip
import zlib
from pathlib import Path

import pytest

from .shared import EVENTS

SNOWPLOW, MEDIA = "com.snowplowanalytics.snowplow", "com.snowplowanalytics.snowplow.media"
OTHER_TYPES = (
    (SNOWPLOW, "page_ping", "1-0-0"),
    (SNOWPLOW, "focus_form", "1-0-0"),
    (SNOWPLOW, "change_form", "1-0-0"),
    # Looks like a page view, and is not one that the definitions name.
    (SNOWPLOW, "page_view", "2-0-0"),
    (MEDIA, "play_event", "1-0-0"),
    (MEDIA + ".player", "ready_event", "1-0-0"),
)
MEDIUMS = ("search", "internal", "social", "")
CAMPAIGNS = ("spring", "launch", "retarget", "")


@pytest.fixture(scope="session")
def enriched_events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real events with other types and marketing columns put in, by a hash of each event's id; plain CSV."""
    path = tmp_path_factory.mktemp("acceptance") / "events.csv"
    with gzip.open(EVENTS, "rt", newline="") as source, path.open("w", newline="") as target:
        reader = csv.DictReader(source)
        writer = csv.DictWriter(target, [*(reader.fieldnames or ()), "REFR_MEDIUM", "MKT_MEDIUM", "MKT_CAMPAIGN"])
        writer.writeheader()
        for row in reader:
            dice = zlib.crc32(row["EVENT_ID"].encode())
            if dice % 3 == 0:
                kind = OTHER_TYPES[dice // 3 % len(OTHER_TYPES)]
                row |= dict(zip(("EVENT_VENDOR", "EVENT_NAME", "EVENT_VERSION"), kind, strict=True))
            row["REFR_MEDIUM"] = MEDIUMS[dice // 64 % 4]
            row["MKT_MEDIUM"] = MEDIUMS[dice // 256 % 4]
            row["MKT_CAMPAIGN"] = CAMPAIGNS[dice // 1024 % 4]
            writer.writerow(row)
    return path
