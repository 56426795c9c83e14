"""The insights service, asked by whoever computes training sets: in a thread, or in another process.

Nothing is open between two questions, so that it can be sent to where the rows are computed.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inkling.insights.v1 import insight_pb2
from inkling.insights.v1 import insight_service_pb2 as messages
from inkling.insights.v1.insight_service_pb2_grpc import InsightServiceStub
from services.features.datasets.goals import InsightQuestion
from services.features.proto import timestamp
from services.features.settings import FeaturesSettings
from services.runtime import tls
from services.runtime.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable, Violation

_AT_ONCE = 5_000
_WAIT_SECONDS = 60
_TIMEOUT_SECONDS = 120.0
_TRIES = 5
_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_FIELD = "goal.insight.insight"


@dataclass(frozen=True, slots=True)
class InsightsClient:
    """See `goals.InsightLabels`: over a connection that shows the key of a service."""

    target: str
    key: str = field(repr=False)
    ca_file: Path | None = None
    pause_seconds: float = 0.5
    """Before the second try; twice as long before each one after."""

    @classmethod
    def of(cls, settings: FeaturesSettings) -> "InsightsClient | None":
        """The client of the service that settings name, if any."""
        if not settings.insights_target:
            return None
        return cls(settings.insights_target, settings.service_key, settings.insights_ca_file)

    def check(self, question: InsightQuestion) -> None:
        """See InsightLabels."""
        self._ask(question, [])

    def applies(self, question: InsightQuestion, keys: pa.Array, instants_us: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See InsightLabels."""
        pairs = [
            messages.CustomerInstant(customer=customer, instant_time=timestamp(instant - 1))
            for customer, instant in zip(keys.to_pylist(), instants_us.tolist(), strict=True)
        ]
        return np.array(self._ask(question, pairs), np.bool_)

    def _ask(self, question: InsightQuestion, pairs: Sequence[messages.CustomerInstant]) -> list[bool]:
        metadata = (("authorization", f"Bearer {self.key}"), ("x-inkling-project", question.project))
        found: list[bool] = []
        with self._channel() as channel:
            stub = InsightServiceStub(channel)
            for start in range(0, max(len(pairs), 1), _AT_ONCE):
                request = messages.BatchEvaluateInsightRequest(
                    name=question.insight,
                    attribute_key=question.attribute_key,
                    pairs=pairs[start : start + _AT_ONCE],
                    min_position=question.position,
                )
                request.wait_timeout.FromSeconds(_WAIT_SECONDS)
                answer = self._answered(stub, request, metadata)
                found += [state == insight_pb2.STATE_APPLIES for state in answer.states]
        return found

    def _channel(self) -> grpc.Channel:
        if self.ca_file is None:
            return grpc.insecure_channel(self.target)
        return grpc.secure_channel(self.target, tls.client_credentials(self.ca_file))

    def _answered(
        self,
        stub: InsightServiceStub,
        request: messages.BatchEvaluateInsightRequest,
        metadata: tuple[tuple[str, str], ...],
    ) -> messages.BatchEvaluateInsightResponse:
        """The answer; raises NotFound, InvalidArgument, FailedPrecondition, and Unavailable after some tries."""
        attempt = 1
        while True:
            try:
                return stub.BatchEvaluateInsight(request, metadata=metadata, timeout=_TIMEOUT_SECONDS)
            except grpc.RpcError as error:
                if attempt == _TRIES or error.code() not in _AGAIN:
                    raise _refusal(error, request) from error
            time.sleep(self.pause_seconds * 2 ** (attempt - 1))
            attempt += 1


def _refusal(
    error: grpc.RpcError, request: messages.BatchEvaluateInsightRequest
) -> NotFound | InvalidArgument | FailedPrecondition | Unavailable:
    code = error.code()
    if code in _AGAIN:
        return Unavailable("the insights service cannot be asked now: try again", reason="NOT_READY")
    if code is grpc.StatusCode.NOT_FOUND:
        return NotFound(f"there is no {request.name}", reason="NOT_FOUND", metadata={"name": request.name})
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        hint = f"must be an insight about {request.attribute_key} whose rows are retained: activate it"
        return InvalidArgument(f"{_FIELD} {hint}", reason="BAD_DATASET", violations=(_wrong(hint),))
    return FailedPrecondition("the insights service does not answer us", reason="NO_INSIGHTS")


def _wrong(description: str) -> Violation:
    return Violation(_FIELD, description, "BAD_DATASET")
