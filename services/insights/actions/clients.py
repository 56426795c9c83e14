"""Actions done by the other services: events through ingest, properties through features."""

import hashlib
import re
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from inkling.features.v1 import profile_pb2, profile_service_pb2, property_service_pb2
from inkling.features.v1.profile_service_pb2_grpc import ProfileServiceStub
from inkling.features.v1.property_service_pb2_grpc import PropertyServiceStub
from inkling.ingest.v1 import error_reason_pb2, event_pb2, ingest_service_pb2
from inkling.ingest.v1.ingest_service_pb2_grpc import IngestServiceStub
from services.insights.actions.delivery import LaterError, RefusedError
from services.insights.actions.outbox import Outgoing
from services.insights.actions.webhooks import Webhooks
from services.insights.rules.actions import Effect
from services.insights.rules.wire import value_message
from services.kernel.expressions import Instant

_TIMEOUT_SECONDS = 15.0
_NOES = frozenset({"no", "false", "denied"})
_PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
    }
)
"""Not the action's fault: tried again."""


class ServiceDelivery:
    """See `Delivery`."""

    def __init__(self, ingest: grpc.aio.Channel, features: grpc.aio.Channel, webhooks: Webhooks) -> None:
        self._ingest = IngestServiceStub(ingest)
        self._properties = PropertyServiceStub(features)
        self._profiles = ProfileServiceStub(features)
        self._webhooks = webhooks
        self._declared: set[tuple[str, str, str]] = set()

    async def fire(self, action: Outgoing) -> None:
        """See `Delivery`. The action's id is the event's: a retry adds nothing."""
        event = event_pb2.Event(event_id=action.action_id, keys={action.user_key: action.user})
        event.type.name = action.name
        event.occurred_at.FromMicroseconds(action.at_us)
        event.properties["rule"].string_value = action.rule_id
        request = ingest_service_pb2.IngestRequest(events=[event])
        response = await _call(self._ingest.Ingest, request, action.project)
        for refused in response.rejected:
            name = error_reason_pb2.ErrorReason.Name(refused.reason)
            raise RefusedError(name.removeprefix("ERROR_REASON_"))

    async def set_property(self, action: Outgoing) -> None:
        """See `Delivery`. A property that nobody declared is declared: the first time that a rule sets it."""
        name = property_id(action.name)
        write = property_service_pb2.PropertyWrite(key_value=action.user, write_id=action.action_id)
        if action.effect is Effect.SET_PROPERTY and action.value is not None:
            write.values[name].CopyFrom(value_message(action.value))
        else:
            write.unset.append(name)
        await self._declare(action, name)
        request = property_service_pb2.SetPropertiesRequest(
            attribute_key=action.user_key, write=write, source=f"rule:{action.rule_id}"
        )
        try:
            await _call(self._properties.SetProperties, request, action.project)
        except RefusedError:
            self._declared.discard((action.project, action.user_key, name))
            raise

    async def _declare(self, action: Outgoing, name: str) -> None:
        place = (action.project, action.user_key, name)
        if place in self._declared:
            return
        request = property_service_pb2.CreatePropertyRequest(attribute_key=action.user_key, property_id=name)
        kind = property_service_pb2.PropertyType.PROPERTY_TYPE_STRING
        if isinstance(action.value, bool):
            kind = property_service_pb2.PropertyType.PROPERTY_TYPE_BOOLEAN
        elif isinstance(action.value, int | float):
            kind = property_service_pb2.PropertyType.PROPERTY_TYPE_NUMERIC
        elif isinstance(action.value, Instant):
            kind = property_service_pb2.PropertyType.PROPERTY_TYPE_DATE
        request.property.type = kind
        request.property.description, request.property.source = "Set by rules.", "rules"
        try:
            await _call(self._properties.CreateProperty, request, action.project)
        except RefusedError as error:
            if error.reason != "ALREADY_EXISTS":
                raise
        self._declared.add(place)

    async def has_consent(self, action: Outgoing, consent_property: str) -> bool:
        """See `Delivery`. Where no such property is declared nobody said no."""
        request = profile_service_pb2.GetProfileRequest(
            attribute_key=action.user_key,
            key_value=action.user,
            selection=profile_pb2.Selection(properties=[consent_property]),
        )
        try:
            profile = await _call(self._profiles.GetProfile, request, action.project)
        except RefusedError as error:
            if error.reason in ("NOT_FOUND", "INVALID_ARGUMENT"):
                return True
            raise LaterError(error.reason) from None
        for found in profile.properties:
            if found.value.WhichOneof("kind") == "bool_value" and not found.value.bool_value:
                return False
            if found.value.string_value.strip().lower() in _NOES:
                return False
        return True

    async def call_webhook(self, action: Outgoing) -> None:
        """See `Delivery`."""
        await self._webhooks.call(action)


def property_id(name: str) -> str:
    """The id of the property for a compatible name: other characters than an id has become `_`, and to keep such names
    apart a hash of the name follows.
    """
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}", name):
        return name
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:110]
    start = "" if re.match(r"[A-Za-z_]", plain) else "_"
    return f"{start}{plain}_{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"


async def _call(method: Any, request: Message, project: str) -> Any:
    try:
        return await method(request, metadata=(("x-inkling-project", project),), timeout=_TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError as error:
        name = error.code().name
        if error.code() in _PASSING:
            raise LaterError(name) from None
        raise RefusedError(name) from None
