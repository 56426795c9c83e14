"""What a request asks to be told of its events: for how long it waits, and whom they are about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.ingest.pivot import Batch


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that waits for insights."""

    wait_us: int
    """Not checked."""
    customers: Mapping[str, Sequence[str]]
    """Attribute key to the distinct values in its accepted events."""


def asked_of(wait_us: int, batches: Sequence[Batch], first: int, count: int) -> Asked:
    """The question of a request whose accepted events are `count` of a group's, from place `first` on."""
    customers: dict[str, dict[str, None]] = {}
    for batch in batches:
        start, stop = max(first, 0), min(first + count, batch.count)
        if start < stop:
            part = batch.record_batch.slice(start, stop - start)
            for name in part.schema.names:
                if name.startswith("k."):
                    values = part.column(name).unique().dictionary_decode().to_pylist()
                    known = customers.setdefault(name[2:], {})
                    known.update(dict.fromkeys(value for value in values if value is not None))
        first -= batch.count
    return Asked(wait_us, {key: list(values) for key, values in customers.items()})
