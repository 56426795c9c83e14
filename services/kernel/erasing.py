"""What the erasure of a subject leaves in the log: records without content, and a marker that names it by a hash.

A *subject* is one value of one attribute key. A record of it is one that carries this value under this key. Erasing
appends a deletion for each event of the subject, then a *marker*, and then empties the subject's records where they
stand: an emptied record keeps its position, its event id, the hour in which it occurred and when it was received, so
that whoever reads the log from the start comes to the same state as one who had read it before.
"""

import hashlib
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from services.kernel.building import EventRow, build_batch
from services.kernel.columns import (
    DELETE,
    DICTIONARY,
    FIXED_FIELDS,
    RESERVED_VENDOR,
    EventBatch,
    key_column,
)

ERASED_NAME, MARKER_NAME, VERSION = "erased", "erase_subject", "1-0-0"
ERASED_TYPE = f"{RESERVED_VENDOR}/{ERASED_NAME}/{VERSION}"
"""The type of emptied records, and of the deletions that an erasure appends."""
MARKER_TYPE = f"{RESERVED_VENDOR}/{MARKER_NAME}/{VERSION}"
"""The type of markers: whoever holds state by the attribute key forgets the key value that has the subject's hash."""

_MARKER_KEY, _MARKER_SUBJECT = "d.attribute_key:s", "d.subject:s"
_HOUR_US = 3_600_000_000
_FIXED = frozenset(field.name for field in FIXED_FIELDS)


class Mark(NamedTuple):
    """A marker in a batch."""

    row: int
    attribute_key: str
    subject: str
    """As `subject_hash` gives it."""


def subject_hash(project: str, attribute_key: str, value: str) -> str:
    """128 bits of BLAKE2b over the lengths and the UTF-8 bytes of the three, as 32 hexadecimal digits.

    Not MurmurHash3, which the kernel uses for look-ups: that can be run backwards, and the hash stays in the log.
    """
    digest = hashlib.blake2b(digest_size=16, person=b"inkling-subject")
    for part in (project, attribute_key, value):
        content = part.encode()
        digest.update(len(content).to_bytes(4, "little") + content)
    return digest.hexdigest()


def names_subject(batch: EventBatch, attribute_key: str, value: str) -> NDArray[np.bool_]:
    """Which rows carry the value under the key."""
    strings = batch.strings(key_column(attribute_key))
    code = -1 if strings is None else pc.index(strings.values, value).as_py()
    if strings is None or code < 0:
        return np.zeros(batch.num_rows, np.bool_)
    return np.asarray(strings.codes == code)


def has_ids(batch: EventBatch, ids: Collection[str]) -> NDArray[np.bool_]:
    """Which rows carry one of the event ids."""
    if not ids:
        return np.zeros(batch.num_rows, np.bool_)
    found = pc.is_in(batch.column("event_id"), value_set=pa.array(sorted(ids), pa.string()))
    return np.asarray(found.to_numpy(zero_copy_only=False))


def of_type(batch: EventBatch, event_type: str) -> NDArray[np.bool_]:
    """Which rows are of an event type."""
    strings = batch.strings("event_type")
    code = -1 if strings is None else pc.index(strings.values, event_type).as_py()
    if strings is None or code < 0:
        return np.zeros(batch.num_rows, np.bool_)
    return np.asarray(strings.codes == code)


def deletions(event_ids: Collection[str], at_us: int, received_us: int) -> EventBatch:
    """The records that delete events by their ids. They carry no key: every follower gets them, whatever its shard."""
    rows = (
        EventRow(event_id, ERASED_NAME, at_us, received_us, {}, RESERVED_VENDOR, VERSION, operation=DELETE)
        for event_id in event_ids
    )
    return EventBatch(build_batch(rows))


