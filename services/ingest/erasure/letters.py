"""Which dead letters carry a subject."""

import re
from collections.abc import Iterable, Iterator

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from inkling.ingest.v1.event_pb2 import Event
from services.ingest.dead_letters import DeadLetter
from services.ingest.erasure.subject import Subject


def carries(letter: DeadLetter, subject: Subject) -> bool:
    """Whether a letter holds the subject's value: under its key or as the whole of any text of an event.

    In what could not be read, a line of CSV or bytes that are no event, the value counts where it stands by itself, not
    as a part of a longer word or number: rather too many letters go than one too few.
    """
    if letter.event is not None:
        try:
            event = Event.FromString(letter.event)
        except DecodeError:
            return _contains(letter.event, subject.value)
        return subject.value in texts(event)
    return letter.csv_line is not None and _contains(letter.csv_line, subject.value)


def texts(message: Message) -> Iterator[str]:
    """All texts of a message, also keys of maps."""
    for described, value in message.ListFields():
        yield from _texts_of(described, value)


def _texts_of(described: FieldDescriptor, value: object) -> Iterator[str]:
    entry = described.message_type
    if entry is not None and entry.GetOptions().map_entry:
        assert hasattr(value, "items")
        for key, content in value.items():
            yield str(key)
            yield from _leaves([content])
    elif isinstance(value, str | bytes | Message) or not isinstance(value, Iterable):
        yield from _leaves([value])
    else:
        yield from _leaves(value)


def _leaves(values: Iterable[object]) -> Iterator[str]:
    for value in values:
        if isinstance(value, Message):
            yield from texts(value)
        elif isinstance(value, str):
            yield value


def _contains(content: bytes, value: str) -> bool:
    text = content.decode(errors="replace")
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None
