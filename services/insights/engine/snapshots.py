"""An engine as a manifest and arrays, and back: rows, states and timers; totals are counted again from the rows."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.insights.engine.engine import Engine
from services.insights.engine.memory import holds
from services.insights.engine.plan import Plan
from services.insights.engine.pools import ArrayPool
from services.insights.engine.states import NO_CHANGES, Changes, joined
from services.insights.language.sources import SourceSchema
from services.kernel.windows import MIN_US

Arrays = dict[str, NDArray[np.generic]]


class SchemaChangedError(Exception):
    """The rows were retained with other columns, or let go: only the log can tell what they hold now."""


def freeze(engine: Engine) -> tuple[dict[str, Any], Arrays]:
    """The engine's state as JSON and copies of its arrays: it may go on while they are encoded."""
    arrays: Arrays = {f"customers.{name}": array for name, array in engine.customers.dump().items()}
    arrays |= {f"texts.{name}": array for name, array in engine.pools.texts.dump().items()}
    arrays |= {f"states.{name}": array for name, array in engine.states.dump(len(engine.customers)).items()}
    for name, rows in engine.sources.items():
        arrays |= {f"rows.{name}.{part}": array for part, array in rows.dump().items()}
    for slot, timers in engine.queries.timers.items():
        arrays[f"due.{slot}"] = timers.due_us
    customers, queries = engine.pairs_queued()
    arrays |= {"queue.customers": customers, "queue.queries": queries}
    untold = joined(engine.untold)
    arrays |= {f"untold.{name}": column for name, column in untold._asdict().items()}
    manifest = {
        "now_us": engine.now_us,
        "arrays_pool": engine.pools.arrays.values,
        "trimmed_us": {name: rows.trimmed_us for name, rows in engine.sources.items()},
        "sources": {name: _columns(rows.schema) for name, rows in engine.sources.items()},
    }
    return json.loads(json.dumps(manifest)), {name: np.array(array) for name, array in arrays.items()}


def thaw(
    manifest: Mapping[str, Any],
    arrays: Arrays,
    schemas: Sequence[SourceSchema],
    plans: Mapping[int, Plan],
    slots: Mapping[int, int],
) -> Engine:
    """The engine back, with these queries by slot; `slots` says which slot of the snapshot each of them had.

    A query that is not in `slots` is decided for everyone at the next `settle`, as is one that is in neither dump.
    Raises SchemaChangedError when a source has other columns than its rows were retained with, or a query looks at rows
    that were let go.
    """
    engine = Engine(schemas)
    engine.now_us = int(manifest["now_us"])
    engine.pools.arrays = ArrayPool(tuple(value) for value in manifest["arrays_pool"])
    engine.pools.texts.load(_named(arrays, "texts"))
    engine.customers.load(_named(arrays, "customers"))
    for name, rows in engine.sources.items():
        if manifest["sources"].get(name) != _columns(rows.schema):
            raise SchemaChangedError(name)
        rows.load(_named(arrays, f"rows.{name}"))
        rows.trimmed_us = manifest.get("trimmed_us", {}).get(name, MIN_US)
    if not all(holds(engine.sources, plan, engine.now_us) for plan in plans.values()):
        raise SchemaChangedError("rows that a query looks at")
    engine.restore(plans, {old: new for new, old in slots.items()}, _named(arrays, "states"))
    for new, old in slots.items():
        timers = engine.queries.timers.get(new)
        if timers is not None and f"due.{old}" in arrays:
            timers.restore(np.array(arrays[f"due.{old}"], np.int64))
    back = {old: new for new, old in slots.items()}
    untold = Changes(**_named(arrays, "untold")) if "untold.queries" in arrays else NO_CHANGES  # type: ignore[arg-type]
    for old, new in back.items():
        mine = untold.chosen(untold.queries == old)
        engine.untold.append(mine._replace(queries=np.full(len(mine.queries), new, np.int32)))
    queued = zip(arrays["queue.customers"].tolist(), arrays["queue.queries"].tolist(), strict=True)
    for customer, query in queued:
        if query in back:
            engine.enqueue(np.array([customer], np.int32), back[query])
    return engine


def _columns(schema: SourceSchema) -> list[list[str]]:
    return [[name, kind.name] for name, kind in schema.columns.items()]


def _named(arrays: Arrays, prefix: str) -> Arrays:
    return {name[len(prefix) + 1 :]: array for name, array in arrays.items() if name.startswith(f"{prefix}.")}
