"""Insights' part of an erasure, over the wire."""

import asyncio
from typing import Protocol

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from inkling.insights.v1 import subject_service_pb2
from inkling.insights.v1.subject_service_pb2_grpc import SubjectServiceStub
from services.runtime.erasures import Erased
from services.runtime.errors import Unavailable

_WAIT_SECONDS = 60
_TIMEOUT_SECONDS = 115.0
_TRIES = 20
_PAUSE_SECONDS = 0.5


class Elsewhere(Protocol):
    """Another service that keeps what it has made of the log."""

    async def hold(self, project: str, attribute_key: str, value: str) -> list[Erased]:
        """Does nothing more for a subject that is about to be erased: nothing of it is written to the log."""
        ...

    async def forget(self, project: str, attribute_key: str, value: str, position: int) -> list[Erased]:
        """Forgets a subject whose erasure is in the log up to a position; again is no error."""
        ...


class InsightErasures:
    """See `Elsewhere`: insights, over a channel that shows the key of a service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = SubjectServiceStub(channel)

    async def hold(self, project: str, attribute_key: str, value: str) -> list[Erased]:
        """See Elsewhere."""
        request = subject_service_pb2.ForgetSubjectRequest(attribute_key=attribute_key, key_value=value, hold_only=True)
        return await self._ask(project, request)

    async def forget(self, project: str, attribute_key: str, value: str, position: int) -> list[Erased]:
        """See Elsewhere."""
        request = subject_service_pb2.ForgetSubjectRequest(
            attribute_key=attribute_key,
            key_value=value,
            position=position,
            wait_timeout=Duration(seconds=_WAIT_SECONDS),
        )
        return await self._ask(project, request)

    async def _ask(self, project: str, request: subject_service_pb2.ForgetSubjectRequest) -> list[Erased]:
        """Goes on while insights restart; raises Unavailable when they stay away."""
        for attempt in range(_TRIES):
            try:
                response = await self._stub.ForgetSubject(
                    request, metadata=(("x-inkling-project", project),), timeout=_TIMEOUT_SECONDS
                )
            except grpc.aio.AioRpcError as error:
                if attempt + 1 == _TRIES:
                    raise Unavailable(
                        "insights cannot be asked to forget now: try again", reason="NOT_READY"
                    ) from error
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return [Erased(each.store, each.count, each.unit) for each in response.stores]
        raise AssertionError("the last try returns or raises")
