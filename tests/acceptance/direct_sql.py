"""The document's attributes computed directly: one SQL query over the CSV, written from the Signals JSON alone.

Shares no code with the services. Reads Snowplow's column names in upper case as the file has them; a column that the
file lacks is null. A value is over the events of the window `[t - period, t)`; an absent value is null.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

COLUMNS = {
    "vendor": "EVENT_VENDOR",
    "name": "EVENT_NAME",
    "version": "EVENT_VERSION",
}
IN_SIGHTING_ORDER = "order by happened, event_id"
DAYS = {"P7D": 7, "P30D": 30}


def quoted(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def column_of(place: Mapping[str, Any], columns: Sequence[str]) -> str:
    """The SQL of a property: a column of the file, or null when the file does not have it."""
    name = str(place["name"]).upper()
    return f'"{name}"' if place["type"] == "atomic" and name in columns else "cast(null as varchar)"


def condition_of(attribute: Mapping[str, Any], columns: Sequence[str], t: datetime) -> str:
    """The SQL of which rows an attribute looks at, at t."""
    selectors = [
        " and ".join(f"{COLUMNS[part]} = {quoted(wanted)}" for part, wanted in event.items())
        for event in attribute["events"]
    ]
    parts = ["(" + " or ".join(f"({selector})" for selector in selectors) + ")"]
    for criterion in attribute.get("criteria", {}).get("all", []):
        assert criterion["operator"] == "like", "the document's group compares by like alone"
        parts.append(f"{column_of(criterion['property'], columns)} like {quoted(criterion['value'])}")
    if "period" in attribute:
        parts.append(f"happened >= timestamp '{t.isoformat(sep=' ')}' - interval {DAYS[attribute['period']]} day")
    return " and ".join(parts)


def value_of(attribute: Mapping[str, Any], columns: Sequence[str], t: datetime) -> str:
    """A query of (key, value) of one attribute, for the keys that have a value at t."""
    rows = f"from past where {condition_of(attribute, columns, t)}"
    if attribute["aggregation"] == "counter":
        return f"select key, count(*) as value {rows} group by key"
    term = column_of(attribute["property"], columns)
    seen = f"{rows} and {term} is not null"
    if attribute["aggregation"] == "unique_list":
        latest = f"select key, {term} as term, max((happened, EVENT_ID)) as seen {seen} group by key, term"
        return f"select key, list(term order by seen) as value from ({latest}) group by key"
    assert attribute["aggregation"] in ("first", "last")
    return f"select key, {attribute['aggregation']}({term} {IN_SIGHTING_ORDER}) as value {seen} group by key"


def profiles(group: Path, events: Path, t: datetime) -> list[dict[str, Any]]:
    """One object for each key with an event before t (a naive instant in UTC), ordered by key."""
    definition = json.loads(group.read_text())
    attributes = definition["attributes"]
    with duckdb.connect() as database:
        database.execute("create table raw as select * from read_csv(?, all_varchar = true)", [str(events)])
        columns = [str(row[0]) for row in database.execute("select column_name from (describe raw)").fetchall()]
        database.execute(
            "create view past as select *, DOMAIN_USERID as key, cast(DERIVED_TSTAMP as timestamp) as happened from raw"
            f" where cast(DERIVED_TSTAMP as timestamp) < timestamp '{t.isoformat(sep=' ')}'"
        )
        joins = [
            f"left join ({value_of(attribute, columns, t)}) v{i} on v{i}.key = keys.key"
            for i, attribute in enumerate(attributes)
        ]
        values = ", ".join(f"v{i}.value" for i in range(len(attributes)))
        query = (
            f"select keys.key, {values} from (select distinct key from past) keys {' '.join(joins)} order by keys.key"
        )
        names = ["domain_userid", *(attribute["name"] for attribute in attributes)]
        return [dict(zip(names, row, strict=True)) for row in database.execute(query).fetchall()]
