"""A training set computed directly in SQL: one row for each event of the file, written from the Signals JSON alone.

Shares no code with the services. The features of a row look at the key's events before the row's own,
`[t - period, t)`; its label says whether the key converts (a `submit_form` event) in the hour after it, `(t, t + 1 h]`,
and is null when that hour is not over at the file's newest event.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from .direct_sql import COLUMNS, DAYS, IN_SIGHTING_ORDER, column_of, quoted

CONVERSION = "EVENT_VENDOR = 'com.snowplowanalytics.snowplow' and EVENT_NAME = 'submit_form'"


def past_of(attribute: Mapping[str, Any], columns: Sequence[str]) -> str:
    """The rows joined with the events that an attribute looks at."""
    selectors = [
        " and ".join(f"{COLUMNS[part]} = {quoted(wanted)}" for part, wanted in event.items())
        for event in attribute["events"]
    ]
    parts = ["past.key = rows.key", "past.happened < rows.happened", "(" + " or ".join(selectors) + ")"]
    for criterion in attribute.get("criteria", {}).get("all", []):
        assert criterion["operator"] == "like", "the document's group compares by like alone"
        parts.append(f"{column_of(criterion['property'], columns)} like {quoted(criterion['value'])}")
    if "period" in attribute:
        parts.append(f"past.happened >= rows.happened - interval {DAYS[attribute['period']]} day")
    return f"from rows join past on {' and '.join(parts)}"


def value_of(attribute: Mapping[str, Any], columns: Sequence[str]) -> str:
    """A query of (row, value) of one attribute, for the rows that have a value."""
    joined = past_of(attribute, columns)
    if attribute["aggregation"] == "counter":
        return f"select row, count(*) as value {joined} group by row"
    term = column_of(attribute["property"], columns)
    seen = f"{joined} where {term} is not null"
    if attribute["aggregation"] == "unique_list":
        latest = f"select row, {term} as term, max((past.happened, EVENT_ID)) as seen {seen} group by row, term"
        return f"select row, list(term order by seen) as value from ({latest}) group by row"
    assert attribute["aggregation"] in ("first", "last")
    order = IN_SIGHTING_ORDER.replace("happened", "past.happened")
    return f"select row, {attribute['aggregation']}({term} {order}) as value {seen} group by row"


def training_rows(group: Path, events: Path) -> dict[str, dict[str, Any]]:
    """For each event id the values of the attributes, and `goal`."""
    attributes = json.loads(group.read_text())["attributes"]
    with duckdb.connect() as database:
        database.execute(
            "create table past as select *, DOMAIN_USERID as key, cast(DERIVED_TSTAMP as timestamp) as happened"
            " from read_csv(?, all_varchar = true)",
            [str(events)],
        )
        columns = [str(row[0]) for row in database.execute("select column_name from (describe past)").fetchall()]
        database.execute("create view rows as select EVENT_ID as row, key, happened from past")
        joins = [
            f"left join ({value_of(attribute, columns)}) v{i} on v{i}.row = rows.row"
            for i, attribute in enumerate(attributes)
        ]
        label = (
            "case when rows.happened + interval 1 hour > (select max(happened) from past) then null"
            f" else exists (select 1 from past where past.key = rows.key and {CONVERSION}"
            " and past.happened > rows.happened and past.happened <= rows.happened + interval 1 hour) end"
        )
        values = ", ".join(f"v{i}.value" for i in range(len(attributes)))
        found = database.execute(f"select rows.row, {values}, {label} from rows {' '.join(joins)}").fetchall()
    names = [*(attribute["name"] for attribute in attributes), "goal"]
    return {row[0]: dict(zip(names, row[1:], strict=True)) for row in found}
