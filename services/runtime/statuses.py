"""Errors on the wire (AIP 193): a status with ErrorInfo, and BadRequest, RetryInfo and RequestInfo where they fit.

They travel in trailers, for which clients allow 8 KiB unless told otherwise: so at most 25 violations and 4 KiB of
details; what does not fit is counted in the ErrorInfo metadata `omitted_violations`.
"""

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from services.runtime.errors import Code, InklingError, Internal, Violation

DETAILS_KEY = "grpc-status-details-bin"
MAX_VIOLATIONS = 25
MAX_DETAILS_BYTES = 4096
_MAX_MESSAGE = 500
_MAX_DESCRIPTION = 300
_MAX_FIELD = 200
_MAX_KEY = 64
_MAX_VALUE = 200


def grpc_code(code: Code) -> grpc.StatusCode:
    """The library's name for a code."""
    return grpc.StatusCode[code.value]


def status_of(error: InklingError, domain: str, request_id: str) -> status_pb2.Status:
    """The status that tells a caller of `error`. An internal one tells the request id and nothing else."""
    if isinstance(error, Internal):
        error = Internal(f"internal error; request id {request_id}")
    violations = error.violations[:MAX_VIOLATIONS]
    metadata = dict(error.metadata)
    while True:
        status = _build(error, domain, request_id, violations, metadata)
        if status.ByteSize() <= MAX_DETAILS_BYTES or not (violations or metadata):
            return status
        if violations:
            violations = violations[: len(violations) * 3 // 4]
        else:
            metadata.popitem()


def _build(
    error: InklingError, domain: str, request_id: str, violations: tuple[Violation, ...], metadata: dict[str, str]
) -> status_pb2.Status:
    metadata = {_cut(key, _MAX_KEY): _cut(value, _MAX_VALUE) for key, value in metadata.items()}
    omitted = len(error.violations) - len(violations)
    if omitted:
        metadata["omitted_violations"] = str(omitted)
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=_cut(error.reason or error.code.value, _MAX_KEY), domain=domain, metadata=metadata
        )
    ]
    if violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=_cut(violation.field, _MAX_FIELD),
                        description=_cut(violation.description, _MAX_DESCRIPTION),
                        reason=_cut(violation.reason, _MAX_KEY),
                    )
                    for violation in violations
                ]
            )
        )
    if error.retry_after is not None:
        delay = Duration()
        delay.FromTimedelta(error.retry_after)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if request_id:
        details.append(error_details_pb2.RequestInfo(request_id=request_id))
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code.value), message=_cut(error.message, _MAX_MESSAGE))
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _cut(text: str, size: int) -> str:
    """The text in at most `size` bytes of UTF-8. (Bytes that are not ASCII take three on the wire.)"""
    data = text.encode("utf-8", "replace")
    return data.decode() if len(data) <= size else f"{data[: size - 3].decode('utf-8', 'ignore')}…"
