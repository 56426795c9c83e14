"""Receipts of erasures on the wire, the same for every service."""

from google.protobuf.timestamp_pb2 import Timestamp

from inkling.types.v1 import erasure_pb2
from services.runtime.erasures import Erased, Receipt


def receipt_message(receipt: Receipt) -> erasure_pb2.ErasureReceipt:
    """The message of a receipt."""
    return erasure_pb2.ErasureReceipt(
        name=receipt.name,
        attribute_key=receipt.attribute_key,
        subject=receipt.subject,
        stores=[erasure_pb2.ErasedStore(store=e.store, count=e.count, unit=e.unit) for e in receipt.stores],
        marker_position=receipt.marker_position,
        position=receipt.position,
        start_time=_timestamp(receipt.start_time_us),
        finish_time=_timestamp(receipt.finish_time_us),
        files=receipt.files,
        notes=receipt.notes,
        ingest_digest=receipt.ingest_digest,
        content_json=receipt.to_json(),
        digest=receipt.digest,
    )


def receipt_from(message: erasure_pb2.ErasureReceipt) -> Receipt:
    """The receipt of a message."""
    return Receipt(
        name=message.name,
        attribute_key=message.attribute_key,
        subject=message.subject,
        stores=tuple(Erased(e.store, e.count, e.unit) for e in message.stores),
        marker_position=message.marker_position,
        position=message.position,
        start_time_us=message.start_time.ToMicroseconds(),
        finish_time_us=message.finish_time.ToMicroseconds(),
        files=tuple(message.files),
        notes=tuple(message.notes),
        ingest_digest=message.ingest_digest,
    )


def _timestamp(instant_us: int) -> Timestamp:
    made = Timestamp()
    made.FromMicroseconds(instant_us)
    return made
