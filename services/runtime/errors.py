"""Errors of the domain. The middle raises them; the error interceptor turns them into gRPC statuses.

    InklingError
    ├── InvalidArgument      the request is wrong whatever the state; carries field violations
    ├── OutOfRange           right in form, but beyond what exists (a position past the head)
    ├── NotFound             no such thing in this project
    ├── AlreadyExists        it is there, and the request would make it
    ├── FailedPrecondition   the state must change first; a retry alone does not help
    ├── Aborted              lost a race (an etag, a serialisation failure); read again and retry
    ├── Unauthenticated      no valid credential
    ├── PermissionDenied     a valid credential without the role
    ├── ResourceExhausted    a quota or a limit; carries when to try again
    ├── DeadlineExceeded     the time ran out before the work was done
    ├── Cancelled            the caller took the request back
    ├── Unavailable          try again with back-off; nothing is wrong with the request
    ├── Unimplemented        known, but not offered here
    └── Internal             a broken invariant; its message is logged and never sent

The text of these errors (except `Internal`) is written for callers and reaches them; it never quotes a value that
may be personal. Any other exception is answered as INTERNAL with a request id only.
"""

# The names are those of the status codes, as every gRPC user knows them.
# ruff: noqa: N818

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Code(StrEnum):
    """The canonical gRPC status codes, by name."""

    OK = "OK"
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    DATA_LOSS = "DATA_LOSS"
    UNAUTHENTICATED = "UNAUTHENTICATED"


@dataclass(frozen=True)
class Violation:
    """One mistake in a request: the field's path (`events[3].keys.user_id`), what is wrong and what to do."""

    field: str
    description: str
    reason: str = ""


class InklingError(Exception):
    """The root of the tree.

    `message` is one sentence for people. `reason` is a value of the service's `ErrorReason` enum without the
    `ERROR_REASON_` prefix; empty means the name of the code. `metadata` is for programs. `retry_after` becomes
    RetryInfo.
    """

    code: Code = Code.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        violations: Sequence[Violation] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.violations = tuple(violations)
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after


class InvalidArgument(InklingError):
    """The request is wrong whatever the state of the service."""

    code = Code.INVALID_ARGUMENT


class OutOfRange(InklingError):
    """Right in form, but beyond what exists."""

    code = Code.OUT_OF_RANGE


class NotFound(InklingError):
    """There is no such thing in the caller's project."""

    code = Code.NOT_FOUND


class AlreadyExists(InklingError):
    """It is there already."""

    code = Code.ALREADY_EXISTS


class FailedPrecondition(InklingError):
    """The state must change before this can work."""

    code = Code.FAILED_PRECONDITION


class Aborted(InklingError):
    """A race was lost: read again, then retry."""

    code = Code.ABORTED


class Unauthenticated(InklingError):
    """No valid credential came with the call."""

    code = Code.UNAUTHENTICATED


class PermissionDenied(InklingError):
    """The credential is valid, and not allowed to do this."""

    code = Code.PERMISSION_DENIED


class ResourceExhausted(InklingError):
    """A quota or a limit is reached."""

    code = Code.RESOURCE_EXHAUSTED


class DeadlineExceeded(InklingError):
    """The time ran out before the work was done."""

    code = Code.DEADLINE_EXCEEDED


class Cancelled(InklingError):
    """The caller took the request back."""

    code = Code.CANCELLED


class Unavailable(InklingError):
    """Not now: the same request may work a moment later."""

    code = Code.UNAVAILABLE


class Unimplemented(InklingError):
    """Known, but not offered here."""

    code = Code.UNIMPLEMENTED


class Internal(InklingError):
    """A broken invariant of ours. The message goes to the log, not to the caller."""

    code = Code.INTERNAL
