"""What happens around every RPC, in one ordered list of small async context managers.

    request_id    names the call, for logs, errors and the calls that it causes
    tracing       a span (with the `telemetry` extra)
    metrics       counts and times it by method and code
    access_log    a line when it failed or was slow
    errors        any exception becomes a status; everything inside may simply raise
    auth          whose call it is, and whether the method's policy allows it
    quota         the project's rate
    deadline      nothing is begun for callers who no longer wait

The order is the argument of `ordered`: the first is the outermost. `chain` runs them.
"""

from services.runtime.interceptors.admission import Authentication, DeadlineCheck, Quota
from services.runtime.interceptors.chain import CallInterceptor, Chain
from services.runtime.interceptors.failures import ErrorMapping
from services.runtime.interceptors.observation import AccessLog, CallMetrics, RequestIds, Tracing

__all__ = [
    "AccessLog",
    "Authentication",
    "CallInterceptor",
    "CallMetrics",
    "Chain",
    "DeadlineCheck",
    "ErrorMapping",
    "Quota",
    "RequestIds",
    "Tracing",
    "ordered",
]


def ordered(
    *,
    request_id: RequestIds,
    tracing: Tracing,
    metrics: CallMetrics,
    access_log: AccessLog,
    errors: ErrorMapping,
    auth: Authentication,
    quota: Quota,
    deadline: DeadlineCheck,
) -> tuple[CallInterceptor, ...]:
    """All interceptors, from the outside in. The only place that knows the order."""
    return (request_id, tracing, metrics, access_log, errors, auth, quota, deadline)
