"""Errors of the client, as one tree.

    InklingError                    code, reason, violations, request id
    ├── InvalidArgument             the request is wrong: violations say where, and what to do
    ├── NotFound
    ├── AlreadyExists
    ├── FailedPrecondition          the state forbids it, such as changing a published group
    ├── Aborted                     somebody else changed it meanwhile
    ├── OutOfRange
    ├── Unauthenticated             no key, or a wrong or expired one
    ├── PermissionDenied            the key lacks the role
    ├── ResourceExhausted           over a quota, or too large
    ├── Unavailable                 the service cannot be reached, or cannot answer now
    ├── DeadlineExceeded            no answer in time: it may have been done
    ├── Cancelled
    ├── Unimplemented
    ├── Internal                    a fault of the service: quote the request id
    ├── EventRejected               one event was refused: reason and field say why
    ├── OperationFailed             a long-running operation ended without success
    └── ClientClosed                the client was closed

Servers answer with a rich status (AIP 193); `from_rpc_error` reads it. Nothing here needs a server to be tested.
"""

# ruff: noqa: N818  (the names are those of the status codes, as in the services)

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

import grpc
from google.rpc import error_details_pb2, status_pb2

DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID_KEY = "x-request-id"
BROKEN_WRITE = "Internal error from Core"
"""What grpc.aio answers, with INTERNAL, for a write to a stream that has just ended, in place of how it ended."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One mistake in a request: the path of the field, what is wrong with it and what to do, and the reason."""

    field: str
    description: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


class InklingError(Exception):
    """Base of everything that the client raises for an answer of a service.

    `reason` is the service's ErrorReason without its prefix (such as NOT_FOUND) and `domain` says whose it is;
    `retry_after` is set when the service asked to wait.
    """

    code: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        domain: str = "",
        violations: Sequence[Violation] = (),
        request_id: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.domain = domain
        self.violations = tuple(violations)
        self.request_id = request_id
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after

    def __str__(self) -> str:
        lines = [self.message or self.code]
        lines += [f"  {violation}" for violation in self.violations if str(violation) not in self.message]
        return "\n".join(lines)


class InvalidArgument(InklingError):
    """The request is wrong."""

    code = "INVALID_ARGUMENT"


class NotFound(InklingError):
    """There is no such thing in the project."""

    code = "NOT_FOUND"


class AlreadyExists(InklingError):
    """It exists already, with other content."""

    code = "ALREADY_EXISTS"


class FailedPrecondition(InklingError):
    """The state of the thing forbids the call."""

    code = "FAILED_PRECONDITION"


class Aborted(InklingError):
    """Somebody else changed it meanwhile: read again, then try again."""

    code = "ABORTED"


class OutOfRange(InklingError):
    """A position or number lies outside of what there is."""

    code = "OUT_OF_RANGE"


class Unauthenticated(InklingError):
    """No key, or a wrong, expired or revoked one."""

    code = "UNAUTHENTICATED"


class PermissionDenied(InklingError):
    """The key lacks a role that the method needs."""

    code = "PERMISSION_DENIED"


class ResourceExhausted(InklingError):
    """Over a quota, or a message too large."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(InklingError):
    """The service cannot be reached, or cannot answer now."""

    code = "UNAVAILABLE"


class DeadlineExceeded(InklingError):
    """No answer in time: the work may have been done all the same."""

    code = "DEADLINE_EXCEEDED"


class Cancelled(InklingError):
    """The call was cancelled."""

    code = "CANCELLED"


class Unimplemented(InklingError):
    """The service has no such method: an older one, or another one, listens there."""

    code = "UNIMPLEMENTED"


class Internal(InklingError):
    """A fault of the service: quote the request id."""

    code = "INTERNAL"


class EventRejected(InklingError):
    """One event was refused and kept as a dead letter; `metadata` names it under `dead_letter`."""

    code = "INVALID_ARGUMENT"


class OperationFailed(InklingError):
    """A long-running operation ended without success."""

    code = "FAILED_PRECONDITION"


class ClientClosed(InklingError):
    """The client was closed before the call, or before a buffered event was delivered."""

    code = "CANCELLED"


def class_of(code: str) -> type[InklingError]:
    """The class that a status code is raised as; InklingError itself for a code without one."""
    special = (EventRejected, OperationFailed, ClientClosed)
    for subclass in InklingError.__subclasses__():
        if subclass.code == code and subclass not in special:
            return subclass
    return InklingError


def from_rpc_error(error: grpc.RpcError) -> InklingError:
    """The error of a failed call, with what its rich status and its trailing metadata tell."""
    if not isinstance(error, grpc.aio.AioRpcError):
        return InklingError(str(error))
    if error.details() == BROKEN_WRITE:
        return Unavailable("the stream broke while something was being sent")
    trailing = {str(key): value for key, value in error.trailing_metadata() or ()}
    request_id = trailing.get(REQUEST_ID_KEY, "")
    details = trailing.get(DETAILS_KEY)
    status = status_pb2.Status(message=error.details() or "")
    if isinstance(details, bytes):
        status.MergeFromString(details)
    text = request_id.decode() if isinstance(request_id, bytes) else request_id
    return from_status(error.code().name, status, request_id=text)


def from_status(code: str, status: status_pb2.Status, *, request_id: str = "") -> InklingError:
    """The error that a rich status describes; `code` is the name of its status code."""
    info = error_details_pb2.ErrorInfo()
    violations: list[Violation] = []
    retry_after: timedelta | None = None
    for packed in status.details:
        if packed.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            packed.Unpack(info)
        elif packed.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            violations += read_violations(error_details_pb2.BadRequest.FromString(packed.value))
        elif packed.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            delay = error_details_pb2.RetryInfo.FromString(packed.value).retry_delay
            retry_after = timedelta(seconds=delay.seconds, microseconds=delay.nanos // 1000)
        elif packed.Is(error_details_pb2.RequestInfo.DESCRIPTOR):
            request_id = error_details_pb2.RequestInfo.FromString(packed.value).request_id or request_id
    return class_of(code)(
        status.message,
        reason=info.reason.removeprefix("ERROR_REASON_"),
        domain=info.domain,
        violations=violations,
        request_id=request_id,
        metadata=dict(info.metadata),
        retry_after=retry_after,
    )


def read_violations(bad_request: error_details_pb2.BadRequest) -> list[Violation]:
    """The field violations of a BadRequest detail."""
    return [Violation(each.field, each.description, each.reason) for each in bad_request.field_violations]
