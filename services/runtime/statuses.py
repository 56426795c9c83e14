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
_MAX_METADATA_VALUE = 200
_MAX_METADATA = 16


def grpc_code(code: Code) -> grpc.StatusCode:
    """The library's name for a code."""
    return grpc.StatusCode[code.value]


def status_of(error: InklingError, domain: str, request_id: str) -> status_pb2.Status:
    """The status that tells a caller of `error`. An internal one tells the request id and nothing else."""
    if isinstance(error, Internal):
        error = Internal(f"internal error; request id {request_id}")
    violations = error.violations[:MAX_VIOLATIONS]
    while True:
        status = _build(error, domain, request_id, violations)
        if status.ByteSize() <= MAX_DETAILS_BYTES or not violations:
            return status
        violations = violations[: len(violations) * 3 // 4]


def _build(error: InklingError, domain: str, request_id: str, violations: tuple[Violation, ...]) -> status_pb2.Status:
    metadata = {key: _cut(value, _MAX_METADATA_VALUE) for key, value in list(error.metadata.items())[:_MAX_METADATA]}
    omitted = len(error.violations) - len(violations)
    if omitted:
        metadata["omitted_violations"] = str(omitted)
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason or error.code.value, domain=domain, metadata=metadata)
    ]
    if violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=_cut(violation.field, _MAX_FIELD),
                        description=_cut(violation.description, _MAX_DESCRIPTION),
                        reason=violation.reason,
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


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
