"""Erases subjects."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from inkling.client.operations import Operations
from inkling.client.transport import Transport
from inkling.errors import OperationFailed
from inkling.features.v1 import subject_service_pb2
from inkling.features.v1.subject_service_pb2_grpc import SubjectServiceStub
from inkling.types.v1 import erasure_pb2
from inkling.values import instant

if TYPE_CHECKING:
    from inkling.features.v1.subject_service_pb2_grpc import SubjectServiceAsyncStub


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """What an erasure did. It names the subject by a hash only.

    `stores` maps a store to how much was erased in it. What the subject does after `marker_position` of the log is a
    new life. `files` were made before and may hold the subject. `digest` is the SHA-256 of `content_json`.
    """

    name: str
    attribute_key: str
    subject: str
    stores: dict[str, int]
    marker_position: int
    position: int
    start_time: datetime
    finish_time: datetime
    files: tuple[str, ...]
    notes: tuple[str, ...]
    content_json: str
    digest: str


class AsyncSubjects:
    """Erases what the suite holds of subjects: a subject is one value of one attribute key."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._operations = Operations(transport, "features")

    async def erase(
        self,
        attribute_key: str,
        key_value: str,
        *,
        request_id: str = "",
        timeout: timedelta | None = None,
    ) -> ErasureReceipt:
        """Erases a subject from everything, and gives the receipt once that is done.

        The same `request_id` again goes on with the erasure that it began, or gives its receipt. DeadlineExceeded after
        `timeout`: the erasure goes on.
        """
        request = subject_service_pb2.EraseSubjectRequest(
            attribute_key=attribute_key, key_value=key_value, request_id=request_id or secrets.token_hex(12)
        )
        operation = await self._transport.call(self._stub.EraseSubject, request)
        operation = await self._operations.wait(operation, timeout=timeout)
        receipt = erasure_pb2.ErasureReceipt()
        if not operation.response.Unpack(receipt):
            raise OperationFailed(f"{operation.name} gave no receipt")
        return read_receipt(receipt)

    async def receipt(self, name: str) -> ErasureReceipt:
        """The receipt `erasures/{id}` of an erasure that is done. FailedPrecondition while it goes on; NotFound."""
        request = subject_service_pb2.GetErasureReceiptRequest(name=name)
        return read_receipt(await self._transport.call(self._stub.GetErasureReceipt, request))

    @cached_property
    def _stub(self) -> "SubjectServiceAsyncStub":
        return SubjectServiceStub(self._transport.channel("features"))


def read_receipt(message: erasure_pb2.ErasureReceipt) -> ErasureReceipt:
    """The receipt of a message."""
    return ErasureReceipt(
        name=message.name,
        attribute_key=message.attribute_key,
        subject=message.subject,
        stores={each.store: each.count for each in message.stores},
        marker_position=message.marker_position,
        position=message.position,
        start_time=instant(message.start_time),
        finish_time=instant(message.finish_time),
        files=tuple(message.files),
        notes=tuple(message.notes),
        content_json=message.content_json,
        digest=message.digest,
    )
