"""The direct computation itself, against a table worked out by hand."""

import csv
import json
from datetime import datetime
from pathlib import Path

from .direct_sql import profiles
from .shared import EVENTS, GROUP, INSTANTS, instant, needs_shared

HEADER = (
    "EVENT_ID",
    "DERIVED_TSTAMP",
    "DOMAIN_USERID",
    "APP_ID",
    "PAGE_URL",
    "EVENT_VENDOR",
    "EVENT_NAME",
    "EVENT_VERSION",
)
ROWS = (
    ("2", "2025-01-08 00:00:00.000", "ada", "blog", "/pricing", "v", "view", "1"),
    ("1", "2025-01-08 00:00:00.000", "ada", "site", "/", "v", "view", "1"),
    ("3", "2025-01-01 00:00:00.000", "ada", "shop", "/a-pricing-b", "v", "view", "1"),
    ("4", "2025-01-09 00:00:00.000", "bob", "site", "/", "v", "buy", "1"),
)


def test_the_query_means_what_the_document_says(tmp_path: Path) -> None:
    with (tmp_path / "events.csv").open("w") as file:
        csv.writer(file).writerows([HEADER, *ROWS])
    views = {"events": [{"vendor": "v", "name": "view"}], "period": "P7D"}
    app = {"type": "atomic", "name": "app_id"}
    pricing = {"property": {"type": "atomic", "name": "page_url"}, "operator": "like", "value": "%pricing%"}
    attributes = [
        {"name": "views", "aggregation": "counter", **views},
        {"name": "pricing", "aggregation": "counter", "criteria": {"all": [pricing]}, **views},
        {"name": "apps", "aggregation": "unique_list", "property": app, **views},
        {"name": "latest", "aggregation": "last", "property": app, "events": [{"vendor": "v"}]},
        {"name": "medium", "aggregation": "first", "property": {"type": "atomic", "name": "mkt_medium"}, **views},
    ]
    group = tmp_path / "group.json"
    group.write_text(json.dumps({"attributes": attributes}))
    events = tmp_path / "events.csv"
    ada = {"domain_userid": "ada", "views": 3, "pricing": 2, "apps": ["shop", "site", "blog"], "latest": "blog"}
    at_edge = profiles(group, events, datetime(2025, 1, 8, 0, 0, 0))
    assert at_edge == [
        {"domain_userid": "ada", "views": 1, "pricing": 1, "apps": ["shop"], "latest": "shop", "medium": None}
    ]
    after = profiles(group, events, datetime(2025, 1, 8, 0, 0, 0, 1))
    assert after == [ada | {"views": 2, "pricing": 1, "apps": ["site", "blog"], "medium": None}]
    assert [row["domain_userid"] for row in profiles(group, events, datetime(2025, 1, 10))] == ["ada", "bob"]


@needs_shared
def test_the_instants_reach_every_attribute_that_the_file_can_fill() -> None:
    rows = [row for text in INSTANTS for row in profiles(GROUP, EVENTS, instant(text))]
    filled = {name for row in rows for name, value in row.items() if value is not None}
    fields = ["domain_userid", "latest_app_id"]
    counted = ["num_sessions", "num_apps", "num_page_views", "num_pricing_views", "num_conversions"]
    assert filled == {*fields, *(f"{name}_{period}" for name in counted for period in ("l7d", "l30d"))}


@needs_shared
def test_the_enriched_file_reaches_every_attribute_but_the_entity_s(enriched_events: Path) -> None:
    rows = profiles(GROUP, enriched_events, instant("2025-05-01T00:00:00"))
    filled = {name for row in rows for name, value in row.items() if value is not None}
    assert set(rows[0]) - filled == {"latest_device_class"}
