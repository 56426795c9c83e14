"""Messages of stored definitions: content with state, times and etag."""

from inkling.features.v1 import attribute_group_pb2 as groups_pb2
from inkling.features.v1 import feature_service_pb2 as services_pb2
from services.features.proto import STATES, group_to_proto, service_to_proto, timestamp
from services.features.store import StoredGroup, StoredService


def stored_group_message(stored: StoredGroup) -> groups_pb2.AttributeGroup:
    """A version of a group as the API shows it."""
    message = group_to_proto(stored.group)
    message.state = STATES[stored.state]
    message.create_time.CopyFrom(timestamp(stored.create_time_us))
    message.update_time.CopyFrom(timestamp(stored.update_time_us))
    if stored.publish_time_us is not None:
        message.publish_time.CopyFrom(timestamp(stored.publish_time_us))
    message.etag = stored.etag
    return message


def stored_service_message(stored: StoredService) -> services_pb2.FeatureService:
    """A service as the API shows it."""
    message = service_to_proto(stored.service)
    message.create_time.CopyFrom(timestamp(stored.create_time_us))
    message.update_time.CopyFrom(timestamp(stored.update_time_us))
    message.etag = stored.etag
    return message