def marker(event_id: str, attribute_key: str, subject: str, at_us: int, received_us: int) -> EventBatch:
    """The record that tells followers to forget a key value."""
    data = {"attribute_key": attribute_key, "subject": subject}
    row = EventRow(event_id, MARKER_NAME, at_us, received_us, {}, RESERVED_VENDOR, VERSION, data=data)
    return EventBatch(build_batch([row]))


def marks(batch: EventBatch) -> list[Mark]:
    """The markers of a batch, in log order."""
    rows = np.flatnonzero(of_type(batch, MARKER_TYPE))
    if not len(rows):
        return []
    keys, subjects = batch.column(_MARKER_KEY), batch.column(_MARKER_SUBJECT)
    if keys is None or subjects is None:
        return []
    found = (Mark(row, keys[row].as_py(), subjects[row].as_py()) for row in rows.tolist())
    return [mark for mark in found if mark.attribute_key and mark.subject]


def pieces(
    first_position: int, last_position: int, batch: EventBatch | None
) -> Iterator[tuple[int, int, EventBatch | None, Mark | None]]:
    """A part of the log cut after each marker: first and last position, records, and the marker that ends the piece.

    A key is to be forgotten after the records before the marker, and before those that follow: they are a new life.
    """
    found = [] if batch is None else marks(batch)
    whole = batch is not None and batch.num_rows == last_position - first_position + 1
    if batch is None or not found or not whole:
        # Filtered by shard, rows have no positions of their own; forgetting at the end of the part is all that can be.
        for i, mark in enumerate(found):
            yield first_position, last_position, batch if i == 0 else None, mark
        if not found:
            yield first_position, last_position, batch, None
        return
    start = 0
    for mark in found:
        yield first_position + start, first_position + mark.row, batch.slice(start, mark.row + 1 - start), mark
        start = mark.row + 1
    if start < batch.num_rows:
        yield first_position + start, last_position, batch.slice(start), None


def emptied(batch: EventBatch, rows: NDArray[np.bool_], deleted: NDArray[np.bool_]) -> EventBatch:
    """The batch with some rows emptied; those that are also `deleted` become deletions of their ids.

    An emptied row that is not deleted is a version of an event that is somebody else's by now: it stays an addition, so
    that the versions after it do what they did.
    """
    keep = pa.array(np.arange(batch.num_rows, dtype=np.int32), mask=rows)
    columns: dict[str, pa.Array] = {}
    for name, column in zip(batch.names, batch.record_batch.columns, strict=True):
        if name in _FIXED:
            columns[name] = column
            continue
        # Taken, not masked: a masked value's bytes would still be there, and so would a dictionary's unused texts.
        texts = pa.types.is_dictionary(column.type)
        taken = (column.cast(pa.string()) if texts else column).take(keep)
        if taken.null_count < len(taken):
            columns[name] = taken.dictionary_encode() if texts else taken
    mask = pa.array(rows)
    occurred = batch.occurred_at // _HOUR_US * _HOUR_US
    columns["event_type"] = _where(mask, ERASED_TYPE, columns["event_type"].cast(pa.string())).cast(DICTIONARY)
    columns["occurred_at"] = pa.array(np.where(rows, occurred, batch.occurred_at))
    columns["operation"] = pa.array(np.where(deleted, DELETE, batch.operation).astype(np.int8))
    columns["revision"] = pa.array(np.where(deleted, 0, batch.revision).astype(np.int32))
    columns["fingerprint"] = pa.array(np.where(rows, 0, batch.fingerprint).astype(np.uint64))
    kinds = {field.name: field for field in FIXED_FIELDS}
    fields = [kinds.get(name) or pa.field(name, array.type) for name, array in columns.items()]
    return EventBatch(pa.RecordBatch.from_arrays(list(columns.values()), schema=pa.schema(fields)))


def _where(mask: pa.Array, value: str, otherwise: pa.Array) -> pa.Array:
    return pc.if_else(mask, pa.scalar(value, pa.string()), otherwise)
