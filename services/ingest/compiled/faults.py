"""What can be wrong with an event, and how each is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum


class Fault(IntEnum):
    """What is wrong with an event; the first that is found is told."""

    NONE = 0
    MALFORMED = 1
    TOO_LARGE = 2
    NO_ID = 3
    LONG_ID = 4
    CONTROL_IN_ID = 5
    NO_TYPE = 6
    BAD_TYPE = 7
    NO_TIME = 8
    BAD_TIME = 9
    BAD_OPERATION = 10
    BAD_REVISION = 11
    NO_KEY = 12
    MANY_KEYS = 13
    KEY_NAME = 14
    KEY_VALUE = 15
    MANY_PROPERTIES = 16
    MANY_DATA = 17
    MANY_ENTITIES = 18
    MANY_IN_ENTITY = 19
    PROPERTY_NAME = 20
    ENTITY_NAME = 21
    ENTITY_VERSION = 22
    NOT_FINITE = 23
    FORBIDDEN_KIND = 24
    BAD_INSTANT = 25
    LONG_TEXT = 26
    LONG_LIST = 27
    MANY_COLUMNS = 28
    TOO_EARLY = 29
    TOO_LATE = 30
    MISSING_FIELD = 31
    WRONG_TYPE = 32
    UNDECLARED = 33
    RESERVED_VENDOR = 34


@dataclass(frozen=True)
class Refusal:
    """Why one event is refused: `reason` is a value of ErrorReason without its prefix."""

    reason: str
    field: str
    """Within the event, such as keys.user_id."""
    message: str


EXPLANATIONS: Mapping[Fault, tuple[str, str, str]] = {
    # Reason, field (empty: the key or property at fault), message.
    Fault.MALFORMED: ("MALFORMED", "", "The bytes are not an Event: encode it with the published proto."),
    Fault.TOO_LARGE: ("TOO_LARGE", "", "The event is larger than 1 MiB: send less with it."),
    Fault.NO_ID: ("BAD_EVENT_ID", "event_id", "The event has no id: give each one its own, the same when retried."),
    Fault.LONG_ID: ("BAD_EVENT_ID", "event_id", "The id is longer than 128 characters."),
    Fault.CONTROL_IN_ID: ("BAD_EVENT_ID", "event_id", "The id has a control character."),
    Fault.NO_TYPE: ("BAD_EVENT_TYPE", "type.name", "The event type has no name."),
    Fault.BAD_TYPE: (
        "BAD_EVENT_TYPE",
        "type",
        "Vendor, name and version have at most 128 characters, no slash and no control character.",
    ),
    Fault.NO_TIME: ("BAD_TIME", "occurred_at", "The event does not say when it happened."),
    Fault.BAD_TIME: ("BAD_TIME", "occurred_at", "The event time is not between the years 1970 and 2261."),
    Fault.BAD_OPERATION: ("BAD_CORRECTION", "operation", "Unknown operation: add, replace or delete."),
    Fault.BAD_REVISION: (
        "BAD_CORRECTION",
        "revision",
        "An added event has revision 0, a replacement the revision that it makes, 1 or more.",
    ),
    Fault.NO_KEY: ("BAD_KEY", "keys", "The event has no attribute key: say whom it concerns."),
    Fault.MANY_KEYS: ("BAD_KEY", "keys", "The event has more than 8 attribute keys."),
    Fault.KEY_NAME: ("BAD_KEY", "keys", "The name of an attribute key does not match [a-z][a-z0-9_]{0,63}."),
    Fault.KEY_VALUE: ("BAD_KEY", "", "The value has not 1 to 256 characters, or has a control character."),
    Fault.MANY_PROPERTIES: ("BAD_PROPERTY", "properties", "The event has more than 256 properties."),
    Fault.MANY_DATA: ("BAD_PROPERTY", "data", "The event's own data have more than 256 properties."),
    Fault.MANY_ENTITIES: ("BAD_PROPERTY", "entities", "The event has more than 32 entities."),
    Fault.MANY_IN_ENTITY: ("BAD_PROPERTY", "entities", "An entity has more than 256 properties."),
    Fault.PROPERTY_NAME: (
        "BAD_PROPERTY",
        "properties",
        "A property's name has not 1 to 256 characters, or has a colon or a control character.",
    ),
    Fault.ENTITY_NAME: (
        "BAD_PROPERTY",
        "entities",
        "An entity has no name, or its vendor or name is longer than 128 characters or has one of / [ ] : or a "
        "control character.",
    ),
    Fault.ENTITY_VERSION: ("BAD_PROPERTY", "entities", "An entity's major_version is not 1 or more."),
    Fault.NOT_FINITE: ("BAD_PROPERTY", "", "NaN and infinities are not values: leave the property out."),
    Fault.FORBIDDEN_KIND: ("BAD_PROPERTY", "", "Events do not have values of this kind."),
    Fault.BAD_INSTANT: ("BAD_PROPERTY", "", "The timestamp is not between the years 1 and 9999."),
    Fault.LONG_TEXT: ("BAD_PROPERTY", "", "The text is longer than 32 KiB."),
    Fault.LONG_LIST: ("BAD_PROPERTY", "", "The list has more than 1,000 texts."),
    Fault.MANY_COLUMNS: (
        "TOO_LARGE",
        "",
        "The request has more than 10,000 distinct property names: put what varies into values, not into names.",
    ),
    Fault.TOO_EARLY: ("TOO_EARLY", "occurred_at", "The event time is too far ahead of the server's clock."),
    Fault.TOO_LATE: ("TOO_LATE", "occurred_at", "The event is older than the project keeps events."),
    Fault.MISSING_FIELD: ("COLLECTION_MISMATCH", "", "The strict collection requires this property."),
    Fault.WRONG_TYPE: ("COLLECTION_MISMATCH", "", "The strict collection declares another type."),
    Fault.UNDECLARED: ("COLLECTION_MISMATCH", "", "The strict collection does not declare this property."),
    Fault.RESERVED_VENDOR: (
        "RESERVED_VENDOR",
        "type.vendor",
        "The vendor is the suite's own: give the event another, and set properties with SetProperties.",
    ),
}
